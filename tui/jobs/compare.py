"""Two jobs side by side: times, phases, requests, packages, files, results, code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from stoke.history.job import Job, Phase
from stoke.jobs.compare import Comparison, FileChange, PackageChange
from stoke.results.compare import ResultChange
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.jobs.columns import state_text
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar

_NAME_WIDTH = 14
_FIGURES_WIDTH = 30
_LEAST_BAR = 4
MOST_FILES = 500
"""Changed files and results that are listed, of each."""
_STYLES = {"added": ("+", "$good"), "removed": ("-", "$bad"), "changed": ("~", "$warn")}


class CompareScreen(StokeScreen):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", "Back", id="compare.back"),
        Binding("X", "swap", "Swap the jobs", id="compare.swap"),
        Binding("down,j", "scroll_by(1)", "Down", show=False, id="compare.down"),
        Binding("up,k", "scroll_by(-1)", "Up", show=False, id="compare.up"),
    ]

    def __init__(self, context: Context, comparison: Comparison, swapped: Comparison) -> None:
        super().__init__(context)
        self._comparison, self._swapped = comparison, swapped

    def compose(self) -> ComposeResult:
        yield TopBar("jobs", self.context.read_only)
        with VerticalScroll(id="compare-scroll"):
            yield ComparisonView(self._comparison, self.context.clock, id="comparison")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_swap(self) -> None:
        self._comparison, self._swapped = self._swapped, self._comparison
        self.query_one(ComparisonView).show(self._comparison)

    def action_scroll_by(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_back(self) -> None:
        self.dismiss()


class ComparisonView(Widget):
    """A comparison in two columns that share the width."""

    def __init__(
        self,
        found: Comparison,
        clock: Callable[[], float],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._clock = clock
        self._comparison = found

    def show(self, found: Comparison) -> None:
        self._comparison = found
        self.refresh(layout=True)

    def render(self) -> Text:
        found = self._comparison
        text = Text(no_wrap=True, overflow="ellipsis")
        for line in self._lines(found, found.first, found.second):
            text.append_text(line)
            text.append("\n")
        return text

    def _lines(self, found: Comparison, first: Job, second: Job) -> Iterator[Text]:
        yield self._pair("", fmt.plain(first.id, "bold"), fmt.plain(second.id, "bold"))
        yield self._pair("state", *(_state(job) for job in (first, second)))
        now = self._clock()
        yield self._pair("submitted", *(_ago(job, now) for job in (first, second)))
        for name, a, b in (
            ("took", first.seconds, second.seconds),
            ("environment", first.environment_seconds, second.environment_seconds),
            ("cpu", first.cpu_seconds, second.cpu_seconds),
        ):
            yield self._pair(name, Text(fmt.duration(a)), _against(fmt.duration(b), a, b))
        for name, c, d in (
            ("received", first.received_bytes, second.received_bytes),
            ("peak memory", first.peak_memory, second.peak_memory),
        ):
            yield self._pair(name, Text(fmt.size(c)), _against(fmt.size(d), c, d))
        yield _heading("phases")
        longest = max(
            (
                phase.seconds or 0.0
                for pair in found.phases
                for phase in (pair.first, pair.second)
                if phase is not None
            ),
            default=0.0,
        )
        for pair in found.phases:
            yield self._pair(
                pair.name, *(self._phase(phase, longest) for phase in (pair.first, pair.second))
            )
        yield from self._request(found)
        yield from self._packages(found)
        yield from _files(found)
        yield from _results(found)
        if found.code:
            yield _heading("code")
            yield from (_code(line) for line in found.code)

    def _request(self, found: Comparison) -> Iterator[Text]:
        if not found.spec and found.code:
            return  # The code has a heading of its own.
        yield _heading("request")
        if not found.spec:
            yield Text("the same", style="$quiet")
        for one in found.spec:
            yield self._pair(
                one.what,
                Text("not set", "$quiet") if one.first is None else fmt.plain(one.first, "$warn"),
                Text("not set", "$quiet") if one.second is None else fmt.plain(one.second, "$warn"),
            )

    def _packages(self, found: Comparison) -> Iterator[Text]:
        for kind, changes in found.packages.items():
            yield _heading(f"{kind} packages: {_counts(changes)}")
            yield from (_package(one) for one in changes)
        for kind in found.unknown:
            yield _heading(f"{kind} packages")
            yield Text(
                "not known for both jobs; measure the cache to list them (3, m)", style="$quiet"
            )

    @property
    def _half(self) -> int:
        return max(10, (self.size.width - _NAME_WIDTH - 2) // 2)

    def _pair(self, name: str, first: Text, second: Text) -> Text:
        name = clean(name)
        text = Text(fmt.fit(name, _NAME_WIDTH) + " ", style="$quiet", no_wrap=True)
        left = first.copy()
        left.truncate(self._half - 1, overflow="ellipsis", pad=True)
        line = Text(no_wrap=True).append_text(text).append_text(left).append(" ")
        right = second.copy()
        right.truncate(self._half, overflow="ellipsis")
        return line.append_text(right)

    def _phase(self, phase: Phase | None, longest: float) -> Text:
        if phase is None:
            return Text("-", style="$quiet")
        style = {True: "$good", False: "$warn", None: "$wait"}[phase.hit]
        bar = self._half - _FIGURES_WIDTH
        length = round((phase.seconds or 0) / longest * bar) if longest else 0
        text = Text(f"{fmt.duration(phase.seconds):>7} ")
        text.append(f"{fmt.hit(phase.hit) if phase.hit is not None else '':<5}", style=style)
        packages = "" if phase.packages is None else f"{phase.packages:,}"
        received = fmt.size(phase.bytes) if phase.bytes else ""
        text.append(f"{packages:>5} {received:>8} ")
        if bar < _LEAST_BAR:
            return text
        return text.append("━" * max(length, 1 if phase.seconds else 0), style=style)


def _heading(text: str) -> Text:
    return Text(f"\n{clean(text)}", style="bold")


def _state(job: Job) -> Text:
    text = state_text(job)
    if job.exit_code is not None:
        text.append(f" exit {job.exit_code}", style="")
    return text


def _ago(job: Job, now: float) -> Text:
    return Text(f"{fmt.age(now - job.submitted_at)} ago on ").append_text(fmt.plain(job.backend))


def _against(text: str, first: float | None, second: float | None) -> Text:
    """Return the second figure with its ratio to the first."""
    result = Text(text)
    if first and second:
        times = second / first
        if not 0.95 < times < 1.05:
            ratio = f"{times:.2g}x" if times > 0.1 else f"1/{1 / times:,.0f}"
            result.append(f"  {ratio}", style="$warn" if times > 1 else "$good")
    return result


def _package(one: PackageChange) -> Text:
    mark, style = _STYLES[one.change]
    versions = " → ".join(version for version in (one.first, one.second) if version)
    return Text(f"{mark} ", style=style).append_text(fmt.plain(f"{one.name} {versions}".rstrip()))


def _counts(changes: Sequence[PackageChange | FileChange | ResultChange]) -> str:
    counts = Counter(one.change for one in changes)
    return ", ".join(f"{counts[one]:,} {one}" for one in _STYLES if counts[one]) or "the same"


def _files(found: Comparison) -> Iterator[Text]:
    if found.files is None:
        return
    yield _heading(f"files: {_counts(found.files)}")
    yield from _listed(found.files)


def _results(found: Comparison) -> Iterator[Text]:
    if found.without_results:
        yield _heading("results")
        for job_id in found.without_results:
            yield fmt.plain(f"{job_id}: not on this machine; try: stoke results {job_id}", "$quiet")
    if found.results is None:
        return
    changes, same = found.results.changes, found.results.same
    also = f", {same:,} the same" if changes and same else ""
    yield _heading(f"results: {_counts(changes)}{also}")
    yield from _listed(changes)


def _listed(changes: Sequence[FileChange | ResultChange]) -> Iterator[Text]:
    yield from (_file(one) for one in changes[:MOST_FILES])
    if len(changes) > MOST_FILES:
        yield Text(f"and {len(changes) - MOST_FILES:,} more", style="$quiet")


def _file(one: FileChange | ResultChange) -> Text:
    mark, style = _STYLES[one.change]
    sides = " → ".join(one.sides(fmt.size))
    return Text(f"{mark} ", style=style).append_text(fmt.plain(f"{one.path} {sides}"))


def _code(line: str) -> Text:
    styles = {"+": "$good", "-": "$bad", "@": "$busy"}
    return fmt.plain(line, styles.get(line[:1], ""))

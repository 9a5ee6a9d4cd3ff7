"""Metrics: what the caches saved the jobs in the history, over time, by backend and scope."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Static

from stoke.backend.api import CACHE_KINDS
from stoke.cache.metrics import CacheFigures
from stoke.errors import StokeError
from tui import format as fmt
from tui.base_screen import WIDE, StokeScreen
from tui.context import Context
from tui.jobs_snapshot import JobsSnapshot
from tui.messages import ShowScreen
from tui.metrics.bars import Bar, Bars
from tui.metrics.cache_figures import CacheHistory, hit_rates, read_cache_history, total_sizes
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.tiles import Tiles
from tui.widgets.top_bar import TopBar

RELOAD_DELAY_SECONDS = 2.0
"""A running job changes the history often; the figures are read again this long after a change."""
_DAY = 86400.0
_SPANS = (
    ("all time", None, 30),
    ("last day", _DAY, 24),
    ("last 7 days", 7 * _DAY, 28),
    ("last 30 days", 30 * _DAY, 30),
)
# (heading, cells) of each column; scopes get what the others leave.
_COLUMNS = (
    ("on", 6),
    ("scope", 0),
    ("kind", 6),
    ("jobs", 5),
    ("hits", 4),
    ("cold", 6),
    ("warm", 6),
    ("saved", 6),
    ("not recv", 8),
)
_WIDE_COLUMNS = (
    ("on", 8),
    ("scope", 0),
    ("kind", 6),
    ("jobs", 6),
    ("hit rate", 8),
    ("cold start", 10),
    ("warm start", 10),
    ("time saved", 10),
    ("data saved", 10),
)
_NO_FIGURES = "No figures yet. They appear after the first job that names packages."


class FiguresTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next cache", show=False, id="metrics.down"),
        Binding("up,k", "cursor_up", "Previous cache", show=False, id="metrics.up"),
        Binding("home,g", "scroll_top", "First cache", show=False, id="metrics.first"),
        Binding("end,G", "scroll_bottom", "Last cache", show=False, id="metrics.last"),
    ]


class MetricsScreen(StokeScreen):
    PANES = "#metrics-table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("B", "backend", "Backend", id="metrics.backend"),
        Binding("I", "scope", "Scope", id="metrics.scope"),
        Binding("T", "span", "Time", id="metrics.span"),
        Binding("f5", "reload", "Reload", show=False, id="metrics.reload"),
        Binding("escape", "back", "Back to the jobs", show=False, id="metrics.back"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._backend: str | None = None
        self._scope: str | None = None
        self._span = 0
        self._scopes: set[tuple[str, str]] = set()
        self._data: CacheHistory | None = None
        self._error: StokeError | None = None
        self._reading = False
        self._read_again = False
        self._is_reload_due = False

    def compose(self) -> ComposeResult:
        # Imported here: plotext would delay the first frame of the program.
        from tui.widgets.plots import BYTES, SHARE, TimePlot

        yield TopBar("metrics", self.context.read_only)
        yield Static(id="metrics-selection")
        yield Static(id="metrics-empty")
        with Vertical(id="metrics-body"):
            yield Tiles(("time saved", "data saved", "hit rate", "jobs today"), id="metrics-tiles")
            with Horizontal(id="metrics-plots"):
                yield TimePlot("hit rate", SHARE, "No jobs with packages yet.", id="metrics-hits")
                yield TimePlot("size", BYTES, "Not measured yet.", id="metrics-sizes")
            yield FiguresTable(id="metrics-table", cursor_type="row")
            with Horizontal(id="metrics-bars"):
                yield Bars("cold and warm start", "Needs a hit and a miss.", id="metrics-warmth")
                yield Bars("most used packages", "None yet.", id="metrics-packages")
        yield Static(id="metrics-errors", classes="errors")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(FiguresTable).focus()
        self.context.snapshots.subscribe(self, self._jobs_changed)

    def on_screen_resume(self) -> None:
        self.action_reload()

    def on_resize(self) -> None:
        self._show()

    def _jobs_changed(self, _: JobsSnapshot) -> None:
        if self.is_current and not self._is_reload_due:
            self._is_reload_due = True
            self.set_timer(RELOAD_DELAY_SECONDS, self._read_due)

    def _read_due(self) -> None:
        self._is_reload_due = False
        if self.is_current:
            self.action_reload()

    # --- reading ----------------------------------------------------------------------------------

    def action_reload(self) -> None:
        """Read the history on a thread. A request during a reading starts another one after it."""
        if self._reading:
            self._read_again = True
            return
        self._reading = True
        _, span, buckets = _SPANS[self._span]
        read = partial(
            read_cache_history,
            self.context.history,
            since=None if span is None else self.context.clock() - span,
            backend=self._backend,
            scope=self._scope,
            buckets=buckets,
            now=self.context.clock(),
        )
        on_thread(self, read, self._loaded, self._failed)

    def _loaded(self, data: CacheHistory) -> None:
        self._error = None
        self._data = data
        self._scopes |= {(one.backend, one.scope) for one in data.metrics.figures}
        self._scopes |= {(one.backend, one.scope) for one in data.sizes}
        self._finish_reading()

    def _failed(self, error: StokeError) -> None:
        self._error = error
        self._finish_reading()

    def _finish_reading(self) -> None:
        self._reading = False
        self._show()
        if self._read_again:
            self._read_again = False
            self.action_reload()

    # --- showing ----------------------------------------------------------------------------------

    def _show(self) -> None:
        from tui.widgets.plots import Line, TimePlot

        self._show_selection()
        data = self._data
        known = data is not None and bool(data.metrics.figures or data.sizes)
        self.query_one("#metrics-body").display = known
        empty = self.query_one("#metrics-empty", Static)
        empty.display = not known and self._error is None
        selected = self._backend or self._scope or self._span
        no_figures = "No jobs with packages in this selection." if selected else _NO_FIGURES
        empty.update(Text("Loading ..." if self._reading and data is None else no_figures))
        errors = self.query_one("#metrics-errors", Static)
        errors.display = self._error is not None
        if self._error is not None:
            errors.update(fmt.error_text(self._error))
        if data is None or not known:
            return
        metrics, now = data.metrics, self.context.clock()
        self.query_one(Tiles).show((*data.savings, f"{data.jobs_today:,}"))
        rates, sizes = [], []
        for kind in CACHE_KINDS:
            points = [points for key, points in metrics.over_time.items() if key[2] == kind]
            rate = _hit_rate(metrics.figures, kind)
            rates.append(Line(kind, rate, hit_rates(points), data.interval))
            total = total_sizes([one for one in data.sizes if one.kind == kind])
            sizes.append(Line(kind, fmt.size(total[-1][1] if total else None), total))
        self.query_one("#metrics-hits", TimePlot).show(rates, now)
        self.query_one("#metrics-sizes", TimePlot).show(sizes, now)
        self._show_table(metrics.figures)
        self.query_one("#metrics-warmth", Bars).show(_warmth(metrics.figures))
        packages = [
            Bar(one.name, one.uses, f"{one.uses:,}", "$busy" if one.kind == "system" else "$good")
            for one in metrics.packages
        ]
        self.query_one("#metrics-packages", Bars).show(packages)

    def _show_selection(self) -> None:
        text = Text()
        text.append_text(fmt.plain(self._backend or "all backends", "bold"))
        text.append(", ")
        text.append_text(fmt.plain(f"scope {self._scope}" if self._scope else "all scopes", "bold"))
        text.append(", ")
        text.append(_SPANS[self._span][0], style="bold")
        if self._data is not None:
            prediction = self._data.metrics.prediction
            if prediction.judged:
                text.append(
                    f" · {fmt.share(prediction.rate)} of {prediction.judged:,} predictions right"
                )
        self.query_one("#metrics-selection", Static).update(text)

    def _show_table(self, figures: Sequence[CacheFigures]) -> None:
        table = self.query_one(FiguresTable)
        row = table.cursor_row
        table.clear(columns=True)
        columns = _WIDE_COLUMNS if self.size.width >= WIDE else _COLUMNS
        others = sum(width for _, width in columns) + 2 * len(columns) + 1
        scope_width = self.size.width - others
        for number, (label, width) in enumerate(columns):
            heading = Text(label, justify="right" if number > 2 else "left")
            table.add_column(heading, width=width or scope_width)
        scopes = fmt.cut_distinct([one.scope for one in figures], scope_width)
        for one in figures:
            table.add_row(
                fmt.cell(one.backend),
                Text(scopes[one.scope]),
                fmt.cell(one.kind),
                *(
                    Text(figure, justify="right")
                    for figure in (
                        f"{one.jobs:,}",
                        fmt.share(one.hit_rate),
                        fmt.duration(one.cold_seconds),
                        fmt.duration(one.warm_seconds),
                        fmt.duration(one.saved_seconds),
                        fmt.size(one.saved_bytes),
                    )
                ),
            )
        table.move_cursor(row=row)

    # --- keys -------------------------------------------------------------------------------------

    def action_backend(self) -> None:
        self._backend = _next(self._backend, {backend for backend, _ in self._scopes})
        self.action_reload()
        self._show_selection()

    def action_scope(self) -> None:
        self._scope = _next(self._scope, {scope for _, scope in self._scopes})
        self.action_reload()
        self._show_selection()

    def action_span(self) -> None:
        self._span = (self._span + 1) % len(_SPANS)
        self.action_reload()
        self._show_selection()

    def action_back(self) -> None:
        self.post_message(ShowScreen("jobs"))


def _next(now: str | None, names: set[str]) -> str | None:
    """Return the choice after `now`: all, each name, then all again."""
    choices = [None, *sorted(names)]
    return choices[(choices.index(now) + 1) % len(choices)] if now in choices else None


def _hit_rate(figures: Sequence[CacheFigures], kind: str) -> str:
    """Return the hit rate of all caches of a kind together."""
    jobs = sum(one.jobs for one in figures if one.kind == kind)
    return fmt.share(sum(one.hits for one in figures if one.kind == kind) / jobs if jobs else None)


def _warmth(figures: Sequence[CacheFigures]) -> list[Bar]:
    """Return two bars for each cache that had both a hit and a miss, the busiest first."""
    bars = []
    several = len({one.backend for one in figures}) > 1
    for one in sorted(figures, key=lambda one: -one.jobs):
        if one.cold_seconds is None or one.warm_seconds is None:
            continue
        label = f"{one.scope} system" if one.kind == "system" else one.scope
        if several:
            label = f"{one.backend} {label}"
        cold, warm = fmt.duration(one.cold_seconds), fmt.duration(one.warm_seconds)
        bars.append(Bar(label, one.cold_seconds, f"cold {cold:>6}", "$warn"))
        bars.append(Bar("", one.warm_seconds, f"warm {warm:>6}"))
    return bars

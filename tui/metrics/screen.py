"""Metrics: what the caches did for the jobs in the history, over time, by backend and scope."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Static

from stoke.cache.metrics import CacheFigures
from stoke.errors import StokeError
from tui import format as fmt
from tui.base_screen import WIDE, StokeScreen
from tui.metrics.bars import Bar, Bars
from tui.metrics.cache_figures import Records, hit_rates, read_records, total_sizes
from tui.snapshot import Snapshot
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar

CHANGED_SECONDS = 2.0
_DAY = 86400.0
_SPANS = (
    ("everything", None, 30),
    ("the last day", _DAY, 24),
    ("the last 7 days", 7 * _DAY, 28),
    ("the last 30 days", 30 * _DAY, 30),
)
_COLUMNS = (
    ("on", 6),
    ("scope", 11),
    ("kind", 6),
    ("jobs", 5),
    ("hits", 4),
    ("cold", 6),
    ("warm", 6),
    ("saved", 6),
    ("saved", 7),
)
_WIDE_SCOPE = 24
_NONE_YET = "No figures yet: they come with the first job that names packages."
KINDS = ("python", "system")


class FiguresTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next cache", show=False, id="metrics.down"),
        Binding("up,k", "cursor_up", "Previous cache", show=False, id="metrics.up"),
        Binding("home,g", "scroll_top", "First cache", show=False, id="metrics.first"),
        Binding("end,G", "scroll_bottom", "Last cache", show=False, id="metrics.last"),
    ]


class MetricsScreen(StokeScreen):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "backend", "Backend", id="metrics.backend"),
        Binding("s", "scope", "Scope", id="metrics.scope"),
        Binding("t", "span", "Time", id="metrics.span"),
        Binding("r", "reload", "Look again", show=False, id="metrics.reload"),
        Binding("escape", "back", "Back to the jobs", show=False, id="metrics.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._backend: str | None = None
        self._scope: str | None = None
        self._span = 0
        self._places: set[tuple[str, str]] = set()
        self._records: Records | None = None
        self._trouble: StokeError | None = None
        self._reading = False
        self._again = False
        self._due = False

    def compose(self) -> ComposeResult:
        # Here, so that the first paint of the program need not wait for plotext.
        from tui.widgets.plots import BYTES, SHARE, TimePlot

        yield TopBar("metrics")
        yield Static(id="metrics-place")
        yield Static(id="metrics-empty")
        with Vertical(id="metrics-body"):
            with Horizontal(id="metrics-plots"):
                yield TimePlot("hit rate", SHARE, "no job yet", id="metrics-hits")
                yield TimePlot("size", BYTES, "no volume was measured", id="metrics-sizes")
            yield FiguresTable(id="metrics-table", cursor_type="row")
            with Horizontal(id="metrics-bars"):
                yield Bars("cold against warm", "no hit and miss yet", id="metrics-warmth")
                yield Bars("most used packages", "none yet", id="metrics-packages")
        yield Static(id="metrics-troubles", classes="troubles")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(FiguresTable).focus()
        self.stoke.jobs_signal.subscribe(self, self._jobs_changed)

    def on_screen_resume(self) -> None:
        self.action_reload()

    def on_resize(self) -> None:
        self._show()

    def _jobs_changed(self, _: Snapshot) -> None:
        """A running job changes often; the figures are read in peace."""
        if self.is_current and not self._due:
            self._due = True
            self.set_timer(CHANGED_SECONDS, self._read_due)

    def _read_due(self) -> None:
        self._due = False
        if self.is_current:
            self.action_reload()

    # --- reading ----------------------------------------------------------------------------------

    def action_reload(self) -> None:
        """One reading at a time; what is asked for meanwhile is read after it."""
        if self._reading:
            self._again = True
            return
        self._reading = True
        _, span, buckets = _SPANS[self._span]
        read = partial(
            read_records,
            self.stoke.history,
            since=None if span is None else self.stoke.clock() - span,
            backend=self._backend,
            scope=self._scope,
            buckets=buckets,
        )
        on_thread(self, read, partial(self._told, trouble=None), partial(self._told, None))

    def _told(self, records: Records | None, trouble: StokeError | None) -> None:
        self._reading = False
        self._trouble = trouble
        if records is not None:
            self._records = records
            self._places |= {(one.backend, one.scope) for one in records.metrics.figures}
            self._places |= {(one.backend, one.scope) for one in records.sizes}
        self._show()
        if self._again:
            self._again = False
            self.action_reload()

    # --- showing ----------------------------------------------------------------------------------

    def _show(self) -> None:
        from tui.widgets.plots import Line, TimePlot

        self._show_place()
        records = self._records
        known = records is not None and bool(records.metrics.figures or records.sizes)
        self.query_one("#metrics-body").display = known
        empty = self.query_one("#metrics-empty", Static)
        empty.display = not known and self._trouble is None
        chosen = self._backend or self._scope or self._span
        nothing = "No job of this choice named packages." if chosen else _NONE_YET
        empty.update(Text("looking ..." if self._reading and records is None else nothing))
        troubles = self.query_one("#metrics-troubles", Static)
        troubles.display = self._trouble is not None
        if self._trouble is not None:
            troubles.update(fmt.error_text(self._trouble))
        if records is None or not known:
            return
        metrics, now = records.metrics, self.stoke.clock()
        rates, sizes = [], []
        for kind in KINDS:
            points = [points for key, points in metrics.over_time.items() if key[2] == kind]
            rates.append(Line(kind, _hit_rate(metrics.figures, kind), hit_rates(points)))
            total = total_sizes([one for one in records.sizes if one.kind == kind])
            sizes.append(Line(kind, fmt.size(total[-1][1] if total else None), total))
        self.query_one("#metrics-hits", TimePlot).show(rates, now)
        self.query_one("#metrics-sizes", TimePlot).show(sizes, now)
        self._show_table(metrics.figures)
        self.query_one("#metrics-warmth", Bars).show(_warmth(metrics.figures))
        packages = [
            Bar(one.name, one.uses, f"{one.uses:,}", "cyan" if one.kind == "system" else "green")
            for one in metrics.packages
        ]
        self.query_one("#metrics-packages", Bars).show(packages)

    def _show_place(self) -> None:
        text = Text("on ")
        text.append_text(fmt.plain(self._backend or "every backend", "bold"))
        text.append(", ")
        text.append_text(
            fmt.plain(f"scope {self._scope}" if self._scope else "every scope", "bold")
        )
        text.append(", ")
        text.append(_SPANS[self._span][0], style="bold")
        if self._records is not None:
            prediction = self._records.metrics.prediction
            if prediction.judged:
                text.append(f" · predicted right {fmt.share(prediction.rate)}")
                text.append(f" of {prediction.judged:,}")
        self.query_one("#metrics-place", Static).update(text)

    def _show_table(self, figures: Sequence[CacheFigures]) -> None:
        table = self.query_one(FiguresTable)
        row = table.cursor_row
        table.clear(columns=True)
        for number, (label, width) in enumerate(_COLUMNS):
            wider = number == 1 and self.size.width >= WIDE
            table.add_column(Text(label), width=_WIDE_SCOPE if wider else width)
        for one in figures:
            table.add_row(
                fmt.plain(one.backend),
                fmt.plain(one.scope),
                fmt.plain(one.kind),
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
        self._backend = _next(self._backend, {backend for backend, _ in self._places})
        self.action_reload()
        self._show_place()

    def action_scope(self) -> None:
        self._scope = _next(self._scope, {scope for _, scope in self._places})
        self.action_reload()
        self._show_place()

    def action_span(self) -> None:
        self._span = (self._span + 1) % len(_SPANS)
        self.action_reload()
        self._show_place()

    def action_back(self) -> None:
        self.app.switch_mode("jobs")


def _next(now: str | None, names: set[str]) -> str | None:
    """All, then each name, then all again."""
    turns = [None, *sorted(names)]
    return turns[(turns.index(now) + 1) % len(turns)] if now in turns else None


def _hit_rate(figures: Sequence[CacheFigures], kind: str) -> str:
    """Of all caches of a kind together."""
    jobs = sum(one.jobs for one in figures if one.kind == kind)
    return fmt.share(sum(one.hits for one in figures if one.kind == kind) / jobs if jobs else None)


def _warmth(figures: Sequence[CacheFigures]) -> list[Bar]:
    """Two bars for each cache that has seen both a hit and a miss, the busiest first."""
    bars = []
    several = len({one.backend for one in figures}) > 1
    for one in sorted(figures, key=lambda one: -one.jobs):
        if one.cold_seconds is None or one.warm_seconds is None:
            continue
        label = f"{one.scope} system" if one.kind == "system" else one.scope
        if several:
            label = f"{one.backend} {label}"
        cold, warm = fmt.duration(one.cold_seconds), fmt.duration(one.warm_seconds)
        bars.append(Bar(label, one.cold_seconds, f"cold {cold:>6}", "yellow"))
        bars.append(Bar("", one.warm_seconds, f"warm {warm:>6}"))
    return bars

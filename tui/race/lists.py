"""What the Race screen starts from: jobs that can be raced, and earlier races."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from stoke.cache.scopes import is_ephemeral
from stoke.history.job import ENVIRONMENT_PHASES, Job
from stoke.race.recording import Recording
from tui import format as fmt

_MOST_ROWS = 100
_LEAST_NAME = 8


@dataclass(frozen=True)
class _Column:
    """A column of the lists; one without a width gets what the others leave. It is left out of a list
    of fewer than `least` cells."""

    label: str
    width: int
    least: int = 0


class _List(DataTable[Text]):
    COLUMNS: ClassVar[tuple[_Column, ...]]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next row", show=False, id="race.down"),
        Binding("up,k", "cursor_up", "Previous row", show=False, id="race.up"),
        Binding("home,g", "scroll_top", "First row", show=False, id="race.first"),
        Binding("end,G", "scroll_bottom", "Last row", show=False, id="race.last"),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row")
        self._rows: Sequence[Sequence[Text]] = ()
        self._shown: list[tuple[int, int]] = []
        """The columns that are shown: (index, width)."""

    def fill(self, rows: Sequence[Sequence[Text]]) -> None:
        self._rows = rows
        row = self.cursor_row
        self.clear()
        for cells in rows:
            self.add_row(*(cells[index] for index, _ in self._shown))
        self.move_cursor(row=row)

    def on_resize(self) -> None:
        padding = 2 * self.cell_padding
        fitting = [
            (index, one) for index, one in enumerate(self.COLUMNS) if one.least <= self.size.width
        ]
        taken = sum(one.width + padding for _, one in fitting) + self.scrollbar_size_vertical
        left = max(_LEAST_NAME, self.size.width - taken)
        shown = [(index, one.width or left) for index, one in fitting]
        if shown == self._shown:
            return
        self._shown = shown
        row = self.cursor_row
        self.clear(columns=True)
        for index, width in shown:
            column = self.COLUMNS[index]
            is_text = column.label in ("name", "on")
            label = Text(column.label, justify="left" if is_text else "right")
            self.add_column(label, width=width)
        self.fill(self._rows)
        self.move_cursor(row=row)


class JobsToRace(_List):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.race_job", "Race", id="race.job"),
    ]

    COLUMNS = (
        _Column("name", 0),
        _Column("packages", 8, least=60),
        _Column("environment", 11, least=60),
        _Column("on", 7),
        _Column("age", 4),
    )


class EarlierRaces(_List):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.replay_earlier", "Replay", id="race.earlier"),
    ]

    COLUMNS = (
        _Column("faster", 6),
        _Column("name", 0),
        _Column("cold", 6),
        _Column("warm", 6),
        _Column("saved", 8),
        _Column("on", 7),
        _Column("age", 4),
    )


class TitledList(Vertical):
    """A table below its title; `empty` is shown while it has no rows."""

    def __init__(self, title: str, empty: str, table: _List, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title, self._empty, self._table = title, empty, table

    def compose(self) -> ComposeResult:
        yield Static(Text(self._title, style="bold"), classes="list-title")
        yield Static(Text(self._empty), classes="hint list-empty")
        yield self._table

    def fill(self, rows: Sequence[Sequence[Text]]) -> None:
        self.query_one(".list-empty").display = not rows
        self._table.display = bool(rows)
        self.set_class(not rows, "-empty")
        self._table.fill(rows)


def raceable(jobs: Sequence[Job]) -> list[Job]:
    """Return the newest job of each name and backend that built or found an environment."""
    found: dict[tuple[str, str], Job] = {}
    for job in jobs:
        has_packages = any(
            phase.name in ENVIRONMENT_PHASES and phase.packages for phase in job.phases
        )
        if has_packages and not is_ephemeral(job.scope):
            found.setdefault((job.name, job.backend), job)
    return list(found.values())[:_MOST_ROWS]


def job_row(job: Job, now: float) -> Sequence[Text]:
    phases = [phase for phase in job.phases if phase.name in ENVIRONMENT_PHASES[1:]]
    return (
        fmt.cell(job.name),
        _right(f"{sum(phase.packages or 0 for phase in phases):,}"),
        _right(fmt.duration(job.environment_seconds)),
        fmt.cell(job.backend),
        _right(fmt.age(now - job.submitted_at)),
    )


def race_row(race: Recording, now: float) -> Sequence[Text]:
    return (
        Text(race.ratio_text or fmt.UNKNOWN, "bold $good", justify="right"),
        fmt.cell(race.name),
        _right(fmt.duration(race.cold.ready)),
        _right(fmt.duration(race.warm.ready)),
        _right(fmt.size(race.saved_bytes)),
        fmt.cell(race.backend),
        _right(fmt.age(now - race.raced_at)),
    )


def _right(text: str) -> Text:
    return Text(text, justify="right")

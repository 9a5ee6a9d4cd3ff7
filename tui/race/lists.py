"""What the Race screen starts from: jobs that can be raced, and earlier races."""

from __future__ import annotations

from collections.abc import Sequence
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


class _List(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next row", show=False, id="race.down"),
        Binding("up,k", "cursor_up", "Previous row", show=False, id="race.up"),
        Binding("home,g", "scroll_top", "First row", show=False, id="race.first"),
        Binding("end,G", "scroll_bottom", "Last row", show=False, id="race.last"),
    ]

    def fill(self, rows: Sequence[Sequence[Text]]) -> None:
        row = self.cursor_row
        self.clear()
        for cells in rows:
            self.add_row(*cells)
        self.move_cursor(row=row)


class JobsToRace(_List):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.race_job", "Race", id="race.job"),
    ]

    def on_mount(self) -> None:
        for label, width in (("name", 20), ("on", 7), ("age", 4)):
            self.add_column(Text(label), width=width)


class EarlierRaces(_List):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.replay_earlier", "Replay", id="race.earlier"),
    ]

    def on_mount(self) -> None:
        for label, width in (("faster", 6), ("name", 20), ("cold", 6), ("warm", 6), ("saved", 8),
                             ("on", 7), ("age", 4)):  # fmt: skip
            self.add_column(Text(label), width=width)


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
    return (fmt.cell(job.name), fmt.cell(job.backend), _right(fmt.age(now - job.submitted_at)))


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

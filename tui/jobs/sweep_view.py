"""The tasks of a sweep beside its row: counts, the states of all tasks in a strip, and a table."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.containers import VerticalScroll
from textual.widgets import Static

from stoke.errors import StokeError
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.sweeps import ATTENTION, STRIP_MARKS, Sweeps, Task
from stoke.jobs.sweep_report import SweepReport, failures_first, last_line, report_on
from stoke.text.sanitize import clean
from stoke.text.units import human_seconds
from tui import format as fmt
from tui.context import Context
from tui.jobs.columns import STATES
from tui.threads import on_thread

MOST_ROWS = 200
"""Tasks in the table. The list shows all of them below an unfolded sweep."""
_FIGURES = ("task", "state", "exit", "took")
_RIGHT = ("task", "exit", "took")
_LEAST_VALUE = 6
_LEAST_LINE = 24
"""Cells of the last line that long values leave."""
_GAP = "  "


@dataclass(frozen=True)
class _Contents:
    report: SweepReport
    strip: list[JobState]
    tasks: list[tuple[Task, str]]
    """The tasks that need attention most, each with the last line that it printed."""


class SweepView(VerticalScroll):
    def __init__(self, context: Context, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(Static(), id=id)
        self.context = context
        self._job: Job | None = None
        self._is_reading = False
        self._is_outdated = False

    def show(self, job: Job) -> None:
        """Show a sweep as the history has it now."""
        if self._job is None or self._job.id != job.id:
            self.query_one(Static).update("")
            self.scroll_home(animate=False)
        self._job = job
        self._read()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        self._read()

    def _read(self) -> None:
        """Read the tasks on a thread, one time after another."""
        job, width = self._job, self._width
        if job is None or self._is_reading:
            self._is_outdated = self._is_reading
            return
        self._is_reading, self._is_outdated = True, False

        def done(contents: _Contents) -> None:
            self._finish(job, _drawn(contents, width))

        def failed(error: StokeError) -> None:
            self._finish(job, fmt.error_text(error))

        on_thread(self, lambda: _read(job, self.context.reading, width), done, failed)

    def _finish(self, job: Job, text: Text) -> None:
        self._is_reading = False
        if self._job is not None and self._job.id == job.id:
            self.query_one(Static).update(text)
        if self._is_outdated:
            self._read()

    @property
    def _width(self) -> int:
        return max(20, self.scrollable_content_region.width)


def _read(job: Job, history: History, width: int) -> _Contents:
    report = report_on(job, history)
    sweeps = Sweeps(history)
    by_attention = sorted(
        enumerate(sweeps.states(report.sweep), 1), key=lambda one: ATTENTION[one[1]]
    )
    numbers = [number for number, _ in by_attention[:MOST_ROWS]]
    tasks = failures_first(sweeps.tasks(report.sweep, numbers))
    strip = sweeps.strip(report.sweep, width)
    return _Contents(report, strip, [(task, last_line(task.job)) for task in tasks])


def _drawn(contents: _Contents, width: int) -> Text:
    report = contents.report
    text = Text()
    text.append(report.text(), style="bold")
    if report.sweep.closed:
        text.append("\nended early: ").append_text(fmt.plain(report.sweep.closed, "$warn"))
    text.append("\n")
    for state in contents.strip:
        text.append(STRIP_MARKS[state], style=STATES[state][1])
    text.append("\n\n")
    text.append_text(_table(contents, width))
    more = report.sweep.tasks - len(contents.tasks)
    if more > 0:
        text.append(f"\nand {fmt.count(more, 'more task')}: → in the list shows all", "$quiet")
    return text


def _table(contents: _Contents, width: int) -> Text:
    """Return the tasks in aligned columns; the last line has the rest of the width."""
    names = contents.report.sweep.names
    heads = [*_FIGURES, *map(clean, names)]
    rows = [_cells(task) for task, _ in contents.tasks]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    figures = len(_FIGURES)
    taken = sum(widths[:figures]) + len(_GAP) * len(widths)
    most = max(_LEAST_VALUE, (width - taken - _LEAST_LINE) // len(names))
    widths[figures:] = [min(most, size) for size in widths[figures:]]
    room = max(_LEAST_VALUE, width - sum(widths) - len(_GAP) * len(widths))
    text = Text()
    for head, size in zip(heads, widths, strict=True):
        text.append(_aligned(head, head, size) + _GAP, style="bold")
    text.append("last line", style="bold")
    for cells, (task, line) in zip(rows, contents.tasks, strict=True):
        text.append("\n")
        for head, cell, size in zip(
            heads[:figures], cells[:figures], widths[:figures], strict=True
        ):
            style = STATES[task.state][1] if head == "state" else ""
            text.append(_aligned(head, cell, size) + _GAP, style=style)
        for cell, size in zip(cells[figures:], widths[figures:], strict=True):
            text.append(fmt.fit(cell, size) + _GAP)
        reason = task.job.reason if task.job is not None else None
        text.append(fmt.fit(clean(line or reason or ""), room).rstrip(), style="$quiet")
    return text


def _aligned(head: str, cell: str, size: int) -> str:
    return cell.rjust(size) if head in _RIGHT else fmt.fit(cell, size)


def _cells(task: Task) -> list[str]:
    job = task.job
    exit_code = fmt.UNKNOWN if job is None or job.exit_code is None else str(job.exit_code)
    took = fmt.UNKNOWN if job is None else human_seconds(job.seconds)
    figures = [f"{task.number:,}", STATES[task.state][0], exit_code, took]
    return [*figures, *map(clean, task.values)]

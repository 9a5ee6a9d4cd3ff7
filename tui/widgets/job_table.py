"""The list of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

from stoke.job import Job, JobState
from tui import format as fmt

STATES = {
    JobState.QUEUED: ("○ queued", "blue"),
    JobState.STARTING: ("◔ starting", "cyan"),
    JobState.RUNNING: ("● running", "cyan"),
    JobState.SUCCEEDED: ("✓ succeeded", "green"),
    JobState.FAILED: ("✗ failed", "red"),
    JobState.STOPPED: ("■ stopped", "yellow"),
    JobState.LOST: ("? lost", "magenta"),
}
# Fixed widths: a table that measures its cells stands still for seconds with many rows.
_COLUMNS = (("state", 12), ("job", 20), ("on", 6), ("age", 4), ("time", 6), ("py", 4))


def state_text(job: Job) -> Text:
    """The state in words and colour; `?` behind what could not be confirmed."""
    words, style = STATES[job.state]
    unsure = "?" if job.stale or job.provisional else ""
    return Text(words + unsure, style=style)


class JobTable(DataTable[Text]):
    """Rows are jobs, the newest first; `Chosen` says which one the cursor is on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Look at the job", show=False, id="jobs.enter"),
        Binding("down,j", "cursor_down", "Next job", show=False, id="jobs.down"),
        Binding("up,k", "cursor_up", "Previous job", show=False, id="jobs.up"),
        Binding("home,g", "scroll_top", "First job", show=False, id="jobs.first"),
        Binding("end,G", "scroll_bottom", "Last job", show=False, id="jobs.last"),
    ]

    class Chosen(Message):
        def __init__(self, job_id: str | None) -> None:
            super().__init__()
            self.job_id = job_id

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, cursor_type="row", zebra_stripes=False, cell_padding=1)
        self.chosen: str | None = None
        self._cells: dict[str, tuple[Text, ...]] = {}

    def on_mount(self) -> None:
        for label, width in _COLUMNS:
            self.add_column(Text(label), width=width, key=label)

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Shows these jobs. The chosen one keeps the cursor; cells that stay are not drawn again."""
        cells = {job.id: self._row(job, now) for job in jobs}
        if list(cells) == list(self._cells):
            for job_id, row in cells.items():
                for (label, _), new, old in zip(_COLUMNS, row, self._cells[job_id], strict=True):
                    if new != old:
                        self.update_cell(job_id, label, new)
        else:
            self._fill(cells)
        self._cells = cells

    def _fill(self, cells: dict[str, tuple[Text, ...]]) -> None:
        top = self.scroll_offset.y
        # Emptying a table moves its cursor; only what a person does is a choice.
        with self.prevent(DataTable.RowHighlighted):
            self.clear()
            for job_id, row in cells.items():
                self.add_row(*row, key=job_id)
            if self.chosen in cells:
                self.move_cursor(row=self.get_row_index(self.chosen), scroll=False)
                self.scroll_to(y=top, animate=False)
                self.call_after_refresh(self._scroll_cursor_into_view)
        if self.chosen not in cells:
            self.choose(next(iter(cells), None))

    def choose(self, job_id: str | None) -> None:
        """Moves the cursor to this job."""
        if job_id is not None and job_id in self._row_locations:
            self.move_cursor(row=self.get_row_index(job_id))
        self._choose(job_id)

    def _choose(self, job_id: str | None) -> None:
        if job_id != self.chosen:
            self.chosen = job_id
            self.post_message(self.Chosen(job_id))

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        if event.row_key.value is not None and event.row_key.value in self._cells:
            self._choose(event.row_key.value)

    def _row(self, job: Job, now: float) -> tuple[Text, ...]:
        python = next((phase for phase in job.phases if phase.name == "python"), None)
        hit = python.hit if python else None
        taken = job.seconds
        if taken is None and not job.stale:
            taken = max(0.0, now - job.submitted_at)
        return (
            state_text(job),
            fmt.plain(job.id),
            fmt.plain(job.backend),
            Text(fmt.age(now - job.submitted_at), justify="right"),
            Text(fmt.duration(taken), justify="right"),
            Text(fmt.hit(hit), style={True: "green", False: "yellow", None: "dim"}[hit]),
        )

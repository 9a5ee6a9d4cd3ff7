"""What screens ask of the program: they post these messages, and `tui.app` handles them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

from tui.jobs_snapshot import JobsSnapshot

# Loading what checks requests takes longer than drawing the first frame.
if TYPE_CHECKING:
    from stoke.request.spec import JobSpec


class ShowScreen(Message):
    """Switch to the screen of this mode: "jobs", "new", "caches", "metrics" or "race"."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode


class ShowJob(Message):
    """Switch to Jobs and show the log of this job, as soon as the history has the job."""

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id


class EditRequest(Message):
    """Switch to New job and put this request into its form."""

    def __init__(self, spec: JobSpec, name: str, backend: str) -> None:
        super().__init__()
        self.spec, self.name, self.backend = spec, name, backend


class StartRace(Message):
    """Switch to Race and run this request there, cold and warm."""

    def __init__(self, spec: JobSpec, name: str, backend: str) -> None:
        super().__init__()
        self.spec, self.name, self.backend = spec, name, backend


class HistoryChanged(Message):
    """The jobs service has read a changed history. A newer snapshot replaces one still queued."""

    def __init__(self, snapshot: JobsSnapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, HistoryChanged)

"""The scheduler's process: it starts when a job is put into the queue, and ends with the queue."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from stoke.files.file_lock import is_locked
from stoke.files.paths import state_dir
from stoke.history.database import History
from stoke.history.queue import JobQueue
from stoke.jobs import background


def scheduler_lock() -> Path:
    """Return the file whose lock the one scheduler of this history holds."""
    return state_dir() / "scheduler.lock"


def wake_scheduler(history: History) -> None:
    """Start the scheduler if a job waits and none runs. It reads the queue again before it ends."""
    if JobQueue(history).has_work() and not is_locked(scheduler_lock()):
        with suppress(OSError):  # The next command tries again.
            background.start("stoke.jobs.scheduler")

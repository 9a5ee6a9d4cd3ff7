"""The scheduler's process: it starts when a job is put into the queue, and ends with the queue."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from stoke.files.file_lock import take_lock
from stoke.files.paths import state_dir
from stoke.history.database import History
from stoke.history.queue import JobQueue
from stoke.jobs import background


def scheduler_lock() -> Path:
    """Return the file whose lock the one scheduler of this history holds."""
    return state_dir() / "scheduler.lock"


def wake_scheduler(history: History) -> None:
    """Start the scheduler if a job waits and none runs. It reads the queue again before it ends.

    The new process inherits the scheduler's lock, so that no second one is started before it is ready.
    """
    if not JobQueue(history).has_work():
        return
    with suppress(OSError):  # The next command tries again.
        lock = take_lock(scheduler_lock(), wait=False)
        if lock is not None:
            try:
                background.start("stoke.jobs.scheduler", str(lock), inherits=(lock,))
            finally:
                os.close(lock)

"""Enforce a budget on all spools: the logs of the jobs that finished first are removed first.

The log of an unfinished job is never removed and does not count: however long it gets, the other jobs
keep their logs. The newest log stays, too, so a log larger than the budget can be read once its job has
ended, and so does a log that a process follows. A job whose log was removed keeps a note, which tells a
removed log from an empty one.
"""

from __future__ import annotations

import os
from pathlib import Path

from stoke.errors import EngineError
from stoke.files.paths import job_dir, state_dir
from stoke.history.database import History
from stoke.logs.fallback import PARTS
from stoke.logs.follower import FollowerBusyError, take_follow_lock

_REMOVED = "log.removed"


def enforce_log_budget(limit: int, history: History) -> list[str]:
    """Remove logs of finished jobs until the rest takes at most `limit` bytes, or one log is left.

    Returns the ids of the jobs whose logs were removed.
    """
    sizes = _sizes()
    if sum(sizes.values()) <= limit:
        return []
    finished = [
        job
        for job in history.list(tasks=True)
        if job.id in sizes and job.state.finished and not job.provisional
    ]
    finished.sort(key=lambda job: job.finished_at or job.submitted_at)
    total = sum(sizes[job.id] for job in finished)
    removed = []
    for job in finished[:-1]:
        if total <= limit:
            break
        if _remove(job_dir(job.id), limit):
            removed.append(job.id)
            total -= sizes[job.id]
    return removed


def removed_within(job_id: str) -> int | None:
    """Return the budget in bytes for which a job's log was removed; None if it was not removed."""
    try:
        return int((job_dir(job_id) / _REMOVED).read_text())
    except (OSError, ValueError):
        return None


def _sizes() -> dict[str, int]:
    """Return the bytes that each job's log takes, without the jobs that have no log."""
    sizes: dict[str, int] = {}
    try:
        folders = list(os.scandir(state_dir() / "jobs"))
    except OSError:
        return sizes
    for folder in folders:
        size = 0
        for part in PARTS:
            try:
                size += os.stat(os.path.join(folder.path, part)).st_size
            except OSError:
                continue
        if size:
            sizes[folder.name] = size
    return sizes


def _remove(folder: Path, limit: int) -> bool:
    try:
        lock = take_follow_lock(folder)
    except (FollowerBusyError, EngineError):
        return False
    try:
        (folder / _REMOVED).write_text(str(limit))
        for part in PARTS:
            (folder / part).unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True

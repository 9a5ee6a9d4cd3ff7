"""A budget for all spools: the logs of the jobs that finished first go first.

Never that of a job that is not over, which does not count either: however long it gets, what others
left stays. Nor the newest, so a log that is larger than the budget can still be read once its job is
over; nor one that somebody follows. Whose log went keeps a note, so that an empty log and one that was
removed are told apart.
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


def keep_within(limit: int, history: History) -> list[str]:
    """Removes logs of jobs that are over until those together take no more than `limit` bytes, or only
    the newest is left. Returns whose went."""
    sizes = _sizes()
    if sum(sizes.values()) <= limit:
        return []
    over = [
        job
        for job in history.list()
        if job.id in sizes and job.state.finished and not job.provisional
    ]
    over.sort(key=lambda job: job.finished_at or job.submitted_at)
    total = sum(sizes[job.id] for job in over)
    went = []
    for job in over[:-1]:
        if total <= limit:
            break
        if _remove(job_dir(job.id), limit):
            went.append(job.id)
            total -= sizes[job.id]
    return went


def removed_within(job_id: str) -> int | None:
    """The budget in bytes for which a job's log was removed; None where it was not."""
    try:
        return int((job_dir(job_id) / _REMOVED).read_text())
    except (OSError, ValueError):
        return None


def _sizes() -> dict[str, int]:
    """Bytes that each job's log takes; those that have none are left out."""
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

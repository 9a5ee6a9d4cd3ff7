"""The file lock that a process holds while it submits a job, until the engine has the job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stoke.errors import EngineError
from stoke.files.file_lock import is_locked, take_lock
from stoke.files.paths import job_dir, make_private, state_dir
from stoke.logs.spool import cannot_save


def is_being_submitted(job_id: str) -> bool:
    """Return whether a process is submitting this job: it then holds the job's submit lock."""
    return any(is_locked(path) for path in submit_locks(job_id))


def submit_locks(job_id: str) -> tuple[Path, Path]:
    """Return the paths of a job's submit lock; the second is used if the job's folder takes no file."""
    return job_dir(job_id) / "submit.lock", state_dir() / f"{job_id}.submit.lock"


@contextmanager
def submitting(job_id: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold a job's submit lock. Without `wait`, give False if another process holds it."""
    path, lock = _take(job_id, wait)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            try:
                path.unlink()
            except OSError:
                pass  # Closing the descriptor releases the lock; the file does not matter.
            os.close(lock)


def _take(job_id: str, wait: bool) -> tuple[Path, int | None]:
    usual, spare = submit_locks(job_id)
    try:
        make_private(usual.parent)
        return usual, _take_current(usual, wait)
    except (OSError, EngineError):
        try:
            return spare, _take_current(spare, wait)
        except OSError as error:
            raise cannot_save(usual.parent, error) from error


def _take_current(path: Path, wait: bool) -> int | None:
    """Take the lock on the file that has this name now: its last holder may have removed the file
    after it was opened here."""
    while (lock := take_lock(path, wait=wait)) is not None:
        try:
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        os.close(lock)
    return lock

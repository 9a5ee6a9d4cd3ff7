"""The file lock that a submitting process holds until the engine has the job."""

from __future__ import annotations

from pathlib import Path

from stoke.files.file_lock import is_locked
from stoke.files.paths import job_dir, state_dir


def is_being_submitted(job_id: str) -> bool:
    """Return whether a process is submitting this job: it then holds the job's submit lock."""
    return any(is_locked(path) for path in submit_locks(job_id))


def submit_locks(job_id: str) -> tuple[Path, Path]:
    """Return the paths of a job's submit lock; the second is used if the job's folder takes no file."""
    return job_dir(job_id) / "submit.lock", state_dir() / f"{job_id}.submit.lock"

"""The runner of jobs that wait in the queue, stored once however many of them have the same one.

Each job has a hard link to it in its folder, so the last one to be removed is recognized by the number
of links.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from stoke.files.atomic import write_atomically
from stoke.files.paths import job_dir, make_private, state_dir
from stoke.files.untrusted import read_bytes

MAX_SIZE = 16 * 1024**2


def store_runner(runner: bytes, job_id: str) -> str:
    """Store the runner of a job, whose folder exists, and return its digest. Raises `OSError`."""
    digest = _digest(runner)
    link = _link(job_id)
    try:
        os.link(_folder() / digest, link)
        return digest
    except OSError:
        pass  # It is the first one, or the file system has no hard links.
    write_atomically(link, runner)
    try:
        os.link(link, make_private(_folder()) / digest)
    except OSError:
        pass  # Another process was first, or no hard links: this job keeps a copy.
    return digest


def load_runner(digest: str, job_id: str) -> bytes:
    """Return the runner of a job. Raises `OSError` if it is gone, and `ValueError` if damaged."""
    runner = read_bytes(_link(job_id), MAX_SIZE)
    if _digest(runner) != digest:
        (_folder() / digest).unlink(missing_ok=True)  # Later jobs store it anew.
        raise ValueError("its runner is damaged")
    return runner


def drop_runner(job_id: str) -> None:
    """Remove a job's link to its runner, and the runner if no other job has one."""
    link = _link(job_id)
    try:
        if link.lstat().st_nlink == 2:
            (_folder() / _digest(read_bytes(link, MAX_SIZE))).unlink(missing_ok=True)
        link.unlink()
    except OSError:
        pass  # There is none, or it stays until the job is removed.


# A process stores and loads the same few objects again and again.
@lru_cache(8)
def _digest(runner: bytes) -> str:
    return hashlib.sha256(runner).hexdigest()


def _link(job_id: str) -> Path:
    return job_dir(job_id) / "runner.py"


def _folder() -> Path:
    return state_dir() / "runners"

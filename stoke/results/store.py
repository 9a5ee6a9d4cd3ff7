"""The collected results of jobs on this machine: a folder and a list in the folder of each job.

The list is written last, so a folder without one is incomplete and does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from stoke.backend.capabilities import ResultEntry
from stoke.files.atomic import write_atomically
from stoke.files.file_lock import take_lock
from stoke.files.paths import job_dir, make_private, state_dir
from stoke.files.untrusted import read_json
from stoke.remote.common.trees import remove_tree
from stoke.results.collect import Collected, Progress, ResultFile, collect

LOCK = "results.lock"
_FOLDER = "results"
_UNFINISHED = "results.new"
_LIST = "results.json"
_REMOVED = "results.removed"
_VERSION = 1
MAX_LIST = 512 * 1024**2


def results_folder(job_id: str) -> Path:
    return job_dir(job_id) / _FOLDER


def take_results_lock(job_id: str, *, wait: bool) -> int | None:
    """Take the lock that a process holds while it collects a job's results. Raises `OSError`."""
    return take_lock(make_private(job_dir(job_id)) / LOCK, wait=wait)


def store_results(
    job_id: str, entries: Iterable[ResultEntry], max_bytes: int, progress: Progress
) -> Collected:
    """Collect entries in place of what there is of a job; the caller holds the lock.

    What a killed process left is removed first. Raises as `collect` does; nothing is left then.
    """
    unfinished, folder = job_dir(job_id) / _UNFINISHED, results_folder(job_id)
    remove_tree(str(unfinished))
    unfinished.mkdir(mode=0o700)
    try:
        collected = collect(entries, unfinished, max_bytes, progress)
        if not collected.files and not collected.refused:
            return collected
        (job_dir(job_id) / _LIST).unlink(missing_ok=True)
        remove_tree(str(folder))
        unfinished.rename(folder)
        write_atomically(job_dir(job_id) / _LIST, _as_json(collected))
        (job_dir(job_id) / _REMOVED).unlink(missing_ok=True)
    finally:
        remove_tree(str(unfinished))
    return collected


def _as_json(collected: Collected) -> str:
    return json.dumps(
        {
            "version": _VERSION,
            "files": collected.files,
            "refused": collected.refused,
            "refused_count": collected.refused_count,
        },
        separators=(",", ":"),
    )


def read_results(job_id: str) -> Collected | None:
    """Return the list of a job's results; None if this machine has none, or a damaged one."""
    try:
        document = read_json(job_dir(job_id) / _LIST, MAX_LIST)
        files = tuple(
            ResultFile(str(path), int(size), str(sha256))
            for path, size, sha256 in document["files"]
        )
        refused = tuple((str(path), str(why)) for path, why in document["refused"])
        return Collected(files, refused, int(document["refused_count"]))
    except (OSError, ValueError, TypeError, LookupError):
        return None


def remove_results(job_id: str, why: str) -> None:
    """Remove a job's results from this machine; `results_removed` returns why. Raises `OSError`."""
    folder = job_dir(job_id)
    (folder / _REMOVED).write_text(why)
    (folder / _LIST).unlink(missing_ok=True)
    remove_tree(str(folder / _FOLDER))


def results_removed(job_id: str) -> str | None:
    """Return why the results of a job are no longer on this machine, if they were removed."""
    try:
        return (job_dir(job_id) / _REMOVED).read_text()[:200]
    except (OSError, UnicodeDecodeError):
        return None


def jobs_with_results() -> list[str]:
    """Return the ids of the jobs whose results are on this machine."""
    try:
        with os.scandir(state_dir() / "jobs") as folders:
            return [one.name for one in folders if os.path.exists(os.path.join(one.path, _LIST))]
    except OSError:
        return []

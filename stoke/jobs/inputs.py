"""What a job gets of the jobs that it follows: their results, below the folder $STOKE_INPUTS.

They travel in one file. Its first line is JSON: the folders, each after the one around it, and
`[path, size, whether it is a program]` of each file. The contents follow in that order, without
anything between. `stoke.remote.runner.inputs` unpacks it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from stoke.errors import EngineError, RequestError
from stoke.files.atomic import replacing
from stoke.files.paths import job_dir
from stoke.files.untrusted import regular
from stoke.history.database import History
from stoke.history.job import SWEEP, Job
from stoke.history.queue import Dependency
from stoke.results.store import read_results, results_folder, results_removed
from stoke.text.units import exact_size, human_bytes

_PIECE = 1024**2
_LONGEST_NAME = 255


def inputs_file(job_id: str) -> Path:
    return job_dir(job_id) / "inputs"


def make_inputs(
    job_id: str, after: Sequence[Dependency], history: History, max_bytes: int
) -> Path | None:
    """Write the file for a job and return its path; None for a job that follows none.

    Raises `RequestError` for results that were not collected, were removed or are larger than
    `max_bytes` together, and `EngineError` if the file cannot be written.
    """
    if not after:
        return None
    jobs = [job for one in after if (job := history.get(one.job_id)) is not None]
    folders: list[str] = []
    files: list[tuple[str, Path]] = []
    for job, name in _folders(jobs, history):
        folders.append(name)
        top = results_folder(job.id)
        for inner in _files_of(job):
            folders += _folders_around(inner, name)
            files.append((f"{name}/{inner}", top / inner))
    path = inputs_file(job_id)
    try:
        sizes = [source.stat().st_size for _, source in files]
        _check_size(jobs, sum(sizes), max_bytes)
        with replacing(path) as file:
            _write(file, list(dict.fromkeys(folders)), files, sizes)
    except OSError as error:
        raise EngineError(
            f"cannot pass on the results of {', '.join(job.id for job in jobs)}: "
            f"{error.filename or path}: {error.strerror}",
            "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
        ) from error
    return path


def _folders(jobs: Sequence[Job], history: History) -> Iterator[tuple[Job, str]]:
    """Yield each job with its folder; after a sweep its tasks, each in a folder with its number."""
    for job, name in zip(jobs, folder_names(jobs), strict=True):
        yield job, name
        if job.kind == SWEEP:
            from stoke.history.sweeps import Sweeps

            for task in Sweeps(history).tasks(Sweeps(history).of(job)):
                if task.job is not None and (task.job.results_files or task.job.results_problem):
                    yield task.job, f"{name}/{task.number}"


def folder_names(jobs: Sequence[Job]) -> list[str]:
    """Return the folder of each job below $STOKE_INPUTS: its name, or its id where the name is not the
    only one of it or names no folder."""
    names = Counter(job.name for job in jobs)
    ids = {job.id for job in jobs}
    return [
        job.name
        if names[job.name] == 1 and job.name not in ids and _is_folder(job.name)
        else job.id
        for job in jobs
    ]


def _is_folder(name: str) -> bool:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    return len(os.fsencode(name)) <= _LONGEST_NAME


def _files_of(job: Job) -> list[str]:
    if job.results_problem is not None:
        raise RequestError(
            "after",
            f"the results of {job.id} were not collected: {job.results_problem}",
            f"collect them, then run it again: stoke results {job.id}",
        )
    found = read_results(job.id)
    if found is not None:
        return [file.path for file in found.files]
    if not job.results_files:
        return []
    why = results_removed(job.id) or "they are no longer in its folder"
    raise RequestError(
        "after",
        f"the results of {job.id} were removed from this machine: {why}",
        f"run it again: stoke rerun {job.id}",
    )


def _folders_around(path: str, top: str) -> list[str]:
    names = path.split("/")[:-1]
    return ["/".join((top, *names[:count])) for count in range(1, len(names) + 1)]


def _check_size(jobs: Sequence[Job], size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RequestError(
            "after",
            f"the results of {', '.join(job.id for job in jobs)} have {human_bytes(size)}, and a job "
            f"gets at most {human_bytes(max_bytes)} of the jobs that it follows",
            "raise the limit and run it again: "
            f"export STOKE_RESULTS__MAX_INPUTS={exact_size(2 * size)}",
        )


def _write(
    out: BinaryIO, folders: list[str], files: list[tuple[str, Path]], sizes: list[int]
) -> None:
    rows = [
        [path, size, bool(source.stat().st_mode & 0o100)]
        for (path, source), size in zip(files, sizes, strict=True)
    ]
    out.write(json.dumps({"folders": folders, "files": rows}).encode() + b"\n")
    for (_, source), size in zip(files, sizes, strict=True):
        left = size
        with open(source, "rb", opener=regular) as file:
            while left and (piece := file.read(min(left, _PIECE))):
                out.write(piece)
                left -= len(piece)
        if left:
            raise OSError(0, "became shorter while it was read", str(source))

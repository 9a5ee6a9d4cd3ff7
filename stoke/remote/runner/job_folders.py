"""The folders that the user's code gets for its results and its checkpoint."""

from __future__ import annotations

import fcntl
import os
import stat

from stoke.remote.common.trees import FOLDER
from stoke.remote.protocol import EventKind, JobVariable, PythonLayout
from stoke.remote.runner.clock import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob


def make_folders(job: RemoteJob) -> dict[str, str]:
    """Make both folders; return the variables that name them.

    A folder that cannot be made is reported, and its variable is missing, so that code which needs it
    fails instead of writing elsewhere.
    """
    variables = {}
    if job.results is not None and _make(job, job.results, "results"):
        variables[JobVariable.RESULTS] = job.results
    key = job.payload["checkpoint"]
    if key is not None:
        checkpoint = job.path(PythonLayout.CHECKPOINTS, key)
        if _make(job, checkpoint, "checkpoint"):
            variables[JobVariable.CHECKPOINT] = checkpoint
    return variables


def _make(job: RemoteJob, folder: str, what: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        if what == "checkpoint":
            job.checkpoint = _hold(folder)
    except OSError as error:
        job.events.note("no folder for the %s: %s: %s" % (what, folder, error.strerror))
        return False
    return True


def _hold(folder: str) -> int | None:
    """Lock the folder so that no other job removes it; return its descriptor."""
    while True:
        os.makedirs(folder, exist_ok=True)
        held = os.open(folder, FOLDER)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            os.utime(held)  # Its last use, from which housekeeping tells an old checkpoint.
            if os.path.samestat(os.fstat(held), os.stat(folder)):
                return held
        except FileNotFoundError:
            pass  # Another job has just removed it, empty.
        except OSError:
            os.close(held)
            return None  # A file system without such locks; the folder stays then.
        os.close(held)


def release_checkpoint(job: RemoteJob) -> None:
    """Remove the folder of the checkpoint if it is empty and no other job uses it."""
    held, key = job.checkpoint, job.payload["checkpoint"]
    if held is None or key is None:
        return
    job.checkpoint = None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(job.path(PythonLayout.CHECKPOINTS, key))
    except OSError:
        pass
    finally:
        os.close(held)


def report_results(job: RemoteJob) -> None:
    """Add the files that match the request's patterns to the results, and report that there are any.

    A job without results has no such phase.
    """
    folder = job.results
    if folder is None:
        return
    began = now()
    if job.payload["results"]:
        from stoke.remote.runner.results import gather_results

        gather_results(job, folder)
    if _has_entries(folder):
        seconds = round(now() - began, 6)
        job.events.emit(EventKind.PHASE, phase="results", start=began, seconds=seconds)


def _has_entries(folder: str) -> bool:
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return True  # The code replaced it, which the collecting machine reports.
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False

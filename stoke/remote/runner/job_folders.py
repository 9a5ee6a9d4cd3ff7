"""The folders that the user's code gets for its results and its checkpoint."""

from __future__ import annotations

import os
import stat

from stoke.remote.protocol import JobVariable, PythonLayout
from stoke.remote.runner.event_writer import PhaseReporter

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
        os.utime(folder)  # Its last use, from which housekeeping tells an old checkpoint.
    except OSError as error:
        job.events.note("no folder for the %s: %s: %s" % (what, folder, error.strerror))
        return False
    return True


def report_results(job: RemoteJob) -> None:
    """Add the files that match the request's patterns to the results, and report that there are any.

    A job without results has no such phase.
    """
    folder = job.results
    if folder is None or not (job.payload["results"] or _has_entries(folder)):
        return
    with PhaseReporter(job.events, "results"):
        if job.payload["results"]:
            from stoke.remote.runner.results import gather_results

            gather_results(job, folder)


def _has_entries(folder: str) -> bool:
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return True  # The code replaced it, which the collecting machine reports.
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False

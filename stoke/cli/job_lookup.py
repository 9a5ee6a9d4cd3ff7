"""CheckResult the job that a command names."""

from __future__ import annotations

from stoke.errors import StokeError, UnknownJobError
from stoke.files.paths import history_file, is_there
from stoke.history.database import History
from stoke.history.job import Job


def open_history() -> History:
    """The history; `UnknownJobError` where there is none yet, and none is made."""
    if not is_there(history_file()):
        raise UnknownJobError("no job has been submitted here yet", "submit one: stoke run --help")
    return History()


def find_job(history: History, prefix: str) -> Job:
    """The one job whose id begins with `prefix`; near names are suggested where there is none."""
    try:
        return history.find(prefix)
    except UnknownJobError as error:
        if error.what.startswith("no job"):
            near = _near(history, prefix)
            if near:
                raise UnknownJobError(error.what, f"did you mean: {', '.join(near)}?") from None
        raise


def find_jobs(history: History, prefixes: tuple[str, ...]) -> tuple[list[Job], list[StokeError]]:
    """Those that are known, each once, and what is wrong with the other names."""
    found: dict[str, Job] = {}
    unknown: list[StokeError] = []
    for prefix in prefixes:
        try:
            job = find_job(history, prefix)
        except UnknownJobError as error:
            unknown.append(error)
        else:
            found[job.id] = job
    return list(found.values()), unknown


def fresh(jobs: list[Job], history: History, seconds: float = 1.0) -> list[Job]:
    """The same jobs, those that are not over as their backends say within so many seconds.

    Loads no backend, and nothing else that is slow to load, where all of them are over.
    """
    open_ones = [job for job in jobs if not job.state.finished or job.provisional]
    if not open_ones:
        return jobs
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.jobs.refresh import refresh

    now = {job.id: job for job in refresh(open_ones, Backends(load_config()), history, seconds)}
    gone = {job.id for job in open_ones} - now.keys()
    return [now.get(job.id, job) for job in jobs if job.id not in gone]


def _near(history: History, wanted: str) -> list[str]:
    from difflib import get_close_matches

    ids = [job.id for job in history.list(limit=500)]
    # People remember the name, not the random end.
    names = {job_id.rpartition("-")[0]: job_id for job_id in reversed(ids)}
    close = get_close_matches(wanted, [*ids, *names], n=3, cutoff=0.6)
    return list(dict.fromkeys(names.get(name, name) for name in close))

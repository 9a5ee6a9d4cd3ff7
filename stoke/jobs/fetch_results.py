"""Get the results of one ended job, from this machine or, if they are still there, from its engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stoke.errors import EngineError, RequestError
from stoke.jobs.refresh import clean_up
from stoke.jobs.results import collect_results
from stoke.results.collect import Collected
from stoke.results.store import read_results, results_removed

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.history.database import History
    from stoke.history.job import Job


def fetch_results(
    job: Job,
    backend_of: Callable[[Job], Backend],
    history: History,
    progress: Callable[[str], None],
) -> Collected:
    """Return the results of a job as the history has it now, collected first if they are not here.

    Raises `RequestError` if it is not over, and `EngineError` if they cannot be collected or were
    removed.
    """
    if not job.state.finished or job.provisional:
        raise RequestError(
            job.id,
            f"is {job.state}, and results are collected at its end",
            f"wait for it: stoke logs -f {job.id}",
        )
    if job.results_at is None:
        backend = backend_of(job)
        collect_results(job.id, backend, history, progress)
        clean_up(job.id, backend, history)
        job = history.get(job.id) or job
    found = read_results(job.id)
    if found is not None:
        return found
    if not job.results_files:
        return Collected(())
    why = results_removed(job.id) or "they are no longer in its folder"
    raise EngineError(
        f"the results of {job.id} were removed from this machine: {why}",
        f"run it again: stoke rerun {job.id}",
    )

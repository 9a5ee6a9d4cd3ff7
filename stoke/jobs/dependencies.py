"""Whether the jobs that another one follows let it start."""

from __future__ import annotations

from collections.abc import Iterable

from stoke.errors import RequestError
from stoke.history.attempts import Attempts
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import Dependency
from stoke.jobs.attempts import decide

_VERBS = {JobState.STOPPED: "was stopped", JobState.LOST: "was lost", JobState.FAILED: "failed"}


def why_never(dependency: Dependency, job: Job | None) -> str | None:
    """Return why the following job can never start, or None."""
    if job is None:
        return f"{dependency.job_id}, which it follows, was removed"
    is_over = job.state.finished and not job.provisional
    if not is_over or dependency.any_end or job.state is JobState.SUCCEEDED:
        return None
    return f"{job.id}, which it follows, {_VERBS[job.state]}"


def waits_for(dependency: Dependency, job: Job) -> str | None:
    """Return what the following job waits for, or None."""
    if job.state.finished and not job.provisional:
        return None
    return f"waits for {job.id} to {'end' if dependency.any_end else 'succeed'} ({job.state})"


def newest_attempt(job_id: str, history: History) -> Job | None:
    """Return the newest attempt of a job, as the history has it; the job itself without retries."""
    job = history.get(Attempts(history).latest(job_id))
    attempt = decide(job.id, history) if job is not None else None
    return history.get(attempt.next) if attempt is not None and attempt.next else job


def check_dependencies(after: Iterable[Dependency], history: History) -> None:
    """Raise `RequestError` for a job that could never start."""
    for dependency in after:
        why = why_never(dependency, newest_attempt(dependency.job_id, history))
        if why is not None:
            raise RequestError(
                "after",
                f"the job would never start: {why}",
                f"use --after-any, or run that job again: stoke rerun {dependency.job_id}",
            )

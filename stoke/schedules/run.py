"""One run of a schedule: submit its request as a job, unless the job of an earlier run still runs."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from stoke.backend.pool import Backends
from stoke.errors import EngineError, StokeError
from stoke.history.database import History
from stoke.history.queue import Placement
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import refresh
from stoke.jobs.submit import submit
from stoke.jobs.turns import Turn
from stoke.schedules.recorded_request import request_of
from stoke.schedules.store import LastRun, Schedule, load_schedule, running, save_last_run

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.history.job import Job

ASK_SECONDS = 30.0
"""Seconds to wait for the backend of an earlier run's job."""


def run_schedule(name: str, config: Config) -> LastRun:
    """Begin a run of a schedule, and record how it began. Raises as `submit` does."""
    with running(name), closing(Backends(config)) as backends, History() as history:
        schedule = load_schedule(name)
        try:
            run = _begin(schedule, config, backends, history)
        except StokeError as error:
            with suppress(EngineError):  # The first error says more.
                save_last_run(name, LastRun(at=time.time(), job=error.job_id, why=error.what))
            raise
        save_last_run(name, run)
        return run


def _begin(schedule: Schedule, config: Config, backends: Backends, history: History) -> LastRun:
    earlier = _unfinished(schedule.name, backends, history)
    if earlier is not None:
        why = f"{earlier.id} of an earlier run has not ended ({earlier.state})"
        return LastRun(at=time.time(), skipped=True, why=why)
    request, snapshot = request_of(schedule, config)
    backend = backends.get(schedule.backend)
    prepared = prepare(request, backend, history, snapshot)
    job = submit(prepared, history, queue=Turn(Placement(), config))
    return LastRun(at=time.time(), job=job.id)


def _unfinished(name: str, backends: Backends, history: History) -> Job | None:
    """Return a job of the schedule that has not ended, if its backend does not say otherwise."""
    jobs = history.unfinished_of_schedule(name)
    return next(
        (job for job in refresh(jobs, backends, history, ASK_SECONDS) if not job.state.finished),
        None,
    )

"""Submit, stop, end and remove sweeps. `stoke.jobs.scheduler` starts their tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoke.backend.capabilities import RunsSweeps
from stoke.delivery.stored_delivery import delivery_file, drop_delivery, load_delivery
from stoke.errors import RequestError, StokeError
from stoke.history.job import SWEEP, JobState
from stoke.history.queue import JobQueue
from stoke.history.sweeps import Sweep, Sweeps, TaskCounts
from stoke.jobs.inputs import inputs_file
from stoke.jobs.submit import enqueue
from stoke.request.sweep_values import Table, check_templates

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.history.queue import Placement
    from stoke.jobs.prepare import PreparedRequest
    from stoke.request.spec import JobSpec

STOPPED = "it was stopped"


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is besides its request: the values of its tasks, and its limits."""

    table: Table
    max_parallel: int | None = None
    max_fails: int | None = None


def check_sweep(spec: JobSpec, sweep: SweepRequest, backend: Backend) -> None:
    """Raise `RequestError` for a request that cannot be that of a sweep."""
    if spec.shell:
        raise RequestError("shell", "cannot be the request of a sweep")
    if spec.hold is not None:
        raise RequestError("hold", "cannot be combined with a sweep, whose tasks would wait for it")
    if spec.retries:
        raise RequestError(
            "retries",
            "cannot be combined with a sweep",
            "run its failed tasks again once it has ended: stoke rerun SWEEP --failed",
        )
    check_templates(spec.args, sweep.table.names)
    if isinstance(backend, RunsSweeps):
        backend.check_sweep(spec, sweep.table.rows, sweep.max_fails)


def submit_sweep(
    prepared: PreparedRequest, sweep: SweepRequest, history: History, placement: Placement
) -> Job:
    """Put a sweep into the queue and return its record. The caller wakes the scheduler."""

    def also(job: Job) -> None:
        Sweeps(history).add(job.id, sweep.table, sweep.max_parallel, sweep.max_fails)

    job = enqueue(prepared, history, placement, also)
    found = history.get(job.id)
    assert found is not None
    return found


def sweep_again(job: Job, history: History, *, unsuccessful: bool) -> SweepRequest:
    """Return the sweep that runs an earlier one again; with `unsuccessful` only its tasks that did not
    succeed."""
    sweeps = Sweeps(history)
    sweep = sweeps.of(job)
    rows = [
        task.values
        for task in sweeps.tasks(sweep)
        if not unsuccessful or (task.state.finished and task.state is not JobState.SUCCEEDED)
    ]
    if not rows:
        raise RequestError("failed", f"no task of {job.id} has failed")
    return SweepRequest(Table(sweep.names, rows), sweep.max_parallel, sweep.max_fails)


def settle(sweep_id: str, history: History) -> bool:
    """Bring the record of a sweep up to date with those of its tasks; return whether it has ended.

    Any process may do this at any time.
    """
    sweeps = Sweeps(history)
    sweep = sweeps.get(sweep_id)
    if sweep is None:
        return True
    counts = sweeps.counts(sweep)
    too_many = sweep.max_fails is not None and counts.failed > sweep.max_fails
    if too_many and sweep.closed is None:
        why = (
            f"more than {sweep.max_fails:,} of its tasks failed"
            if sweep.max_fails
            else "a task failed"
        )
        sweeps.close(sweep_id, why)
        sweep = sweeps.get(sweep_id)
        assert sweep is not None
        counts = sweeps.counts(sweep)
    if sweep.has_waiting or sweeps.has_unfinished(sweep_id):
        if sweep.begun:
            _begin(sweep, history)
        return False
    with history.transaction():
        history.update(sweep_id, **_result(sweep, counts))
        history.set_results(sweep_id, at=time.time())
        JobQueue(history).remove(sweep_id)
    with suppress(StokeError):
        project = load_delivery(sweep_id).project
        if project is not None:
            project.remove_pack()
    drop_delivery(sweep_id)
    inputs_file(sweep_id).unlink(missing_ok=True)
    return True


def _begin(sweep: Sweep, history: History) -> None:
    job = history.get(sweep.id)
    if job is not None and job.state in (JobState.QUEUED, JobState.STARTING):
        first = Sweeps(history).first_start(sweep.id)
        history.update(sweep.id, state=JobState.RUNNING, started_at=first)


def _result(sweep: Sweep, counts: TaskCounts) -> dict[str, object]:
    """Return the columns of a sweep whose tasks have ended."""
    failed, stopped = counts.failed, counts.of(JobState.STOPPED)
    told = [
        f"{number} of {sweep.tasks:,} tasks {what}"
        for number, what in ((f"{failed:,}", "failed"), (f"{stopped:,}", "were stopped"))
        if number != "0"
    ]
    state, code = JobState.SUCCEEDED, None if stopped else 0
    if stopped and (sweep.closed == STOPPED or not failed):
        state, code = JobState.STOPPED, None
    elif failed:
        state, code = JobState.FAILED, 1
    return {
        "state": state,
        "exit_code": code,
        "reason": "; ".join(told) or None,
        "finished_at": time.time(),
    }


def waits_for_submission(sweep_id: str) -> bool:
    """Whether an engine that runs whole sweeps does not have this one yet: its delivery is dropped once
    it does."""
    return delivery_file(sweep_id).exists()


def tasks_to_remove(job: Job, history: History) -> Iterator[Job]:
    """Yield the jobs of a finished sweep's tasks."""
    if job.kind == SWEEP:
        sweep = Sweeps(history).get(job.id)
        if sweep is not None:
            for task in Sweeps(history).tasks(sweep):
                if task.job is not None:
                    yield task.job

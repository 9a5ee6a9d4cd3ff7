"""Sweeps whose tasks their engine starts (`stoke.backend.capabilities.RunsSweeps`).

The scheduler submits such a sweep and follows it. A task becomes a job of the history once the engine
has started it; from then on it is tracked and finalized as any task is. If no scheduler runs meanwhile,
the next one catches up.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from stoke.backend.capabilities import KeepsFinishedJobs, SweepPlan
from stoke.delivery.stored_delivery import load_delivery
from stoke.delivery.task_delivery import SweepDelivery
from stoke.errors import EngineError
from stoke.files.debug import Logger
from stoke.history.sweeps import Sweeps, task_checkpoint, task_nonce
from stoke.jobs.control import stop_tasks
from stoke.jobs.sweeps import settle

if TYPE_CHECKING:
    from stoke.backend.api import Backend, Delivery
    from stoke.backend.capabilities import RunsSweeps
    from stoke.history.database import History

_log = Logger(__name__)

RUNS = "its tasks run"
STOPPING = "its running tasks are being stopped"


def load_plan(sweep_id: str, history: History, slots: int | None) -> tuple[Delivery, SweepPlan]:
    """Return a waiting sweep as its engine gets it. `EngineError` if what was stored is damaged.

    No more tasks run at once than its scope has `slots`.
    """
    sweeps, delivery = Sweeps(history), load_delivery(sweep_id)
    job, sweep, nonce = history.get(sweep_id), sweeps.get(sweep_id), history.nonce(sweep_id)
    if job is None or sweep is None or nonce is None:
        raise EngineError(f"the record of the sweep {sweep_id} is damaged")
    tasks = SweepDelivery(delivery, sweep.names)
    lines = []
    for task in sweeps.tasks(sweep):
        checkpoint = task_checkpoint(job.checkpoint, task.values)
        own = task_nonce(nonce, task.number)
        lines.append(json.dumps(tasks.differences(own, checkpoint, task.values, task.number)))
    plan = SweepPlan(
        tuple(line.encode() for line in lines),
        min((one for one in (sweep.max_parallel, slots) if one is not None), default=None),
        fail_fast=sweep.max_fails == 0,
    )
    return delivery, plan


def follow_sweep(
    sweep_id: str, backend: Backend, engine: RunsSweeps, history: History, grace: float
) -> str | None:
    """Bring the records of a submitted sweep up to date with its engine; return what it waits for, if
    anything."""
    sweeps = Sweeps(history)
    progress = engine.sweep_progress(sweep_id)
    begun = sweeps.begin_started(sweep_id, progress.started)
    sweep = sweeps.get(sweep_id)
    if sweep is None:
        return None
    if progress.is_over:
        if sweep.closed is not None:
            for task in begun:  # They were stopped before they were jobs.
                history.update(task.job_id, stop_requested=True)
        elif sweep.has_waiting and not sweeps.has_unfinished(sweep_id):
            settle(sweep_id, history)  # Closes it if too many tasks have failed.
            sweeps.close(sweep_id, progress.reason or "its engine started no more of them")
    # A sweep that is being stopped may still start a task.
    if (progress.is_over or sweep.closed is None) and settle(sweep_id, history):
        if isinstance(backend, KeepsFinishedJobs):
            with suppress(EngineError):  # The engine removes it later by its own rules.
                backend.release(sweep_id)
        return None
    sweep = sweeps.get(sweep_id)
    if sweep is not None and sweep.closed is not None and not progress.is_over:
        stop_tasks(sweep_id, backend, history, grace)
        return STOPPING
    return RUNS if sweep is not None and sweep.begun else progress.reason

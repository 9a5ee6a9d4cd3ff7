"""Stop, interrupt and remove jobs."""

from __future__ import annotations

import time
from contextlib import suppress

from stoke.backend.api import Backend, EngineStatus
from stoke.backend.capabilities import Interrupts, NotStartedError, RunsSweeps
from stoke.backend.pool import Backends
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import SWEEP, Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs.submit_lock import submitting
from stoke.jobs.tracker import Tracker

RELEASE_SECONDS = 15.0
"""How long an engine may take to end a held job that is removed."""


def stop(job: Job, backend: Backend, history: History, grace: float) -> str | None:
    """Ask the engine to end the job: SIGTERM now, SIGKILL after `grace` seconds (0: at once).

    Of a job with retries, end the newest attempt; there is no further one then. Returns what the
    backend has to tell the user about it, if anything.
    """
    job = last_attempt(job, history)
    if job.state.finished and not job.provisional:
        return None
    if job.kind == SWEEP:
        stop_sweep(job, backend, history, grace)
        return None
    if JobQueue(history).has(job.id):
        from stoke.jobs.leave_queue import leave_queue

        if leave_queue(job.id, history):
            return None
    if job.held:
        # It keeps its state: its code has failed before.
        history.update(job.id, held_until=time.time())
        return backend.stop(job.id, grace)
    history.update(job.id, stop_requested=True)
    if backend.capabilities.stop_forgets_log:
        Tracker(backend, history, job.id).catch_up()
    try:
        return backend.stop(job.id, grace)
    except NotStartedError:
        history.update(job.id, stop_requested=False)  # It runs on, to an end of its own.
        raise


def stop_sweep(job: Job, backend: Backend, history: History, grace: float) -> None:
    """Start no more tasks of a sweep, and stop those that run."""
    from stoke.history.sweeps import Sweeps
    from stoke.jobs.sweeps import STOPPED, settle, waits_for_submission

    history.update(job.id, stop_requested=True)
    Sweeps(history).close(job.id, STOPPED)
    if not isinstance(backend, RunsSweeps):
        stop_tasks(job.id, backend, history, grace)
        settle(job.id, history)
        return
    with submitting(job.id):  # Waits if the scheduler is just submitting it.
        waits = waits_for_submission(job.id)
        if waits:
            withdraw_sweep(job.id, backend, history)
    if not waits:  # The scheduler sees its end.
        stop_tasks(job.id, backend, history, grace)


def withdraw_sweep(sweep_id: str, backend: Backend, history: History) -> None:
    """End a closed sweep that waits for its submission. The caller holds its submit lock."""
    from stoke.jobs.sweeps import settle

    job = history.get(sweep_id)
    if job is not None and job.state is not JobState.QUEUED:
        backend.remove(sweep_id)  # A scheduler was killed while it submitted the sweep.
    settle(sweep_id, history)


def stop_tasks(sweep_id: str, backend: Backend, history: History, grace: float) -> None:
    """Stop the tasks of a sweep that have begun, each once unless `grace` is 0."""
    from stoke.history.sweeps import Sweeps

    first: StokeError | None = None
    if isinstance(backend, RunsSweeps):
        for task in Sweeps(history).unfinished_jobs(sweep_id):
            if not task.stop_requested and not task.state.finished:
                history.update(task.id, stop_requested=True)
                with suppress(EngineError):  # A log that cannot be read must not keep it running.
                    Tracker(backend, history, task.id).catch_up()
        backend.stop(sweep_id, grace)
        return
    for task in Sweeps(history).unfinished_jobs(sweep_id):
        if task.state.finished or (task.stop_requested and grace > 0):
            continue
        try:
            stop(task, backend, history, grace)
        except StokeError as error:
            first = first or error
    if first is not None:
        raise first


def last_attempt(job: Job, history: History) -> Job:
    """Return the newest attempt of a job that is to be stopped; there is no further one from now on."""
    from stoke.history.attempts import Attempts

    job = history.get(Attempts(history).latest(job.id)) or job
    if job.state.finished and not job.provisional:
        from stoke.jobs.attempts import give_up

        give_up(job.id, history)
    return job


def interrupt(job: Job, backend: Backend, history: History, grace: float) -> str | None:
    """Send SIGINT (ctrl+c) to the job's code, which ends when it chooses to.

    A backend that cannot send SIGINT stops the job instead, as `stop` does with `grace`.
    """
    if not isinstance(backend, Interrupts) or JobQueue(history).has(job.id):
        return stop(job, backend, history, grace)
    if not job.state.finished:
        history.update(job.id, stop_requested=True)
        backend.interrupt(job.id)
    return None


def backend_of(job: Job, backends: Backends) -> Backend | None:
    """Return the job's backend, or None if there is none of that name: the job's record is damaged,
    or the backend was uninstalled."""
    try:
        return backends.get(job.backend)
    except RequestError:
        return None


def remove(job: Job, backend: Backend | None, history: History) -> None:
    """Remove a finished job from the engine and the history, with its log and its results. A sweep is
    removed with its tasks.

    Raises `RequestError` for a job that still runs. Without a backend there is nothing to ask, so the
    job is removed in any state.
    """
    if job.sweep is not None and history.get(job.sweep) is not None:
        raise RequestError(
            job.id,
            "is a task of a sweep and is removed with it",
            f"remove all of it: stoke rm {job.sweep}",
        )
    if job.kind == SWEEP and job.state.finished:
        from stoke.jobs.sweeps import tasks_to_remove

        for task in tasks_to_remove(job, history):
            _remove(task, backend, history)
    _remove(job, backend, history)


def _remove(job: Job, backend: Backend | None, history: History) -> None:
    if backend is not None:
        if not job.state.finished:
            raise RequestError(
                job.id,
                f"is {job.state} and cannot be removed",
                f"stop it first: stoke stop {job.id}",
            )
        if job.held:
            _release(job, backend, history)
        elif job.provisional and backend.inspect(job.id).status == EngineStatus.RUNNING:
            raise RequestError(
                job.id,
                f"reported that it {job.state}, but the {backend.name} backend still runs it",
                f"stop it first: stoke stop {job.id}",
            )
        backend.remove(job.id)
    from stoke.project.manifest_store import release_manifest
    from stoke.remote.common.trees import remove_tree

    release_manifest(job.id)
    remove_tree(str(job_dir(job.id)))
    history.remove(job.id)


def _release(job: Job, backend: Backend, history: History) -> None:
    """End a held job, and wait until its engine has noticed."""
    stop(job, backend, history, 0)
    deadline = time.monotonic() + RELEASE_SECONDS
    while backend.inspect(job.id).status == EngineStatus.RUNNING and time.monotonic() < deadline:
        time.sleep(0.05)

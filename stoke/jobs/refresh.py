"""Bring the records of jobs up to date with their engines, and adopt jobs that others submitted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from stoke.backend.api import Backend, EngineStatus
from stoke.backend.capabilities import KeepsFinishedJobs, RemovesSoon
from stoke.backend.pool import Backends
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.debug import Logger
from stoke.files.file_lock import is_locked
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import SWEEP, Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs import background
from stoke.jobs.budget import enforce_budget_later
from stoke.jobs.results import (
    collect_later,
    collect_results,
    has_results,
    is_collected,
)
from stoke.jobs.submit_lock import is_being_submitted
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import LogLocation, LogLocations, UnsavedLogError
from stoke.logs.retention import enforce_log_budget

_log = Logger(__name__)

ASK_SECONDS = 1.0
"""How long a listing waits for the backends of unfinished jobs."""
CLOSE_SECONDS = 1.0
"""How long a closed log reader may take to write its checkpoint. Transports unblock it sooner."""


def refresh(
    jobs: Iterable[Job],
    backends: Backends,
    history: History,
    seconds: float = ASK_SECONDS,
    locations: LogLocations | None = None,
) -> list[Job]:
    """Ask the backends of unfinished jobs for their state, for at most `seconds` in all.

    A job whose backend did not answer is returned with `stale` set, so that a job which has ended
    unseen is never shown as running. A job that has ended is finalized: its log goes into the spool,
    its end into the history, and the engine's remains of it are removed.

    Log readers that are still busy at the deadline are closed with a checkpoint, from which the next
    call continues. The end of such a job stays provisional until its log is complete; a process of
    its own reads the rest. `locations` are those of the caller's log readers, if it has any.
    """
    asked = list(jobs)
    answered: set[str] = set()
    expired = threading.Event()
    trackers: dict[str, Tracker] = {}

    def watch(tracker: Tracker) -> None:
        trackers[tracker.job_id] = tracker
        if expired.is_set():
            tracker.close()

    def ask(job: Job) -> None:
        try:
            backend = backends.get(job.backend)
            location = locations.of(job.id) if locations else None
            if reconcile(job, backend, history, watch=watch, location=location):
                answered.add(job.id)
        except (EngineError, RequestError) as error:
            _log.debug("refresh %s: %s did not answer: %s", job.id, job.backend, error)

    def ask_all(of_one_backend: list[Job]) -> None:
        for job in of_one_backend:
            if expired.is_set():
                return
            ask(job)

    by_backend: dict[str, list[Job]] = {}
    for job in asked:
        by_backend.setdefault(job.backend, []).append(job)
    threads = [
        threading.Thread(target=ask_all, args=(group,), daemon=True)
        for group in by_backend.values()
    ]
    began = time.monotonic()
    deadline = began + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    expired.set()
    for tracker in list(trackers.values()):
        tracker.close()
    if trackers:
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if JobQueue(history).has_work():
        from stoke.jobs.scheduler_process import wake_scheduler

        wake_scheduler(history)  # The one before may have been killed.
    if asked:
        _log.debug(
            "refresh: %d of %d jobs answered in %.3f s (limit %.1f s)",
            len(answered), len(asked), time.monotonic() - began, seconds,
        )  # fmt: skip
    fresh = []
    for job in asked:
        now = history.get(job.id)
        if now is None:
            continue
        now.stale = job.id not in answered and not now.state.finished
        if now.provisional and job.id in trackers and job.id not in answered:
            _log.debug("refresh %s: its log is not complete, so a process finalizes it", job.id)
            _finalize_later(now)
        fresh.append(now)
    return fresh


def _finalize_later(job: Job) -> None:
    """Start a process that reads the rest of the job's log, unless another process reads it."""
    if is_locked(job_dir(job.id) / "follow.lock"):
        return
    with suppress(OSError):  # The next listing tries again.
        background.start("stoke.jobs.finalize", job.id)


def reconcile(
    job: Job,
    backend: Backend,
    history: History,
    on_unsaved: Callable[[UnsavedLogError], None] | None = None,
    watch: Callable[[Tracker], None] = lambda _: None,
    location: LogLocation | None = None,
    collects: bool = False,
) -> bool:
    """Bring the record and log of one unfinished job up to date, and finalize it if it has ended.

    Returns whether the record now agrees with the engine. `on_unsaved` and `location` are for a caller
    that shows the log (see `Tracker`). `watch` gets the tracker before it reads: a caller that does
    not wait for the end of a long log closes the tracker. Without `collects`, a process of its own
    collects the results.
    """
    if job.kind == SWEEP:
        _catch_up_tasks(job, backend, history, watch)
        return True
    if is_being_submitted(job.id) or JobQueue(history).has(job.id):
        return True
    engine = backend.inspect(job.id)
    if engine.status == EngineStatus.RUNNING:
        # The log tells how far the job is; the engine tells why there is none yet.
        tracker = Tracker(backend, history, job.id, on_unsaved=on_unsaved, location=location)
        tracker.take_state(engine)
        watch(tracker)
        tracker.catch_up()
        return True
    if engine.status == EngineStatus.CREATED:
        if _is_adopted(job):
            return True  # A process with another history may be submitting it.
        # The submitting process died, or lost the engine, between creating and starting the job.
        if isinstance(backend, RemovesSoon):
            backend.remove_soon(job.id)  # A listing may have many more jobs to ask about.
        else:
            backend.remove(job.id)
        why = job.reason or "the program that submitted it ended"
        history.update(
            job.id,
            state=JobState.LOST,
            reason=f"the job never began: {why}",
            finished_at=time.time(),
        )
        return True
    tracker = Tracker(backend, history, job.id, on_unsaved=on_unsaved, location=location)
    tracker.take_state(engine)
    watch(tracker)
    tracker.run()
    clean_up(job.id, backend, history, collects=collects)
    now = history.get(job.id)
    return now is None or (now.state.finished and not now.provisional)


def _catch_up_tasks(
    sweep: Job, backend: Backend, history: History, watch: Callable[[Tracker], None]
) -> None:
    """Bring the running tasks of a sweep up to date. The scheduler finalizes those that have ended."""
    from stoke.history.sweeps import Sweeps

    for task in Sweeps(history).unfinished_jobs(sweep.id):
        engine = backend.inspect(task.id)
        if engine.status == EngineStatus.RUNNING:
            tracker = Tracker(backend, history, task.id)
            tracker.take_state(engine)
            watch(tracker)
            tracker.catch_up()


def clean_up(
    job_id: str,
    backend: Backend,
    history: History,
    wait: bool = True,
    *,
    progress: Callable[[str], None] = lambda text: None,
    collects: bool = True,
) -> None:
    """Collect the results of a finalized job, remove it from its engine, and enforce the budgets of its
    scope and of the logs.

    The job stays at the engine if its results cannot be collected, which a note reports; without
    `collects`, until a process of its own has collected them. Without `wait`, the engine may still be
    removing it afterwards.
    An adopted job stays at the engine until it is removed by name: it belongs to another user of the
    engine, who may not have its log yet.
    """
    job = history.get(job_id)
    if job is None or _is_adopted(job) or job.kind == SWEEP:
        return
    if job.state.finished and not job.provisional:
        if not _has_collected(job, backend, history, progress, collects):
            return
        try:
            if isinstance(backend, KeepsFinishedJobs):
                backend.release(job_id)
            elif not wait and isinstance(backend, RemovesSoon):
                backend.remove_soon(job_id)
            else:
                backend.remove(job_id)
        except EngineError:
            pass  # It keeps its label, and a later listing removes it.
        notify_end(job_id, history)
        enforce_budget_later(job)
        if job.sweep is None:  # For tasks the scheduler does it, at times.
            keep_log_budget(history)


def notify_end(job_id: str, history: History) -> None:
    """Have a job tell of its end, if it does that, and is not run again."""
    if not JobQueue(history).has_sequel(job_id):
        return
    from stoke.jobs.attempts import decide
    from stoke.jobs.notify import notify_later

    attempt = decide(job_id, history)
    if attempt is None or not attempt.next:
        notify_later(job_id, history)


def _has_collected(
    job: Job, backend: Backend, history: History, progress: Callable[[str], None], collects: bool
) -> bool:
    """Collect a job's results; return whether nothing of them is at the engine any more."""
    if is_collected(job):
        return True
    if job.results_problem is not None:
        return False  # Only the user can decide what to do about it.
    try:
        if not has_results(job, backend):
            history.set_results(job.id, at=time.time())
            return True
        if not collects:
            collect_later(job)
            return False
        return collect_results(job.id, backend, history, progress)
    except EngineError as error:
        _log.debug("%s: its results were not collected: %s", job.id, error.what)
        return False


def keep_log_budget(history: History) -> None:
    """Remove the oldest logs if all of them take more than `log.spool_max`."""
    from stoke.config.loader import load_config

    try:
        enforce_log_budget(load_config().log.spool_max, history)
    except StokeError:
        pass  # The end of the next job tries again.


def _is_adopted(job: Job) -> bool:
    """Whether the job was found at the engine (`adopt`) rather than submitted with this history."""
    return job.request_hash is None


def adopt(backend: Backend, history: History) -> list[Job]:
    """Add the stoke jobs that the backend has and the history lacks; return them.

    Also removes what an engine created after its job was recorded as lost.
    """
    from stoke.jobs.engine_runs import take_run

    adopted = []
    for found in backend.jobs():
        known = history.get(found.job_id)
        if known is not None:
            _finish_late(known, backend)
            continue
        if (run := take_run(found, history)) is not None:
            adopted.append(run)
            continue
        job = Job(
            id=found.job_id,
            name=found.job_id.rpartition("-")[0],
            backend=backend.name,
            scope=found.scope,
            state=JobState.STARTING,
            submitted_at=found.submitted_at,
        )
        spec = found.read_spec()
        history.add(job, spec.decode() if spec else None, found.nonce)
        adopted.append(job)
    return adopted


def _finish_late(job: Job, backend: Backend) -> None:
    """Collect the results of a finished job whose process was killed before it did.

    Also remove what an engine created for a lost job after the submitting process was killed. It would
    never start.
    """
    if _is_adopted(job):
        return
    if job.state is not JobState.LOST:
        is_over = job.state.finished and not job.provisional
        if is_over and not is_collected(job) and job.results_problem is None:
            collect_later(job)
        return
    try:
        if backend.inspect(job.id).status == EngineStatus.CREATED:
            backend.remove(job.id)
    except EngineError:
        pass  # The next listing tries again.

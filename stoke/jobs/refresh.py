"""Bring the records of jobs up to date with their engines, and adopt jobs that others submitted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from stoke.backend.api import Backend
from stoke.backend.capabilities import KeepsFinishedJobs
from stoke.backend.pool import Backends
from stoke.errors import EngineError, RequestError, StokeError
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.budget import keep_budget_later
from stoke.jobs.finalize import finalize_later
from stoke.jobs.tracker import Tracker, is_being_submitted
from stoke.logs.fallback import UnkeptError
from stoke.logs.retention import keep_within

ASK_SECONDS = 1.0
"""For how long a listing waits for the backends of unfinished jobs."""
CLOSE_SECONDS = 1.0
"""How long a reader that is closed may take to write its checkpoint: a transport unblocks it sooner."""


def refresh(
    jobs: Iterable[Job], backends: Backends, history: History, seconds: float = ASK_SECONDS
) -> list[Job]:
    """Asks the backends of unfinished jobs how they stand, for at most `seconds` together.

    What could not be asked comes back with `stale` set: a job that ended while nobody looked never
    reads "running". Each job that is over is brought home on the way: its log into the spool, its
    end into the history, its remains away from the engine.

    Logs that are still being read at the deadline are closed with a checkpoint, from which the next
    call goes on. The end of such a job is provisional until its log is whole, for which a process of
    its own is started.
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
            if settle(job, backends.get(job.backend), history, watch=watch):
                answered.add(job.id)
        except (EngineError, RequestError):
            pass

    def ask_all(of_one_backend: list[Job]) -> None:
        for job in of_one_backend:
            if expired.is_set():
                return
            ask(job)

    by_backend: dict[str, list[Job]] = {}
    for job in asked:
        by_backend.setdefault(job.backend, []).append(job)
    threads = [
        threading.Thread(target=ask_all, args=(some,), daemon=True) for some in by_backend.values()
    ]
    deadline = time.monotonic() + seconds
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
    fresh = []
    for job in asked:
        now = history.get(job.id)
        if now is None:
            continue
        now.stale = job.id not in answered and not now.state.finished
        if now.provisional and job.id in trackers and job.id not in answered:
            finalize_later(now)
        fresh.append(now)
    return fresh


def settle(
    job: Job,
    backend: Backend,
    history: History,
    on_unkept: Callable[[UnkeptError], None] | None = None,
    watch: Callable[[Tracker], None] = lambda _: None,
) -> bool:
    """Looks at one unfinished job: brings its record and log up to now, and home if it is over.
    Returns whether the record now says what the engine says.

    `on_unkept` is for whoever shows the log (see `Tracker`). `watch` gets the tracker before it
    reads, for a caller that does not wait for the end of a long log: it may close the tracker.
    """
    if is_being_submitted(job.id):
        return True
    engine = backend.inspect(job.id)
    if engine.status == "running":
        # How far it is stands in its log; why it has none yet, the engine says.
        tracker = Tracker(backend, history, job.id, on_unkept=on_unkept)
        tracker.take_state(engine)
        watch(tracker)
        tracker.catch_up()
        return True
    if engine.status == "created":
        if _is_adopted(job):
            return True  # Whoever submits it may be at it, under another history.
        # Made and never started, and the program that made it is gone.
        backend.remove(job.id)
        history.update(
            job.id,
            state=JobState.LOST,
            reason="the program that submitted it ended before the job began",
            finished_at=time.time(),
        )
        return True
    tracker = Tracker(backend, history, job.id, on_unkept=on_unkept)
    tracker.take_state(engine)
    watch(tracker)
    tracker.run()
    clean_up(job.id, backend, history)
    now = history.get(job.id)
    return now is None or (now.state.finished and not now.provisional)


def clean_up(job_id: str, backend: Backend, history: History) -> None:
    """Once a job's log and end are here, the engine need not keep them; and what it
    added to its scope's cache may be more than the scope's budget.

    An adopted job stays there until it is removed by name: it is somebody else's as well, who shares
    the engine and may not have its log yet.
    """
    job = history.get(job_id)
    if job is None or _is_adopted(job):
        return
    if job.state.finished and not job.provisional:
        try:
            if isinstance(backend, KeepsFinishedJobs):
                backend.release(job_id)
            else:
                backend.remove(job_id)
        except EngineError:
            pass  # It stays labelled, and a later listing removes it.
        keep_budget_later(job)
        _keep_logs_within_budget(history)


def _keep_logs_within_budget(history: History) -> None:
    from stoke.config.loader import load_config

    try:
        keep_within(load_config().log.spool_max, history)
    except StokeError:
        pass  # The next job's end tries again.


def _is_adopted(job: Job) -> bool:
    """Whether it was found at the engine (`adopt`) and not submitted under this history."""
    return job.request_hash is None


def adopt(backend: Backend, history: History) -> list[Job]:
    """Jobs of ours that this backend holds and this history does not know, now in the history.

    On the way it removes what an engine made so late that its job was lost already.
    """
    adopted = []
    for found in backend.jobs():
        known = history.get(found.job_id)
        if known is not None:
            _remove_late(known, backend)
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


def _remove_late(job: Job, backend: Backend) -> None:
    """Remove what was made for a lost job after the program that submitted it had been killed. It
    would never start."""
    if job.state is not JobState.LOST or _is_adopted(job):
        return
    try:
        if backend.inspect(job.id).status == "created":
            backend.remove(job.id)
    except EngineError:
        pass  # The next listing tries again.

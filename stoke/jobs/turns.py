"""Whose turn it is: how many slots the running jobs of a backend leave for the waiting ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stoke.backend.api import Backend, EngineStatus
from stoke.config.model import Config
from stoke.errors import EngineError, RequestError
from stoke.files.file_lock import release_lock, take_lock
from stoke.history.database import History
from stoke.history.job import CODE, Job
from stoke.history.queue import JobQueue, Placement, QueuedJob
from stoke.history.sweeps import Sweep
from stoke.jobs.scheduler_process import scheduler_lock
from stoke.jobs.slots import slots_for, slots_of
from stoke.jobs.submit_lock import is_being_submitted
from stoke.request.stored import read_stored_fields


@dataclass(frozen=True)
class Turn:
    """That a job waits until it is its turn, if it has to."""

    placement: Placement
    config: Config


_ACTIVE = (EngineStatus.RUNNING, EngineStatus.CREATED)


class Turns:
    """The slots of one backend at one moment. Creating it asks the engine for its running jobs; the job
    `but` does not count."""

    def __init__(
        self, backend: Backend, config: Config, history: History, but: str | None = None
    ) -> None:
        self._config = config
        self._history = history
        self._slots = slots_of(backend, config)
        self._wanted_by: dict[str, int] = {}
        running, self.ended = started_jobs(backend, history)
        running = [job for job in running if job.id != but]
        self._taken = sum(self._wanted(job.sweep or job.id) for job in running)
        self._in_scope = Counter(job.scope for job in running)
        self._in_sweep = Counter(job.sweep for job in running)

    def waits_for_scope(self, scope: str) -> str | None:
        """Return what a job waits for because of its scope's limit, or None."""
        settings = self._config.scopes.get(scope)
        limit = settings.slots if settings else None
        if limit is None or self._in_scope[scope] < limit:
            return None
        return f"waits for a slot of the scope {scope}: {limit} of {limit} are in use"

    def tasks_of(self, sweep_id: str) -> int:
        """Return how many tasks of a sweep run."""
        return self._in_sweep[sweep_id]

    def waits_for_sweep(self, sweep: Sweep) -> str | None:
        """Return what the next task of a sweep waits for because of the sweep's own limit, or None."""
        running, limit = self._in_sweep[sweep.id], sweep.max_parallel
        if limit is None or running < limit:
            return None
        return f"{running} of {limit} tasks run (--max-parallel)"

    def waits_for_slot(self, job_id: str) -> str | None:
        """Return what a job waits for because the slots are in use, or None."""
        if self._slots is None or not self._taken:
            return None
        if self._taken + self._wanted(job_id) <= self._slots:
            return None
        return f"waits for a slot: {self._taken} of {self._slots} are in use"

    def take(self, job: QueuedJob) -> None:
        """Count a job that has been started."""
        self._taken += self._wanted(job.sweep or job.id)
        self._in_scope[job.scope] += 1
        self._in_sweep[job.sweep] += 1

    def _wanted(self, job_id: str) -> int:
        """Return the slots of a job. A task takes as many as its sweep asks for."""
        if self._slots is None:
            return 0
        if job_id not in self._wanted_by:
            self._wanted_by[job_id] = self._read_wanted(job_id, self._slots)
        return self._wanted_by[job_id]

    def _read_wanted(self, job_id: str, slots: int) -> int:
        try:
            request = read_stored_fields(self._history.spec(job_id))
        except RequestError:
            request = {}
        return slots_for(request, slots)


def started_jobs(backend: Backend, history: History) -> tuple[list[Job], list[Job]]:
    """Return the started jobs of a backend that run, and those that have ended and are not finalized
    yet; neither has shells and held jobs."""
    running: list[Job] = []
    ended: list[Job] = []
    for job in history.started(backend.name):
        if job.kind != CODE or job.held:
            continue
        runs = is_being_submitted(job.id) or backend.inspect(job.id).status in _ACTIVE
        (running if runs else ended).append(job)
    return running, ended


@contextmanager
def starting(
    job_id: str, scope: str, backend: Backend, turn: Turn, history: History
) -> Iterator[bool]:
    """Give whether a new job may start now, and let no other one take its slot until the end."""
    lock = None if turn.placement.after else take_lock(scheduler_lock(), wait=False)
    if lock is None:
        yield False  # It has to wait for other jobs, or others are waiting.
        return
    try:
        yield _may_start(job_id, scope, backend, turn.config, history)
    finally:
        release_lock(lock)


def _may_start(job_id: str, scope: str, backend: Backend, config: Config, history: History) -> bool:
    queue = JobQueue(history)
    if queue.waiting(backend.name) or backend.name in queue.paused():
        return False
    try:
        turns = Turns(backend, config, history, but=job_id)
    except EngineError:
        return True  # Submitting the job reports the reason.
    return turns.waits_for_scope(scope) is None and turns.waits_for_slot(job_id) is None

"""Start the queued jobs of a history when their turn comes.

    python -P -m stoke.jobs.scheduler [DESCRIPTOR]

DESCRIPTOR is that of the scheduler's lock, if the process inherits it.
One process holds the scheduler's lock; it ends when nothing waits any more. All its state is in the
history and in the jobs' folders, so the next one continues after a kill at any moment: a job stays in
the queue until its engine has it, and submitting it again is safe.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from stoke.backend.api import Backend, BusyError, EngineStatus, UnsettledSubmitError
from stoke.backend.capabilities import RunsSweeps
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.delivery.stored_delivery import drop_delivery, load_delivery
from stoke.errors import EngineError, StokeError
from stoke.files.background_log import background_log
from stoke.files.debug import Logger
from stoke.files.file_lock import take_lock
from stoke.history.attempts import Attempts
from stoke.history.database import History, Note
from stoke.history.job import SWEEP, Job, JobState, Phase
from stoke.history.notifications import Notifications
from stoke.history.queue import PAUSED, JobQueue, QueuedJob
from stoke.history.sweeps import Sweeps
from stoke.jobs import background
from stoke.jobs.alarm import Alarm
from stoke.jobs.attempts import MOST_DELAY, decide, keep_inputs
from stoke.jobs.control import stop_tasks, withdraw_sweep
from stoke.jobs.dependencies import waits_for, why_never
from stoke.jobs.engine_sweeps import STOPPING, follow_sweep, load_plan
from stoke.jobs.inputs import inputs_file, make_inputs
from stoke.jobs.leave_queue import never_started
from stoke.jobs.refresh import notify_end, refresh
from stoke.jobs.results import collect_later, is_collected
from stoke.jobs.scheduler_process import scheduler_lock
from stoke.jobs.submit import note_cause, record_failure, recording
from stoke.jobs.submit_lock import submitting
from stoke.jobs.sweep_tasks import SweepTasks
from stoke.jobs.sweeps import settle, waits_for_submission
from stoke.jobs.turns import Turns
from stoke.project.pack import ProjectDelivery

_log = Logger(__name__)

CHECK_SECONDS = 0.1
"""Seconds between checks whether a running job has ended, or another one was put into the queue."""
REST = 4
"""How many times as long as a look took the scheduler rests before the next, with a long queue."""
MOST_REST_SECONDS = 1.0
"""A look may also take long because another process holds the history."""
LAST_TASKS = "its last tasks run"
STARTERS = 8
"""Threads that start the tasks of sweeps on engines."""
COLLECT_SECONDS = 0.5
"""How long the results of an ended job may take before this process has them collected too."""
AGAIN_SECONDS = 10.0
ASK_SECONDS = 1.0
"""Seconds until the next look at a job with retries; longer for one that has run for long."""
MOST_ASK_SECONDS = 30.0
ASKS_OF_AGE = 60


class Scheduler:
    """Starts queued jobs. Only the process that holds the scheduler's lock may use one.

    `wait` rests for a number of seconds, or less if something has happened; `ring` ends that rest.
    """

    def __init__(
        self,
        backends: Backends,
        history: History,
        wait: Callable[[float], None] = time.sleep,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self._backends = backends
        self._history = history
        self._queue = JobQueue(history)
        self._sweeps = Sweeps(history)
        self._tasks = SweepTasks(history, ring)
        self._rest = wait
        self._ring = ring
        # The tasks that threads are starting, and whether the last look started a job.
        self._starting: dict[str, QueuedJob] = {}
        self._starters: ThreadPoolExecutor | None = None
        self._has_started = False
        # The reasons that this scheduler has recorded, by job.
        self._told: dict[str, str | None] = {}
        # When a job with retries is next looked at (monotonic seconds).
        self._asks: dict[str, float] = {}
        # When the results of an ended job are next asked for (monotonic seconds).
        self._collects: dict[str, float] = {}

    def run(self) -> None:
        """Start jobs until none waits, but for paused ones, or until this is the history no longer."""
        began = time.monotonic()
        while not self._history.is_outdated() and self.start_due():
            took = time.monotonic() - began
            rest = CHECK_SECONDS if self._has_started else REST * took
            self._rest(min(MOST_REST_SECONDS, max(CHECK_SECONDS, rest)))
            began = time.monotonic()
        self._tasks.close()
        if self._starters is not None:
            self._starters.shutdown()
            self._starters = None

    def start_due(self) -> bool:
        """Start every job whose turn it is; record why the others wait. Return whether any waits."""
        by_backend: dict[str, list[QueuedJob]] = {}
        self._has_started = False
        for job in self._queue.waiting():
            by_backend.setdefault(job.backend, []).append(job)
        self._see_ends()
        paused = self._queue.paused()
        for name, jobs in by_backend.items():
            try:
                if name in paused:
                    self._wait_all(jobs, PAUSED)
                    self._finish_sweeps(name, jobs)
                else:
                    self._start_on(self._backends.get(name), jobs)
            except StokeError as error:
                self._wait_all(jobs, error.what)
            except Exception as error:
                _log.exception("queue: %s cannot be asked", name)
                self._wait_all(jobs, f"{name}: {type(error).__name__}: {error}")
        return self._queue.has_work()

    def _start_on(self, backend: Backend, jobs: list[QueuedJob]) -> None:
        if isinstance(backend, RunsSweeps):
            for job in jobs:
                if job.kind == SWEEP:
                    self._wait(job, self._follow_or_why_not(job, backend, backend))
            jobs = [job for job in jobs if job.kind != SWEEP]
        # Read first: a task that has been started in between then counts twice, and never not at all.
        starting = {job.id: job for job in list(self._starting.values())}
        turns = Turns(backend, self._backends.config, self._history)
        self._tasks.finalize(turns.ended, backend)
        for job in starting.values():
            if job.backend == backend.name:
                turns.take(job)
        jobs = [job for job in jobs if job.id not in starting]
        with_waiting_task = {job.sweep for job in jobs}
        full: str | None = None
        for job in jobs:
            if job.kind == SWEEP:
                waits, full = self._advance(job, backend, turns, full, job.id in with_waiting_task)
                self._wait(job, waits)
                continue
            waits = _waits_for_time(job, self._history) or self._waits_for_others(job)
            waits = waits or turns.waits_for_scope(job.scope)
            if waits is None and full is None:
                # Those behind it wait too, so that a large job gets its turn.
                full = turns.waits_for_slot(job.id)
            waits = waits or full or self._start(job, backend, turns)
            if waits is not None:
                self._wait(job, waits)

    def _finish_sweeps(self, name: str, jobs: list[QueuedJob]) -> None:
        """Finalize the ended tasks of paused sweeps."""
        sweeps = [job for job in jobs if job.kind == SWEEP]
        if sweeps:
            backend = self._backends.get(name)
            turns = Turns(backend, self._backends.config, self._history)
            self._tasks.finalize(turns.ended, backend)
            for job in sweeps:
                if isinstance(backend, RunsSweeps):
                    if not waits_for_submission(job.id):
                        self._wait(job, self._follow_or_why_not(job, backend, backend))
                elif not settle(job.id, self._history):
                    self._stop_closed(job, backend)

    def _follow_or_why_not(
        self, job: QueuedJob, backend: Backend, engine: RunsSweeps
    ) -> str | None:
        try:
            return self._follow(job, backend, engine)
        except StokeError as error:
            return error.what  # Other jobs may be elsewhere, on another cluster.

    def _follow(self, job: QueuedJob, backend: Backend, engine: RunsSweeps) -> str | None:
        """Submit or follow a sweep whose tasks its engine starts; return what it waits for."""
        grace = self._backends.config.stop_grace
        if not waits_for_submission(job.id):
            return follow_sweep(job.id, backend, engine, self._history, grace)
        waits = self._waits_for_others(job)
        if waits is not None or not self._queue.has(job.id):
            return waits
        with submitting(job.id, wait=False) as alone:
            sweep = self._sweeps.get(job.id)
            if not alone or sweep is None or not self._queue.has(job.id):
                return None
            if sweep.closed is not None:
                withdraw_sweep(job.id, backend, self._history)
                return None
            record = self._history.get(job.id)
            try:
                # The engine may have the sweep from now on, also if this process is killed.
                self._history.update(job.id, state=JobState.STARTING)
                scope = self._backends.config.scopes.get(job.scope)
                delivery, plan = load_plan(job.id, self._history, scope.slots if scope else None)
                delivery = replace(delivery, inputs=self._inputs_of(job))
                engine.submit_sweep(delivery, plan)
            except UnsettledSubmitError as error:
                return error.what  # Submitting it again is safe.
            except StokeError as error:
                try:
                    backend.inspect(job.id)
                except EngineError as unreachable:
                    if record is not None:
                        self._history.update(job.id, state=record.state)
                    return unreachable.what
                self._give_up_sweep(job, error.what, error.hint)
                return None
            except Exception as error:
                _log.exception("queue: the sweep %s failed to start", job.id)
                self._give_up_sweep(job, f"{backend.name}: {type(error).__name__}: {error}", None)
                return None
            drop_delivery(job.id)
            if delivery.project is not None:
                delivery.project.remove_pack()
            self._has_started = True
        return None

    def _give_up_sweep(self, job: QueuedJob, what: str, hint: str | None) -> None:
        """End a sweep that its engine does not take. The caller holds its submit lock."""
        self._history.add_note(job.id, Note("error", what, hint))
        never_started(job.id, what, self._history)
        record_failure(self._history, job.id, what)

    def _stop_closed(self, job: QueuedJob, backend: Backend) -> bool:
        """Stop the tasks of a sweep that starts no more of them; return whether it is such a one."""
        sweep = self._sweeps.get(job.id)
        if sweep is None or sweep.closed is None:
            return False
        stop_tasks(job.id, backend, self._history, self._backends.config.stop_grace)
        return True

    def _advance(
        self,
        job: QueuedJob,
        backend: Backend,
        turns: Turns,
        full: str | None,
        has_waiting_task: bool,
    ) -> tuple[str | None, str | None]:
        """Start the tasks of a sweep whose turn it is.

        Return why the next one has to wait, and why those behind the sweep have to, or None.
        """
        if settle(job.id, self._history):
            return None, full
        if self._stop_closed(job, backend):
            return STOPPING, full
        sweep = self._sweeps.get(job.id)
        # Once it has begun, the jobs that it follows no longer matter.
        waits = None if sweep is None or sweep.begun else self._waits_for_others(job)
        if waits is None and has_waiting_task:
            waits = "one of its tasks waits"
        if waits is None and job.after:
            try:
                self._inputs_of(job)  # Once, for all of its tasks.
            except StokeError as error:
                self._give_up(job, error.what)
                return None, full
        while waits is None:
            sweep = self._sweeps.get(job.id)
            if sweep is None or not sweep.has_waiting:
                waits = LAST_TASKS
                break
            waits = turns.waits_for_scope(job.scope) or turns.waits_for_sweep(sweep)
            if waits is None:
                waits = full = full or turns.waits_for_slot(job.id)
            if waits is not None:
                break
            task = self._sweeps.begin_next(job.id)
            if task is None:
                break
            queued = QueuedJob(task.job_id, job.backend, job.scope, job.priority, (), sweep=job.id)
            if not backend.capabilities.caches_here:
                turns.take(queued)
                self._start_on_thread(queued, backend)
                continue
            running = turns.tasks_of(job.id)
            waits = self._start(queued, backend, turns)
            if turns.tasks_of(job.id) == running:
                break  # It failed to start, which may end the sweep.
        return waits, full

    def _waits_for_others(self, job: QueuedJob) -> str | None:
        """Return the sentence on the jobs that this one waits for. A job that can never start leaves
        the queue."""
        waits = None
        for dependency in job.after:
            other = self._latest(dependency.job_id)
            never = why_never(dependency, other)
            if never is not None:
                self._give_up(job, never)
                return None
            assert other is not None
            waits = waits or waits_for(dependency, other) or self._waits_for_results(other)
        return waits

    def _waits_for_results(self, job: Job) -> str | None:
        """Return that the results of an ended job are still at its engine, and have them collected."""
        is_adopted = job.request_hash is None  # The user who submitted it collects them.
        if is_adopted or is_collected(job) or job.results_problem is not None:
            task = self._sweeps.uncollected(job.id) if job.kind == SWEEP else None
            return None if task is None else self._waits_for_results(task)
        # The process that has seen the end of the job usually collects them.
        due = self._collects.setdefault(job.id, time.monotonic() + COLLECT_SECONDS)
        if time.monotonic() > due:
            self._collects[job.id] = time.monotonic() + AGAIN_SECONDS
            collect_later(job)
        return f"waits for the results of {job.id}"

    def _see_ends(self) -> None:
        """See the end of jobs that no other process follows, if they may run again or tell of it."""
        now = time.monotonic()
        notified = Notifications(self._history).pending()
        for job_id in dict.fromkeys([*Attempts(self._history).undecided(), *notified]):
            if now < self._asks.get(job_id, 0.0) or self._queue.has(job_id):
                continue
            self._asks[job_id] = now + AGAIN_SECONDS
            try:
                self._asks[job_id] = now + self._see_end(job_id)
            except StokeError:
                pass  # Its engine does not answer, or the history is full.
            except Exception:
                _log.exception("queue: the end of %s cannot be seen", job_id)

    def _see_end(self, job_id: str) -> float:
        """Look whether a job has ended; return the seconds until the next look."""
        job = self._latest(job_id)
        if job is None:
            return ASK_SECONDS
        is_over = job.state.finished and not job.provisional
        if is_over and self._waits_for_results(job) is None:
            notify_end(job.id, self._history)
        age = time.time() - (job.started_at or job.submitted_at)
        return min(MOST_ASK_SECONDS, max(ASK_SECONDS, age / ASKS_OF_AGE))

    def _latest(self, job_id: str) -> Job | None:
        """Return the newest attempt of a job, up to date."""
        while True:
            job = self._up_to_date(Attempts(self._history).latest(job_id))
            if job is None or not job.state.finished or job.provisional:
                return job
            attempt = decide(job.id, self._history)
            if attempt is None or not attempt.next:
                return job

    def _inputs_of(self, job: QueuedJob) -> Path | None:
        path = inputs_file(job.id)
        if not path.exists():  # An earlier attempt, or an engine that was busy, has left it.
            after = [
                dependency._replace(job_id=Attempts(self._history).latest(dependency.job_id))
                for dependency in job.after
            ]
            most = self._backends.config.results.max_inputs
            if make_inputs(job.id, after, self._history, most) is None:
                return None
        keep_inputs(job.id, path)
        return path

    def _up_to_date(self, job_id: str) -> Job | None:
        job = self._history.get(job_id)
        if job is None or (job.state.finished and not job.provisional) or self._queue.has(job_id):
            return job
        backend = self._backends.get(job.backend)
        if backend.inspect(job_id).status in (EngineStatus.EXITED, EngineStatus.ABSENT):
            # Not longer than a listing waits: a process of its own reads the rest of a long log.
            refresh([job], self._backends, self._history)
        return self._history.get(job_id)

    def _start_on_thread(self, job: QueuedJob, backend: Backend) -> None:
        """Start a task while others start too: an engine takes long for each."""

        def start() -> None:
            try:
                waits = self._start(job, backend)
                if waits is not None:
                    self._wait(job, waits)
            except Exception:
                _log.exception("queue: %s was not started", job.id)  # The next look tries again.
            finally:
                del self._starting[job.id]
                self._ring()

        if self._starters is None:
            self._starters = ThreadPoolExecutor(STARTERS, "starter")
        self._starting[job.id] = job
        self._has_started = True
        self._starters.submit(start)

    def _start(self, job: QueuedJob, backend: Backend, turns: Turns | None = None) -> str | None:
        """Hand a job to its engine and count it in `turns`; return why it has to wait for that, or
        None."""
        with submitting(job.id, wait=False) as alone:
            if not alone or not self._queue.has(job.id):
                return None  # It will never start, or is just being stopped.
            record = self._history.get(job.id)
            assert record is not None
            project = None
            try:
                if job.sweep is None:
                    delivery = load_delivery(job.id)
                    project = delivery.project
                    inputs = self._inputs_of(job)
                else:
                    delivery = self._tasks.delivery(record)
                    inputs = inputs_file(job.sweep)
                    inputs = inputs if inputs.exists() else None
                delivery = replace(delivery, inputs=inputs)
                backend.submit(delivery, recording(job.id, self._history, lambda *_: None))
            except BusyError as error:
                return error.what
            except UnsettledSubmitError as error:
                self._leave(job, project, reason=error.what)
                return None
            except StokeError as error:
                try:
                    backend.inspect(job.id)
                except EngineError as unreachable:
                    return unreachable.what
                self._fail(job, project, error.what, error)
                return None
            except Exception as error:
                # A bug in a backend must be shown, and must not keep other jobs waiting.
                _log.exception("queue: %s failed to start", job.id)
                self._fail(job, project, f"{backend.name}: {type(error).__name__}: {error}")
                return None
            waited = max(0.0, time.time() - record.submitted_at)
            if job.sweep is None:
                self._history.set_phase(job.id, Phase("queue", record.submitted_at, waited))
            _log.debug("queue: started %s after %.3f s", job.id, waited)
            self._leave(job, project, state=JobState.STARTING, reason=None)
            self._has_started = True
            if turns is not None:
                turns.take(job)
        return None

    def _fail(
        self,
        job: QueuedJob,
        project: ProjectDelivery | None,
        what: str,
        error: StokeError | None = None,
    ) -> None:
        hint = error.hint if error is not None else None
        _log.debug("queue: %s failed to start: %s", job.id, what)
        record_failure(self._history, job.id, what)
        if error is not None:
            note_cause(job.id, error, self._history)
        self._history.add_note(job.id, Note("error", what, hint))
        self._leave(job, project)

    def _leave(self, job: QueuedJob, project: ProjectDelivery | None, **changes: object) -> None:
        if changes:
            self._history.update(job.id, **changes)
        self._queue.remove(job.id)
        self._told.pop(job.id, None)
        drop_delivery(job.id)
        inputs_file(job.id).unlink(missing_ok=True)
        if project is not None:
            project.remove_pack()

    def _give_up(self, job: QueuedJob, why: str) -> None:
        with submitting(job.id, wait=False) as alone:
            if alone and self._queue.has(job.id):
                never_started(job.id, why, self._history)

    def _wait_all(self, jobs: list[QueuedJob], why: str) -> None:
        for job in jobs:
            self._wait(job, why)

    def _wait(self, job: QueuedJob, why: str | None) -> None:
        if self._told.get(job.id) != why and self._queue.has(job.id):
            self._history.update(job.id, reason=why)
            self._told[job.id] = why


def _waits_for_time(job: QueuedJob, history: History) -> str | None:
    """Return until when a further attempt waits, or None."""
    if job.starts_at is None:
        return None
    left = job.starts_at - time.time()
    if left <= 0 or left > 2 * MOST_DELAY:  # The clock was set back.
        return None
    attempt = Attempts(history).of(job.id)
    number = f"attempt {attempt.number}" if attempt else "it"
    return f"{number} starts at {time.strftime('%H:%M:%S', time.localtime(job.starts_at))}"


def main(inherited: int | None = None) -> None:
    """Be the scheduler, unless another process is. `inherited` is the lock, if this process has it."""
    if inherited is not None:
        os.set_inheritable(inherited, False)  # Jobs of this machine must not keep the lock.
    alarm = Alarm()
    with History() as history, closing(Backends(load_config())) as backends:
        scheduler = Scheduler(backends, history, alarm.wait, alarm.ring)
        waits = True
        while waits:
            lock = take_lock(scheduler_lock(), wait=False) if inherited is None else inherited
            inherited = None
            if lock is None:
                return
            try:
                scheduler.run()
                if history.is_outdated():
                    if history.path.exists():
                        # It may have other jobs, also such that this version does not know. What is
                        # installed now goes on.
                        background.start("stoke.jobs.scheduler", str(lock), inherits=(lock,))
                    return
            finally:
                os.close(lock)
            # A job that was put into the queue after the last look at it found the lock taken.
            waits = JobQueue(history).has_work()


if __name__ == "__main__":
    try:
        with background_log("scheduler"):
            main(*map(int, sys.argv[1:]))
    except StokeError as error:
        sys.exit(error.what)

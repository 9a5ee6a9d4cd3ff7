"""Keep the screens current: one thread watches the history, and a tracker follows each running job.

The thread asks for the data version of the database, which costs microseconds, and reads the history
only when that has changed. Nothing is published while nothing changes, so an idle program writes
nothing to the terminal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stoke.backend import pool
from stoke.config.model import Config
from stoke.errors import EngineError, StokeError, WaitingError
from stoke.files.debug import Logger
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.history.usage import UsageCurves
from stoke.jobs import refresh
from stoke.jobs.engine_runs import find_runs
from stoke.jobs.scheduler_process import wake_scheduler
from stoke.jobs.submit_lock import is_being_submitted
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import LogLocations, UnsavedLogError
from stoke.logs.progress_bar import current_bar
from tui.jobs_snapshot import JobsSnapshot

_log = Logger(__name__)

NEWEST = 100
"""Jobs in a snapshot besides the unfinished ones."""
TRACKED = 12
"""Jobs followed at a time: the one with priority and the newest."""
RECENT = 12
"""Figures of the usage of each running job in a snapshot."""
BUSY_SECONDS = 0.5
IDLE_SECONDS = 2.0
RETRY_SECONDS = 5.0
OTHERS_SECONDS = 10.0
RUNS_SECONDS = 60.0
# A follower that cannot reach its engine reports that again within 30 s.
FAILURE_SECONDS = 45.0


@dataclass
class _Tracked:
    job_id: str
    backend: str
    thread: threading.Thread | None = None
    tracker: Tracker | None = None
    closed: bool = False


@dataclass(frozen=True)
class _Failure:
    backend: str
    error: StokeError
    at: float = field(default_factory=time.monotonic)


class JobsService:
    """Runs from `start` to `close`. `publish` is called on the service's thread, only after a change.

    After each chunk of a log, its tracker pauses for the seconds that `busy` returns.
    """

    def __init__(
        self,
        config: Config,
        history: History,
        backends: pool.Backends,
        publish: Callable[[JobsSnapshot], object],
        busy: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.backends = backends
        self.locations = LogLocations()
        """Where the logs are read from: the trackers here move a log that cannot be saved."""
        self._busy = busy
        self._config = config
        self._history = history
        self._publish = publish
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._prioritized: str | None = None
        self._tracked: dict[str, _Tracked] = {}
        self._retry_at: dict[str, float] = {}
        self._failures: dict[str, _Failure] = {}
        self._others_at = time.monotonic() + OTHERS_SECONDS
        self._changed = True

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="jobs").start()
        threading.Thread(target=self._adopt, daemon=True, name="adopt").start()
        threading.Thread(target=self._find_runs, daemon=True, name="schedules").start()

    def close(self) -> None:
        """End the trackers within one second; the jobs continue."""
        self._closed.set()
        self._wake.set()
        with self._lock:
            tracked = list(self._tracked.values())
        deadline = time.monotonic() + 1
        for one in tracked:
            self._end(one)
        for one in tracked:
            if one.thread is not None:
                one.thread.join(max(0.0, deadline - time.monotonic()))
        closing = threading.Thread(target=self.backends.close, daemon=True)
        closing.start()
        closing.join(max(0.0, deadline - time.monotonic()))

    def prioritize(self, job_id: str | None) -> None:
        """Track this job even if `TRACKED` newer ones run: the user looks at it."""
        self._prioritized = job_id

    def refresh(self) -> None:
        """Read the history now instead of at the next interval."""
        self._changed = True
        self._wake.set()

    # --- watching the history ---------------------------------------------------------------------

    def _run(self) -> None:
        version: object = None
        # A connection of its own: it does not wait for writers, and the data version counts only what
        # other connections write.
        reading = History(self._history.path, read_only=True)
        jobs: list[Job] = []
        unfinished: list[Job] = []
        published = JobsSnapshot()
        while not self._closed.is_set():
            try:
                now = reading.query("PRAGMA data_version")[0][0]
                if now != version or self._changed or self._expire():
                    version, is_forced, self._changed = now, self._changed, False
                    jobs = _newest(reading, unfinished)
                    usage = UsageCurves(reading).recent(RECENT)
                    bars = self._bars(jobs)
                    snapshot = replace(self._snapshot(jobs), usage=usage, bars=bars)
                    if not is_forced and snapshot.jobs == published.jobs:
                        snapshot = replace(snapshot, jobs=published.jobs)  # Only the usage is new.
                    published = snapshot
                    self._publish(snapshot)
                unfinished = [job for job in jobs if not job.state.finished or job.provisional]
                self._track(unfinished)
            except StokeError as error:
                self._publish(JobsSnapshot(tuple(jobs), (("history", error),)))
                self._changed = True
                self._closed.wait(RETRY_SECONDS)
            self._wake.wait(BUSY_SECONDS if unfinished else IDLE_SECONDS)
            self._wake.clear()
        reading.close()

    def _bars(self, jobs: list[Job]) -> dict[str, str]:
        """Return the progress bars of the jobs that run and are followed here."""
        with self._lock:
            followed = set(self._tracked)
        running = (job.id for job in jobs if job.state is JobState.RUNNING)
        bars = {one: current_bar(self.locations.of(one)) for one in running if one in followed}
        return {job_id: bar for job_id, bar in bars.items() if bar}

    def _snapshot(self, jobs: list[Job]) -> JobsSnapshot:
        with self._lock:
            failures = dict(self._failures)
        for job in jobs:
            job.stale = job.id in failures and not job.state.finished
        by_backend = {failure.backend: failure.error for failure in failures.values()}
        return JobsSnapshot(tuple(jobs), tuple(by_backend.items()))

    def _expire(self) -> bool:
        """Forget failures that were not repeated. Return whether there were any."""
        horizon = time.monotonic() - FAILURE_SECONDS
        with self._lock:
            old = [name for name, failure in self._failures.items() if failure.at < horizon]
            for name in old:
                del self._failures[name]
        return bool(old)

    # --- tracking ---------------------------------------------------------------------------------

    def _track(self, unfinished: list[Job]) -> None:
        queued = JobQueue(self._history).ids()
        if queued:
            wake_scheduler(self._history)  # The one before may have been killed.
        unfinished = [job for job in unfinished if job.id not in queued]
        wanted = [job for job in unfinished if job.id == self._prioritized]
        wanted += [job for job in unfinished if job.id != self._prioritized]
        others, wanted = wanted[TRACKED:], wanted[:TRACKED]
        names = {job.id for job in wanted}
        with self._lock:
            running = list(self._tracked.values())
        for one in running:
            if one.job_id not in names:
                self._end(one)
        now = time.monotonic()
        for job in wanted:
            due = self._retry_at.get(job.id, 0) <= now
            if due and job.id not in self._tracked and not is_being_submitted(job.id):
                self._begin(job)
        if others and now >= self._others_at:
            self._others_at = now + OTHERS_SECONDS
            arguments = (others, self.backends, self._history, refresh.ASK_SECONDS, self.locations)
            threading.Thread(target=refresh.refresh, args=arguments, daemon=True).start()

    def _begin(self, job: Job) -> None:
        one = _Tracked(job.id, job.backend)
        one.thread = threading.Thread(
            target=self._follow, args=(one, job), daemon=True, name=f"track {job.id}"
        )
        with self._lock:
            if self._closed.is_set():
                return  # `close` has already listed the trackers to end.
            self._tracked[job.id] = one
            one.thread.start()

    def _end(self, one: _Tracked) -> None:
        one.closed = True
        if one.tracker is not None:
            one.tracker.close()

    def _follow(self, one: _Tracked, job: Job) -> None:
        try:
            backend = self.backends.get(one.backend)
            location = self.locations.of(job.id)
            # Settled first: a job that was made and never started has no end to wait for.
            refresh.reconcile(
                job, backend, self._history, on_unsaved=self._unsaved, location=location
            )
            one.tracker = Tracker(
                backend,
                self._history,
                job.id,
                on_change=lambda: self._progressed(one),
                on_trouble=lambda error: self._failed(one, error),
                on_unsaved=self._unsaved,
                location=location,
            )
            self._recovered(one)
            if not one.closed:
                one.tracker.run()
                refresh.clean_up(job.id, backend, self._history)
        except StokeError as error:
            self._failed(one, error)
        except Exception as error:
            # A bug in a backend must be shown, and must not stop the listing.
            self._failed(one, EngineError(f"{one.backend}: {type(error).__name__}: {error}"))
        finally:
            with self._lock:
                self._tracked.pop(job.id, None)
            self._wake.set()

    def _progressed(self, one: _Tracked) -> None:
        self._recovered(one)
        seconds = self._busy()
        if seconds:
            self._closed.wait(seconds)

    def _failed(self, one: _Tracked, error: StokeError) -> None:
        if isinstance(error, WaitingError):
            return  # The backend answers; the record of the job says why it waits.
        self._retry_at[one.job_id] = time.monotonic() + RETRY_SECONDS
        with self._lock:
            before = self._failures.get(one.job_id)
            self._failures[one.job_id] = _Failure(one.backend, error)
        if before is None or before.error.what != error.what:
            self._changed = True

    def _recovered(self, one: _Tracked) -> None:
        with self._lock:
            had = self._failures.pop(one.job_id, None)
        if had is not None:
            self._changed = True

    def _unsaved(self, _error: UnsavedLogError) -> None:
        """Show the job again: the header of its log reports the unsaved log."""
        self.refresh()

    def _adopt(self) -> None:
        """Add jobs of the default backend that the history does not have."""
        name = self._config.backend
        try:
            if refresh.adopt(self.backends.get(name), self._history):
                self.refresh()
        except StokeError:
            pass  # A failing backend is reported where it is used.
        except Exception as error:
            fault = EngineError(f"{name}: {type(error).__name__}: {error}")
            with self._lock:
                self._failures[name] = _Failure(name, fault)
            self.refresh()

    def _find_runs(self) -> None:
        """Add the runs of schedules that engines begin, once a minute as schedules have them."""
        while True:
            try:
                find_runs(self._history, self.backends)
            except Exception:
                _log.exception("the runs of schedules are unknown")
            if self._closed.wait(RUNS_SECONDS):
                return


def _newest(history: History, before: list[Job]) -> list[Job]:
    """Return the jobs of a snapshot; `before` were unfinished in the last one."""
    jobs = {job.id: job for job in history.list(limit=NEWEST)}
    jobs |= {job.id: job for job in history.list(unfinished=True, tasks=True)}
    ended = (history.get(job.id) for job in before if job.id not in jobs)
    return [*jobs.values(), *(job for job in ended if job is not None)]

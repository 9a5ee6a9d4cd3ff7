"""What keeps the screens current: one thread that looks at the history, and a tracker a running job.

The history is asked for its data version, which costs microseconds, and read only when that has
changed. Nothing is posted while nothing changes, so an idle program writes nothing to the terminal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stoke.backend import pool
from stoke.backend.api import Backend
from stoke.config.model import Config
from stoke.errors import EngineError, StokeError, WaitingError
from stoke.history.database import History
from stoke.history.job import Job
from stoke.jobs import refresh
from stoke.jobs.submit_lock import is_being_submitted
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import UnsavedLogError
from tui.snapshot import Snapshot

NEWEST = 100
"""Jobs that a snapshot holds whatever their state."""
TRACKED = 8
"""Jobs followed at once: the chosen one and the newest."""
BUSY_SECONDS = 0.5
IDLE_SECONDS = 2.0
RETRY_SECONDS = 5.0
OTHERS_SECONDS = 10.0
# A follower that cannot reach its engine tries again every 30 s at the latest, and says so again.
TROUBLE_SECONDS = 45.0


@dataclass
class _Tracked:
    job_id: str
    backend: str
    thread: threading.Thread | None = None
    tracker: Tracker | None = None
    closed: bool = False


@dataclass(frozen=True)
class _Trouble:
    backend: str
    error: StokeError
    at: float = field(default_factory=time.monotonic)


class JobsService:
    """Runs until `close`. `publish` is called on the service's thread, only after a change.

    Between two pieces of a log its tracker stands back for the seconds that `busy` gives.
    """

    def __init__(
        self,
        config: Config,
        history: History,
        publish: Callable[[Snapshot], object],
        prepare: Callable[[Backend], object] = lambda _: None,
        busy: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.backends = pool.Backends(config, prepare)
        self._busy = busy
        self._config = config
        self._history = history
        self._publish = publish
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._chosen: str | None = None
        self._tracked: dict[str, _Tracked] = {}
        self._retry_at: dict[str, float] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._others_at = time.monotonic() + OTHERS_SECONDS
        self._changed = True

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="jobs").start()
        threading.Thread(target=self._adopt, daemon=True, name="adopt").start()

    def close(self) -> None:
        """Ends the trackers, for one second at most; the jobs go on."""
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

    def choose(self, job_id: str | None) -> None:
        """The job that is looked at is always among those tracked."""
        self._chosen = job_id

    def look_now(self) -> None:
        """Something was done here; the listing need not wait for its turn."""
        self._changed = True
        self._wake.set()

    # --- the thread that looks --------------------------------------------------------------------

    def _run(self) -> None:
        version: object = None
        # By itself: a reader does not wait for what is written here, and the data version counts what
        # *other* connections write.
        reading = History(self._history.path, read_only=True)
        jobs: list[Job] = []
        unfinished: list[Job] = []
        while not self._closed.is_set():
            try:
                now = reading.query("PRAGMA data_version")[0][0]
                if now != version or self._changed or self._expire():
                    version, self._changed = now, False
                    jobs = _newest(reading, unfinished)
                    self._publish(self._snapshot(jobs))
                unfinished = [job for job in jobs if not job.state.finished or job.provisional]
                self._track(unfinished)
            except StokeError as error:
                self._publish(Snapshot(tuple(jobs), (("history", error),)))
                self._changed = True
                self._closed.wait(RETRY_SECONDS)
            self._wake.wait(BUSY_SECONDS if unfinished else IDLE_SECONDS)
            self._wake.clear()
        reading.close()

    def _snapshot(self, jobs: list[Job]) -> Snapshot:
        with self._lock:
            troubles = dict(self._troubles)
        for job in jobs:
            job.stale = job.id in troubles and not job.state.finished
        by_backend = {trouble.backend: trouble.error for trouble in troubles.values()}
        return Snapshot(tuple(jobs), tuple(by_backend.items()))

    def _expire(self) -> bool:
        """Forgets troubles that were not met again. True if there were any."""
        horizon = time.monotonic() - TROUBLE_SECONDS
        with self._lock:
            old = [name for name, trouble in self._troubles.items() if trouble.at < horizon]
            for name in old:
                del self._troubles[name]
        return bool(old)

    # --- tracking ---------------------------------------------------------------------------------

    def _track(self, unfinished: list[Job]) -> None:
        wanted = [job for job in unfinished if job.id == self._chosen]
        wanted += [job for job in unfinished if job.id != self._chosen]
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
            arguments = (others, self.backends, self._history)
            threading.Thread(target=refresh.refresh, args=arguments, daemon=True).start()

    def _begin(self, job: Job) -> None:
        one = _Tracked(job.id, job.backend)
        one.thread = threading.Thread(
            target=self._follow, args=(one, job), daemon=True, name=f"track {job.id}"
        )
        with self._lock:
            if self._closed.is_set():
                return  # `close` has its list of what to end.
            self._tracked[job.id] = one
            one.thread.start()

    def _end(self, one: _Tracked) -> None:
        one.closed = True
        if one.tracker is not None:
            one.tracker.close()

    def _follow(self, one: _Tracked, job: Job) -> None:
        try:
            backend = self.backends.get(one.backend)
            # Settled first: a job that was made and never started has no end to wait for.
            refresh.reconcile(job, backend, self._history, on_unsaved=self._unsaved)
            one.tracker = Tracker(
                backend,
                self._history,
                job.id,
                on_change=lambda: self._went_on(one),
                on_trouble=lambda error: self._failed(one, error),
                on_unsaved=self._unsaved,
            )
            self._recovered(one)
            if not one.closed:
                one.tracker.run()
                refresh.clean_up(job.id, backend, self._history)
        except StokeError as error:
            self._failed(one, error)
        except Exception as error:
            # A fault in a backend must not take the listing with it, nor pass in silence.
            self._failed(one, EngineError(f"{one.backend}: {type(error).__name__}: {error}"))
        finally:
            with self._lock:
                self._tracked.pop(job.id, None)
            self._wake.set()

    def _went_on(self, one: _Tracked) -> None:
        self._recovered(one)
        seconds = self._busy()
        if seconds:
            self._closed.wait(seconds)

    def _failed(self, one: _Tracked, error: StokeError) -> None:
        if isinstance(error, WaitingError):
            return  # Its backend answers; why the job waits is in its record.
        self._retry_at[one.job_id] = time.monotonic() + RETRY_SECONDS
        with self._lock:
            before = self._troubles.get(one.job_id)
            self._troubles[one.job_id] = _Trouble(one.backend, error)
        if before is None or before.error.what != error.what:
            self._changed = True

    def _recovered(self, one: _Tracked) -> None:
        with self._lock:
            had = self._troubles.pop(one.job_id, None)
        if had is not None:
            self._changed = True

    def _unsaved(self, _error: UnsavedLogError) -> None:
        """The log's own header says it."""
        self.look_now()

    def _adopt(self) -> None:
        """Jobs that the default backend holds and this history does not know."""
        name = self._config.backend
        try:
            if refresh.adopt(self.backends.get(name), self._history):
                self.look_now()
        except StokeError:
            pass  # A backend that is down is said where it is used.
        except Exception as error:
            fault = EngineError(f"{name}: {type(error).__name__}: {error}")
            with self._lock:
                self._troubles[name] = _Trouble(name, fault)
            self.look_now()


def _newest(history: History, before: list[Job]) -> list[Job]:
    """What a snapshot holds; `before` were not over at the last one."""
    jobs = {job.id: job for job in history.list(limit=NEWEST)}
    jobs |= {job.id: job for job in history.list(unfinished=True)}
    ended = (history.get(job.id) for job in before if job.id not in jobs)
    return [*jobs.values(), *(job for job in ended if job is not None)]

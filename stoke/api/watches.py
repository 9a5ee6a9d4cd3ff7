"""Follow jobs for their clients: one tracker for each job, however many clients read its log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from stoke.client.connection import Connection
from stoke.errors import EngineError, StokeError
from stoke.jobs.refresh import clean_up
from stoke.jobs.submit_lock import is_being_submitted
from stoke.jobs.tracker import Tracker

SUBMISSION_SECONDS = 0.05
"""How often a job that its engine does not have yet is looked at."""
TROUBLE_SECONDS = 30.0
"""For how long a reason counts. Trouble that lasts is reported at least as often."""

Listener = Callable[[], None]


class Watch:
    """A job that is followed on a thread of its own, until its end or until no client listens."""

    def __init__(
        self, connection: Connection, job_id: str, forget: Callable[[Watch], None]
    ) -> None:
        self.job_id = job_id
        self.failure: StokeError | None = None
        self._trouble: EngineError | None = None
        self._trouble_at = 0.0
        self.is_over = False
        self.stays = False
        """Whether it is followed to its end without a listener, as a job that is being stopped."""
        self.listeners: set[Listener] = set()
        self._connection = connection
        self._forget = forget
        self._closed = threading.Event()
        self._tracker: Tracker | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {job_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._tracker is not None:
            self._tracker.close()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        connection = self._connection
        history = connection.history
        try:
            while is_being_submitted(self.job_id) and not self._closed.is_set():
                self._closed.wait(SUBMISSION_SECONDS)
            job = history.get(self.job_id)
            if job is not None and not self._closed.is_set():
                backend = connection.backend_of(job)
                self._tracker = Tracker(
                    backend,
                    history,
                    self.job_id,
                    on_change=self.tell,
                    on_trouble=self._note_trouble,
                )
                if self._closed.is_set():
                    self._tracker.close()
                self._tracker.run()
                if not self._closed.is_set():
                    with suppress(EngineError):
                        clean_up(self.job_id, backend, history)
        except StokeError as error:
            self.failure = error
        except Exception as error:
            self.failure = EngineError(f"following {self.job_id} failed: {error}")
        finally:
            self.is_over = True
            self._forget(self)
            self.tell()

    @property
    def trouble(self) -> EngineError | None:
        """Why the job waits, or why its log cannot be read or saved, as reported lately."""
        lately = time.monotonic() - self._trouble_at < TROUBLE_SECONDS
        return self._trouble if lately else None

    def _note_trouble(self, trouble: EngineError) -> None:
        self._trouble, self._trouble_at = trouble, time.monotonic()
        self.tell()

    def tell(self) -> None:
        for listener in list(self.listeners):
            listener()


class Watches:
    """The jobs that are followed now. Safe to use from several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._watches: dict[str, Watch] = {}

    def listen(self, job_id: str, listener: Listener) -> Watch:
        """Follow a job, and call `listener` on another thread whenever its log or state has changed."""
        with self._lock:
            watch = self._of(job_id)
            watch.listeners.add(listener)
            return watch

    def leave(self, watch: Watch, listener: Listener) -> None:
        with self._lock:
            watch.listeners.discard(listener)
            if not watch.listeners and not watch.stays:
                self._watches.pop(watch.job_id, None)
                watch.close()

    def follow_to_end(self, job_id: str) -> None:
        with self._lock:
            self._of(job_id).stays = True

    def _of(self, job_id: str) -> Watch:
        watch = self._watches.get(job_id)
        if watch is None or watch.is_over:
            watch = self._watches[job_id] = Watch(self._connection, job_id, self._forget)
            watch.start()
        return watch

    def _forget(self, watch: Watch) -> None:
        with self._lock:
            if self._watches.get(watch.job_id) is watch:
                del self._watches[watch.job_id]

    def tell_all(self) -> None:
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.tell()

    def close(self, seconds: float = 2.0) -> None:
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.close()
        for watch in watches:
            watch.join(seconds)

"""Accept jobs at once and submit them to their engines in the background.

An accepted job is in the history before the client has its id. Until its engine has it, this process
holds the job's submit lock, so other stoke processes leave it alone; if this process is killed, they
recognize it as lost.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from stoke.api.counters import Counters
from stoke.api.errors import ProblemError
from stoke.api.tokens import Token, api_folder
from stoke.client.connection import Connection
from stoke.errors import EXIT_STOPPED, EngineError, StokeError
from stoke.files.file_lock import is_locked, take_lock
from stoke.files.paths import make_private, state_dir
from stoke.history.database import History, Note
from stoke.history.job import Job, JobState
from stoke.history.queue import Placement
from stoke.history.submission_keys import SubmissionKeys
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.submit import RecordedJob, deliver, record
from stoke.jobs.submit_lock import SubmitLock, submit_locks, take_submit_lock
from stoke.jobs.turns import Turn

WORKERS = 2
"""Jobs that one engine is given at the same time."""
WAIT_SECONDS = 2.0
"""How long a submission waits for a process that holds the history."""


class QueueLock:
    """One file lock for all jobs that wait here: their submit locks are other names of its file.

    A descriptor for each job would exceed the usual limit of a process, 1,024.
    """

    def __init__(self) -> None:
        folder = api_folder()
        for left in folder.glob("queue-*.lock"):
            if not is_locked(left):
                left.unlink(missing_ok=True)  # Of a server that was killed.
        make_private(state_dir() / "jobs")
        self._path = folder / f"queue-{secrets.token_hex(8)}.lock"
        self._descriptor = take_lock(self._path, wait=True)

    def of(self, job_id: str) -> SubmitLock:
        usual, _ = submit_locks(job_id)
        try:
            # Its parent was made private once: checking each level again takes a fifth of a submission.
            usual.parent.mkdir(mode=0o700, exist_ok=True)
            os.link(self._path, usual)
        except (OSError, EngineError):
            return take_submit_lock(job_id)
        return SubmitLock(usual, None)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Submissions:
    """Safe to use from several threads."""

    def __init__(self, connection: Connection, counters: Counters) -> None:
        self._connection = connection
        # A connection of its own: a client is refused rather than kept waiting.
        self._history = History(wait_seconds=WAIT_SECONDS)
        self._counters = counters
        self._keys = SubmissionKeys(self._history)
        self._keys.forget_old()
        self._queue_lock = QueueLock()
        self._lock = threading.Lock()
        self._engines: dict[str, ThreadPoolExecutor] = {}
        self._waiting: dict[str, tuple[RecordedJob, Future[None]]] = {}
        self._keys_in_use: set[tuple[str, str]] = set()
        self._closed = False

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def accept(
        self,
        make: Callable[[], Request],
        backend: str,
        token: Token,
        key: str | None = None,
        digest: str = "",
    ) -> tuple[Job, bool]:
        """Record a job and queue it for its engine. Return its record, and whether its key was known.

        `ProblemError` for a full queue and a key of another request, `RequestError` for a request
        that the backend cannot run, `EngineError` if the history cannot be written.
        """
        if key is None:
            return self._accept(make(), backend, None), False
        with self._using(token.name, key):
            known = self._keys.find(token.name, key)
            if known is not None:
                return self._known(known.digest, known.job_id, digest), True

            def also(job: Job) -> None:
                self._keys.add(token.name, key, digest, job.id)

            return self._accept(make(), backend, also), False

    def _known(self, known: str, job_id: str, digest: str) -> Job:
        if known != digest:
            raise ProblemError(422, "this Idempotency-Key came with another request before")
        job = self._history.get(job_id)
        if job is None:
            raise ProblemError(409, f"the job {job_id} of this Idempotency-Key was removed")
        self._counters.submission("repeated")
        return job

    def _using(self, token: str, key: str) -> _KeyInUse:
        return _KeyInUse(self._keys_in_use, self._lock, (token, key))

    def _accept(self, request: Request, backend: str, also: Callable[[Job], None] | None) -> Job:
        config, history = self._connection.config, self._history
        if self._closed or len(self._waiting) >= config.api.queue:
            why = "the server is stopping" if self._closed else "the queue is full (api.queue)"
            raise ProblemError(503, why, headers={"Retry-After": "5"})
        prepared = prepare(request, self._connection.backends.get(backend), history)
        recorded = record(
            prepared, history, take_lock=self._queue_lock.of, also=also or (lambda job: None)
        )
        self._counters.submission("accepted")
        job = recorded.job
        with self._lock:
            engine = self._engines.get(backend)
            if engine is None:
                engine = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"submit to {backend}")
                self._engines[backend] = engine
            self._waiting[job.id] = (recorded, engine.submit(self._deliver, recorded))
        return job

    def _deliver(self, recorded: RecordedJob) -> None:
        history = self._connection.history
        try:
            deliver(recorded, history, queue=Turn(Placement(), self._connection.config))
            self._counters.submission("delivered")
        except StokeError as error:
            self._counters.submission("failed")
            with suppress(EngineError):
                history.add_note(recorded.job.id, Note("error", error.what, error.hint))
        except BaseException as error:
            self._counters.submission("failed")
            with suppress(EngineError):
                history.add_note(recorded.job.id, Note("error", f"{type(error).__name__}: {error}"))
        finally:
            with self._lock:
                self._waiting.pop(recorded.job.id, None)

    def withdraw(self, job_id: str) -> bool:
        """End a job that still waits here; return whether it did. One that its engine is being given is
        waited for."""
        with self._lock:
            recorded, future = self._waiting.get(job_id, (None, None))
        if recorded is None or future is None:
            return False
        if not future.cancel():
            future.result()
            return False
        self._end(recorded, "stopped before its engine had it")
        return True

    def _end(self, recorded: RecordedJob, reason: str) -> None:
        try:
            self._connection.history.update(
                recorded.job.id,
                state=JobState.STOPPED,
                stop_requested=True,
                exit_code=EXIT_STOPPED,
                reason=reason,
                finished_at=time.time(),
            )
        finally:
            recorded.lock.release()
            with self._lock:
                self._waiting.pop(recorded.job.id, None)

    def close(self, seconds: float = 5.0) -> None:
        """Deliver what waits for up to `seconds`, then record the rest as stopped."""
        self._closed = True
        deadline = time.monotonic() + seconds
        with self._lock:
            waiting = list(self._waiting.values())
        for recorded, future in waiting:
            if time.monotonic() > deadline and future.cancel():
                with suppress(EngineError):
                    self._end(recorded, "the server was stopped before the engine had it")
            else:
                future.exception()
        for engine in self._engines.values():
            engine.shutdown()
        self._queue_lock.close()
        self._history.close()


class _KeyInUse:
    """One request at a time may use an idempotency key."""

    def __init__(
        self, in_use: set[tuple[str, str]], lock: threading.Lock, key: tuple[str, str]
    ) -> None:
        self._in_use = in_use
        self._lock = lock
        self._key = key

    def __enter__(self) -> None:
        with self._lock:
            if self._key in self._in_use:
                raise ProblemError(
                    409,
                    "a request with this Idempotency-Key is under way",
                    headers={"Retry-After": "1"},
                )
            self._in_use.add(self._key)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._in_use.discard(self._key)

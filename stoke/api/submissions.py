"""Accept jobs: put them into the queue, from which the scheduler hands them to their engines.

An accepted job is in the history, with all that its engine needs, before the client has its id. It
starts although this server is killed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from stoke.api.counters import Counters
from stoke.api.errors import ProblemError
from stoke.api.tokens import Token
from stoke.client.connection import Connection
from stoke.history.database import History
from stoke.history.job import Job
from stoke.history.queue import JobQueue, Placement
from stoke.history.submission_keys import SubmissionKeys
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.scheduler_process import wake_scheduler
from stoke.jobs.submit import enqueue

WAIT_SECONDS = 2.0
"""How long a submission waits for a process that holds the history."""


class Submissions:
    """Safe to use from several threads."""

    def __init__(self, connection: Connection, counters: Counters) -> None:
        self._connection = connection
        # A connection of its own: a client is refused rather than kept waiting.
        self._history = History(wait_seconds=WAIT_SECONDS)
        self._counters = counters
        self._queue = JobQueue(self._history)
        self._keys = SubmissionKeys(self._history)
        self._keys.forget_old()
        self._lock = threading.Lock()
        self._keys_in_use: set[tuple[str, str]] = set()

    @property
    def queued(self) -> int:
        return self._queue.count()

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
            return self._accept(make(), backend, lambda job: None), False
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

    def _accept(self, request: Request, backend: str, also: Callable[[Job], None]) -> Job:
        config, history = self._connection.config, self._history
        if self._queue.count() >= config.api.queue:
            raise ProblemError(503, "the queue is full (api.queue)", headers={"Retry-After": "5"})
        prepared = prepare(request, self._connection.backends.get(backend), history)
        job = enqueue(prepared, history, Placement(), also)
        self._counters.submission("accepted")
        wake_scheduler(history)
        return job

    def close(self) -> None:
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

"""What all requests to the server share: history, engines, queue, watches, limits, counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from stoke.api.audit import AuditLog
from stoke.api.client_request import make_request, read_request
from stoke.api.counters import Counters
from stoke.api.errors import ProblemError
from stoke.api.limits import RateLimit, Streams
from stoke.api.submissions import Submissions
from stoke.api.tokens import Token, TokenFile
from stoke.api.watches import Watches
from stoke.client.connection import Connection
from stoke.config.model import Config
from stoke.errors import StokeError
from stoke.history.database import History
from stoke.history.job import Job
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import refresh

T = TypeVar("T")

FRESH_SECONDS = 1.0
"""For how long the state of a job counts as known, however many clients ask."""
FAILURES_A_MINUTE = 60


class Api:
    """Threads do all work that waits: for the history, the engines or the disk."""

    def __init__(self, config: Config | None = None) -> None:
        self.connection = Connection(config)
        self.config = self.connection.config
        self.history = self.connection.history
        # A connection of its own, which waits for no writer.
        self.reading = History(read_only=True)
        self.tokens = TokenFile()
        self.audit = AuditLog()
        self.counters = Counters()
        self.submissions = Submissions(self.connection, self.counters)
        self.watches = Watches(self.connection)
        self.streams = Streams(self.config.api.streams)
        self.rate = RateLimit(self.config.api.rate, 2 * self.config.api.rate)
        self.failures = RateLimit(FAILURES_A_MINUTE / 60, FAILURES_A_MINUTE)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping = asyncio.Event()
        # Submissions and engines must not wait for each other, and reading for neither.
        self.readers = ThreadPoolExecutor(8, thread_name_prefix="read")
        self.writers = ThreadPoolExecutor(4, thread_name_prefix="accept")
        self.engines = ThreadPoolExecutor(8, thread_name_prefix="ask engine")
        self.figures = (float("-inf"), "")
        """When the figures of the history were computed, and their text."""
        self._asked: dict[str, float] = {}

    async def read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.readers, work)

    async def write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.writers, work)

    async def ask(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.engines, work)

    async def job(self, job_id: str, token: Token) -> Job:
        """Return a job that the token sees. `ProblemError` 404 also for the jobs of other scopes,
        because their names are no business of this client."""
        job = await self.read(lambda: self.reading.get(job_id))
        # A row may also be found by its number; that is no name for clients.
        if job is None or job.id != job_id or not token.sees(job.scope):
            raise ProblemError(404, f"there is no job {job_id!r}")
        return job

    async def fresh(self, jobs: Iterable[Job]) -> list[Job]:
        """Return jobs with their states as the engines know them, if these answer within a second."""
        found = list(jobs)
        now = time.monotonic()
        unknown = [
            job
            for job in found
            if (not job.state.finished or job.provisional)
            and now - self._asked.get(job.id, 0.0) > FRESH_SECONDS
        ]
        if not unknown:
            return found
        if len(self._asked) > 10_000:
            self._asked.clear()
        self._asked |= dict.fromkeys((job.id for job in unknown), now)
        fresh = await self.ask(lambda: refresh(unknown, self.connection.backends, self.history))
        by_id = {job.id: job for job in fresh}
        return [by_id.get(job.id, job) for job in found]

    def prepare(self) -> None:
        """Load what the first submission needs, which takes half a second."""
        token = Token("none", "submit", (), "", 0.0)
        spec, _ = read_request(b"")
        request = make_request(spec, self.config, token, None)
        with suppress(StokeError):  # The first request reports it.
            backend = self.connection.backends.get(self.config.backend)
            prepared = prepare(request, backend, self.history)
            request.payload(spec, prepared.keys, "")

    def stop(self) -> None:
        """End streams and refuse submissions, from any thread or a signal handler."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self.stopping.set()
        self.watches.tell_all()

    def close(self) -> None:
        """End what the server does. Jobs run on."""
        self.watches.close()
        self.submissions.close()
        for pool in (self.readers, self.writers, self.engines):
            pool.shutdown(wait=False, cancel_futures=True)
        self.reading.close()
        self.connection.close()

"""A job that was submitted: its state, its output, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from stoke.client.connection import Connection
from stoke.errors import EngineError, StokeError, UnknownJobError
from stoke.files.paths import job_dir
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs.control import stop
from stoke.jobs.refresh import clean_up, refresh
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import LogLocation
from stoke.logs.spool import STDERR, STDOUT, SpoolReader

if TYPE_CHECKING:
    from stoke.client.job_results import JobResults
    from stoke.history.database import History

Stream = Literal["stdout", "stderr"]
_STREAMS: dict[int, Stream] = {STDOUT: "stdout", STDERR: "stderr"}
CHECK_SECONDS = 0.5


@dataclass(frozen=True)
class OutputLine:
    """A line of a job's output, without its newline."""

    stream: Stream
    text: str
    time: float
    """When the job printed it, in epoch seconds by the engine's clock."""


class JobFailedError(StokeError):
    """A job that was to succeed did not. `job` has its state and its output."""

    def __init__(self, job: JobHandle, reason: str) -> None:
        super().__init__(f"{job.id} {reason}", f"read its output: stoke logs {job.id}")
        self.job = job


class JobHandle:
    """A job of the history. It runs on whether or not this object exists."""

    def __init__(self, session: Connection, job_id: str) -> None:
        self._session = session
        self.id = job_id

    def __repr__(self) -> str:
        return f"<stoke job {self.id}>"

    @property
    def record(self) -> Job:
        """What the history has of the job, without asking the engine."""
        job = self._session.history.get(self.id)
        if job is None:
            raise UnknownJobError(f"{self.id} was removed", "list the jobs: stoke jobs")
        return job

    @property
    def state(self) -> JobState:
        """The job's state; the engine is asked if the job may still run."""
        job = self.record
        if job.state.finished and not job.provisional:
            return job.state
        (fresh,) = refresh([job], self._session.backends, self._session.history)
        return fresh.state

    @property
    def exit_code(self) -> int | None:
        return self.record.exit_code

    def wait(self, timeout: float | None = None) -> JobHandle:
        """Return when the job is over and its log is complete. Raises `TimeoutError` after `timeout`
        seconds; the job then continues. A job that is run again is over with its last attempt, which
        this object then stands for."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with _Following(self._session, self.id) as following:
                while following.wait(CHECK_SECONDS if deadline is None else _left(deadline)):
                    if deadline is not None and time.monotonic() >= deadline:
                        raise TimeoutError(f"{self.id} is not over after {timeout} s")
            clean_up(self.id, self._session.backend_of(self.record), self._session.history)
            again = _next_attempt(self.id, self._session.history)
            if again is None:
                return self
            self.id = again

    def raise_for_state(self) -> JobHandle:
        """Raise `JobFailedError` unless the job has succeeded."""
        job = self.record
        if job.state is JobState.SUCCEEDED:
            return self
        why = job.reason or (f"exit code {job.exit_code}" if job.exit_code is not None else "")
        raise JobFailedError(self, f"{job.state}: {why}" if why else f"is {job.state}")

    def lines(self, *, follow: bool = False) -> Iterator[OutputLine]:
        """Give the lines of the output so far; with `follow`, those that come until the job is over."""
        if not follow:
            if not self._is_over():
                refresh([self.record], self._session.backends, self._session.history)
            yield from _Lines(self.id).new(all_of_it=True)
            return
        lines = _Lines(self.id)
        with _Following(self._session, self.id) as following:
            while following.wait(CHECK_SECONDS):
                yield from lines.new(all_of_it=False)
        clean_up(self.id, self._session.backend_of(self.record), self._session.history)
        yield from lines.new(all_of_it=True)

    @property
    def stdout(self) -> bytes:
        """The exact bytes of the standard output so far."""
        return _output_of(self.id, STDOUT)

    @property
    def stderr(self) -> bytes:
        """The exact bytes of the standard error so far."""
        return _output_of(self.id, STDERR)

    def results(self) -> JobResults:
        """Return what the job wrote to `$STOKE_RESULTS` and what its patterns matched.

        They are collected first if they are still at the engine. Raises `RequestError` if the job is
        not over, and `EngineError` if they cannot be collected or were removed from this machine.
        """
        from stoke.client.job_results import JobResults
        from stoke.jobs.fetch_results import fetch_results

        session = self._session
        if not self._is_over():
            refresh([self.record], session.backends, session.history)
        found = fetch_results(self.record, session.backend_of, session.history, lambda _: None)
        return JobResults(self.id, found)

    async def results_async(self) -> JobResults:
        """Do the same on a thread."""
        import asyncio

        return await asyncio.to_thread(self.results)

    def stop(self, grace: float | None = None) -> None:
        """Ask the engine to end the job: SIGTERM now, SIGKILL after `grace` seconds (0: at once)."""
        session = self._session
        if grace is None:
            grace = session.config.stop_grace
        stop(self.record, session.backend_of(self.record), session.history, grace)

    def _is_over(self) -> bool:
        job = self.record
        return job.state.finished and not job.provisional


def _next_attempt(job_id: str, history: History) -> str | None:
    if not JobQueue(history).has_sequel(job_id):
        return None
    from stoke.jobs.attempts import decide

    attempt = decide(job_id, history)
    return attempt.next or None if attempt is not None else None


class _Following:
    """Follow a job on a thread of its own: log and state go into the spool and the history."""

    def __init__(self, session: Connection, job_id: str) -> None:
        history = session.history
        job = history.get(job_id)
        if job is None:
            raise UnknownJobError(f"{job_id} was removed", "list the jobs: stoke jobs")
        self._news: SimpleQueue[None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._tracker = Tracker(
            session.backend_of(job), history, job_id, on_change=lambda: self._news.put(None)
        )
        self._thread = threading.Thread(target=self._track, name=f"follow {job_id}", daemon=True)

    def __enter__(self) -> _Following:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.close()
        self._thread.join()

    def _track(self) -> None:
        try:
            self._tracker.run()
        except BaseException as error:
            self._failure = error
        self._news.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for news; return whether the job is still followed."""
        try:
            self._news.get(timeout=max(seconds, 0.001))
            while True:
                self._news.get_nowait()
        except Empty:
            pass
        if self._thread.is_alive():
            return True
        if isinstance(self._failure, EngineError):
            raise self._failure
        if self._failure is not None:
            raise RuntimeError("following the job failed") from self._failure
        return False


class _Lines:
    """The lines of one log, each call from where the last one ended."""

    def __init__(self, job_id: str) -> None:
        self._reader = SpoolReader(LogLocation(job_dir(job_id)))
        self._next = 0

    def new(self, all_of_it: bool) -> Iterator[OutputLine]:
        """Give the lines since the last call. An unfinished last line waits, unless `all_of_it`."""
        _, rows = self._reader.size()
        for line in self._reader.lines(self._next):
            if line.number + 1 >= rows and not all_of_it and not line.text.endswith(b"\n"):
                return
            self._next = line.number + 1
            if line.stream in _STREAMS:
                text = line.text.decode("utf-8", "replace").removesuffix("\n")
                yield OutputLine(_STREAMS[line.stream], text, line.time / 1e9)
        if all_of_it:
            self._reader.close()


def _output_of(job_id: str, stream: int) -> bytes:
    reader = SpoolReader(LogLocation(job_dir(job_id)))
    try:
        return b"".join(line.text for line in reader.lines() if line.stream == stream)
    finally:
        reader.close()


def _left(deadline: float) -> float:
    return min(CHECK_SECONDS, deadline - time.monotonic())

"""A laboratory for one backend: submits real jobs and brings them home, as the commands do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from stoke.backend.api import Backend
from stoke.cache.volumes import Pruned
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, Phase
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import clean_up
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from stoke.jobs.tracker import Tracker
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.events import Event
from stoke.request.sources import request_from_options
from tests.spools import spooled

# A test that wants system packages puts its own in; nothing else must ever be asked.
NO_NIX = {
    "url": "http://127.0.0.1:9/nothing.tar.gz",
    "sha256": "0" * 64,
    "substituters": (),
    "trusted_keys": (),
}


@dataclass
class Outcome:
    """A job that is over: its record, its output byte for byte, and what the runner said."""

    job: Job
    stdout: bytes
    stderr: bytes
    events: list[Event]

    def phase(self, name: str) -> Phase:
        (phase,) = [phase for phase in self.job.phases if phase.name == name]
        return phase

    @property
    def error(self) -> Event:
        (error,) = [event for event in self.events if event["event"] == "error"]
        return error


class Lab:
    """Jobs on one backend, in one scope, with a history of their own."""

    def __init__(self, backend: Backend, config: Config, scope: str, address: str) -> None:
        self.backend = backend
        self.config = config
        self.scope = scope
        self.address = address
        """Where jobs of this backend reach servers of the test."""
        self.waits_for_removal = True
        """Whether an ended job is removed when `finish` returns. `stoke run` does not wait for that."""
        self.defaults: dict[str, Any] = {
            "scope": scope,
            "index": config.index.model_dump(),
            "nix": {**NO_NIX},
        }

    def request(
        self,
        code: str,
        name: str = "job",
        upgrade: bool = False,
        on_cache_trouble: str = "uncached",
        compile_bytecode: bool = False,
        checkpoint: str | None = None,
        **fields: Any,
    ) -> Request:
        spec = request_from_options(code=code, **{**self.defaults, **fields})
        return Request(
            spec,
            name=name,
            upgrade=upgrade,
            on_cache_trouble=on_cache_trouble,
            compile_bytecode=compile_bytecode,
            checkpoint=checkpoint,
        )

    def submit(self, code: str, **fields: Any) -> Job:
        with History() as history:
            return submit(prepare(self.request(code, **fields), self.backend, history), history)

    def finish(self, job: Job) -> Outcome:
        """Tracks a job to its confirmed end."""
        done, events = self.follow(job)
        return Outcome(done, self.output(job, STDOUT), self.output(job, STDERR), events)

    def follow(self, job: Job) -> tuple[Job, list[Event]]:
        """The same, and leaves its output in the spool."""
        done, events = self.follow_only(job)
        with History() as history:
            clean_up(job.id, self.backend, history, self.waits_for_removal)
        return done, events

    def follow_only(self, job: Job) -> tuple[Job, list[Event]]:
        """The same, and leaves the job at its engine."""
        events: list[Event] = []
        with History() as history:
            tracker = Tracker(self.backend, history, job.id, on_event=events.append)
            timer = threading.Timer(120, tracker.close)
            timer.start()
            try:
                tracker.run()
            finally:
                timer.cancel()
            done = history.get(job.id)
            assert done is not None
            assert done.state.finished and not done.provisional, f"still {done}"
        return done, events

    def run(self, code: str, **fields: Any) -> Outcome:
        return self.finish(self.submit(code, **fields))

    def output(self, job: Job, stream: int) -> bytes:
        return spooled(job_dir(job.id), stream)

    def track(self, job: Job) -> Tracker:
        """Follow a job on a thread of its own while the test continues."""
        history = History()
        tracker = Tracker(self.backend, history, job.id)
        threading.Thread(target=tracker.run, daemon=True).start()
        return tracker

    def until_output(self, job: Job, text: bytes) -> None:
        """Wait until the job has printed `text`; a tracker must be running."""
        until(lambda: text in self.output(job, STDOUT), f"{text!r} in the output of {job.id}")


class PrunableCache(Protocol):
    def prune(self, *, unused: float) -> Pruned: ...

    def clear(self) -> object: ...


def prune_while_jobs_run(cache: PrunableCache, client: Callable[[], None]) -> None:
    """Prune and clear a cache for as long as four clients run jobs with it.

    What a job uses may be refused and never removed; the jobs tell the latter.
    """
    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    removed = 0
    while any(thread.is_alive() for thread in clients):
        removed += len(cache.prune(unused=0.0).environments)
        try:
            cache.clear()
            removed += 1
        except EngineError as error:
            assert "in use" in error.what or "running job" in error.what
    assert removed > 0


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Polls until the condition holds; fails after a deadline that only a broken program meets."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)

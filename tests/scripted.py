"""An engine in memory whose connections and answers follow a script.

No engine can be told to cut a connection behind its third frame; this one can. What it does is what
real engines were measured to do: end a stream early and cleanly, cut it, refuse it, repeat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stoke.backend.api import (
    Backend,
    Capabilities,
    CheckResult,
    Delivery,
    EngineState,
    EngineStatus,
    FoundJob,
    Frame,
    LogBehindError,
    PhaseReport,
    Volume,
)
from stoke.backend.pool import Backends
from stoke.config.model import Config
from stoke.errors import EngineError

RUNNING = EngineState(EngineStatus.RUNNING)
ABSENT = EngineState(EngineStatus.ABSENT)


def exited(code: int = 0, reason: str | None = None) -> EngineState:
    return EngineState(EngineStatus.EXITED, code, reason, started_at=1000.0, finished_at=1010.0)


@dataclass(frozen=True)
class Connection:
    """How one connection goes: the number of its frames (None: all), and then its end.

    `end` is "eof" (a clean end), "cut" (an error), "behind" (its reader is late), "refused" (an error
    before anything) or "open" (nothing more comes until the reader closes it). `news` is how often it
    says beforehand that the job has come further.
    """

    frames: int | None = None
    end: str = "eof"
    batch: int = 1
    news: int = 0


@dataclass
class ScriptedBackend:
    """`log` is what the engine holds, in its stored order. The n-th connection goes as `connections`
    says, later ones serve all; the n-th question is answered from `states`, the last one for good."""

    log: list[Frame] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    states: Sequence[EngineState | EngineError] = field(default_factory=lambda: [exited()])
    name: str = "scripted"
    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(
            images=False,
            limits=False,
            system_packages=False,
            counts_bytes=False,
            isolation="none",
        )
    )
    found: list[FoundJob] = field(default_factory=list)
    on_submit: Callable[[Delivery, PhaseReport], None] = lambda delivery, report: None
    opened: list[ScriptedLog] = field(default_factory=list)
    asked: int = 0
    submitted: list[Delivery] = field(default_factory=list)
    stopped: list[tuple[str, float]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    """Set when a connection is open and nothing comes."""

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        self.submitted.append(delivery)
        self.on_submit(delivery, report)

    def inspect(self, job_id: str) -> EngineState:
        state = self.states[min(self.asked, len(self.states) - 1)]
        self.asked += 1
        if isinstance(state, EngineError):
            raise state
        return state

    def logs(self, job_id: str, since: int, follow: bool) -> ScriptedLog:
        number = len(self.opened)
        how = self.connections[number] if number < len(self.connections) else Connection()
        stream = ScriptedLog(self, how, since, follow)
        self.opened.append(stream)
        if how.end == "refused":
            raise EngineError("the connection was refused")
        return stream

    def stop(self, job_id: str, grace: float) -> None:
        self.stopped.append((job_id, grace))

    def remove(self, job_id: str) -> None:
        self.removed.append(job_id)

    def jobs(self) -> list[FoundJob]:
        return self.found

    def volumes(self) -> list[Volume]:
        return []

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        raise EngineError("this engine has no caches")

    def check(self) -> list[CheckResult]:
        return []

    def close(self) -> None:
        pass


class SlowlyRemovingBackend(ScriptedBackend):
    """A stand-in for an engine whose removals take long."""

    def remove(self, job_id: str) -> None:
        raise AssertionError(f"waited for the removal of {job_id}")

    def remove_soon(self, job_id: str) -> None:
        self.removed.append(job_id)


class ScriptedLog:
    """One connection; see `stoke.backend.LogStream`."""

    def __init__(self, backend: ScriptedBackend, how: Connection, since: int, follow: bool) -> None:
        self.since = since
        self.follow = follow
        self.closed = threading.Event()
        self.served: list[Frame] = []
        self._backend = backend
        self.how = how

    def __iter__(self) -> Iterator[list[Frame]]:
        for _ in range(self.how.news):
            yield []
        wanted = [frame for frame in self._backend.log if frame.time >= self.since]
        coming = wanted[: self.how.frames]
        for at in range(0, len(coming), self.how.batch):
            if self.closed.is_set():
                return
            batch = coming[at : at + self.how.batch]
            self.served += batch
            yield batch
        if self.how.end == "cut":
            raise EngineError("the connection was cut")
        if self.how.end == "behind":
            raise LogBehindError("it came too late")
        if self.how.end == "open":
            self._backend.waiting.set()
            self.closed.wait()

    def close(self) -> None:
        self.closed.set()


def backends_of(*some: ScriptedBackend) -> Backends:
    known: dict[str, Backend] = {backend.name: backend for backend in some}
    backends = Backends(Config())
    backends._loaded.update(known)
    return backends

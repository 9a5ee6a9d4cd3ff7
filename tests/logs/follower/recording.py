"""A follower of a scripted engine that records what it reports."""

from __future__ import annotations

import threading
from pathlib import Path

from stoke.backend.api import EngineState, Frame
from stoke.errors import EngineError
from stoke.logs.follower import Follower
from stoke.logs.spool import STDOUT
from stoke.remote.events import Event
from tests.scripted import ScriptedBackend

NONCE = "5f1c0a9be2d34718"
START = 1_763_680_000_000_000_000
MS = 1_000_000


BEGIN: Event = {"event": "begin", "phase": "run", "time": 1.0}
NOTED: Event = {"event": "note", "text": "no cache"}
END: Event = {"event": "end", "time": 2.0, "exit_code": 0}


class RecordedFollower:
    """A follower and its reports. Most of these logs do not begin and end like a runner's log: with
    `begun` and `ended` the follower does not look for that."""

    def __init__(
        self, backend: ScriptedBackend, folder: Path, begun: bool = True, ended: bool = True
    ) -> None:
        self.events: list[Event] = []
        self.trouble: list[EngineError] = []
        self.flushes = 0
        self.follower = Follower(
            backend,
            "job-aaaaaa",
            NONCE,
            folder,
            self.events.append,
            self._flushed,
            self.trouble.append,
        )
        self.follower._begun = begun
        self.follower._ended = ended

    def _flushed(self) -> None:
        self.flushes += 1


def follow(backend: ScriptedBackend, folder: Path) -> tuple[EngineState | None, RecordedFollower]:
    following = RecordedFollower(backend, folder)
    return following.follower.run(), following


def lines_of(count: int, stream: int = STDOUT, step: int = MS) -> list[Frame]:
    return [Frame(stream, START + n * step, b"line %d\n" % n) for n in range(count)]


def joined(log: list[Frame], stream: int) -> bytes:
    return b"".join(frame.data for frame in log if frame.stream == stream)


def ends(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()

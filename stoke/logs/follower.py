"""The follower: brings one job's log from its engine into the spool, every byte once.

The end of a stream is a hint; the engine's state decides. After every end or cut the follower asks
the engine, and goes on from its resume point: the time of what it has less a small overlap, because
an engine's two streams go back in time against each other by a few milliseconds. What it has seen
of that overlap is dropped by content, with multiplicity, not by time.

`log.pos` beside the spool is the checkpoint: a later program cuts the spool back to it and goes on
from there, so a kill -9 at any moment neither loses nor doubles a byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import random
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stoke.backend import ENGINE, Backend, EngineState, Frame, LogStream
from stoke.errors import EngineError
from stoke.events import Event, EventScanner
from stoke.logs.spool import STDERR, SpoolWriter
from stoke.paths import make_private

# Frames of a container's two streams were measured up to 3.6 ms out of order.
OVERLAP = 10_000_000
CHECKPOINT_SECONDS = 0.25
BACKOFF_SECONDS = (0.5, 30.0)
OVER = ("exited", "absent")

Key = tuple[int, int, int, int]
"""(time, stream, length, CRC) of a frame."""


class FollowerBusyError(Exception):
    """Another program follows this job; its spool can be read meanwhile."""


class Follower:
    """Follows one job until its log is complete. `run` blocks; `close` ends it from elsewhere.

    `on_event` gets each of the runner's events, some again after a restart (events are idempotent);
    `on_flush` is called when the spool has grown, `on_trouble` when the engine could not be reached
    (the follower goes on trying), `on_state` with what the engine said of the job.
    """

    def __init__(
        self,
        backend: Backend,
        job_id: str,
        nonce: str,
        folder: Path,
        on_event: Callable[[Event], None],
        on_flush: Callable[[], None],
        on_trouble: Callable[[EngineError], None],
        on_state: Callable[[EngineState], None] = lambda state: None,
    ) -> None:
        self._backend = backend
        self._job_id = job_id
        self._folder = folder
        self._on_event = on_event
        self._on_flush = on_flush
        self._on_trouble = on_trouble
        self._on_state = on_state
        self._scanner = EventScanner(nonce)
        self._lock_file = _take_lock(folder)
        self._closed = threading.Event()
        self._stream: LogStream | None = None
        self._cut: EngineError | None = None
        self._overlap = OVERLAP
        self._newest = 0
        self._window: deque[Key] = deque()
        self._seen: Counter[Key] = Counter()
        self._checkpointed = 0.0
        self.spool = SpoolWriter(folder)
        self._restore()

    @property
    def held(self) -> bytes:
        """What may be the beginning of an event: most often a last newline of stderr."""
        return self._scanner.held

    def run(self) -> EngineState | None:
        """Until the engine says that the job is over and the log is whole, or `close`.

        Returns the engine's last word, or None when closed first.
        """
        attempt = 0
        try:
            while not self._closed.is_set():
                grown, _ = self._read(follow=True)
                state = self._ask()
                if state and state.status in OVER and self._read_rest(state):
                    self._finish()
                    return state
                attempt = 0 if grown else attempt + 1
                self._wait(attempt)
            return None
        finally:
            self._let_go()

    def catch_up(self) -> None:
        """What the engine has by now, instead of `run`: does not wait for more."""
        try:
            self._read(follow=False)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        try:
            self.spool.close()
        finally:
            os.close(self._lock_file)

    def close(self) -> None:
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _ask(self) -> EngineState | None:
        if self._closed.is_set():
            return None
        try:
            state = self._backend.inspect(self._job_id)
        except EngineError as error:
            self._on_trouble(error)
            return None
        self._on_state(state)
        return state

    def _wait(self, attempt: int) -> None:
        first, most = BACKOFF_SECONDS
        if attempt:
            pause = min(most, first * 2 ** min(attempt - 1, 10)) * random.uniform(0.1, 1)  # noqa: S311
            self._closed.wait(pause)

    def _read_rest(self, state: EngineState) -> bool:
        """Once the job is over: reads until nothing new comes. False when closed or cut before that."""
        grown = True
        while grown and not self._closed.is_set():
            grown, error = self._read(follow=False)
            if error is not None and state.status != "absent":
                self._on_trouble(error)
                return False
        return not self._closed.is_set()

    def _read(self, follow: bool) -> tuple[bool, EngineError | None]:
        """One connection, to its end or cut. (Did it bring anything new, what cut it.)

        Trouble with keeping what comes is no cut: it is raised, and the older checkpoint stands.
        """
        expected = Counter(self._seen)
        grown = began = False
        try:
            for batch in self._batches(follow):
                if not began:
                    self._look_for_gap(batch[0], expected)
                    began = True
                grown = self._take(batch, expected) or grown
        finally:
            if self._stream is not None:
                self._stream.close()
            self._stream = None
        if grown:
            self._overlap = OVERLAP
        elif began and self._cut is not None:
            # Cut before it came to anything new, as it may be next time: begin closer to that.
            self._overlap //= 2
        self._checkpoint()
        return grown, self._cut

    def _batches(self, follow: bool) -> Iterator[list[Frame]]:
        """What one connection brings; afterwards `_cut` says what cut it, if anything did."""
        self._cut = None
        try:
            since = max(0, self._newest - self._overlap)
            self._stream = self._backend.logs(self._job_id, since, follow)
            if self._closed.is_set():
                self._stream.close()
            for batch in self._stream:
                if batch:
                    yield batch
                elif (state := self._ask()) and state.status in OVER:
                    return
        except EngineError as error:
            self._cut = error

    def _look_for_gap(self, first: Frame, expected: Counter[Key]) -> None:
        """Whatever the engine gives again begins with something known, or it has dropped that."""
        if not expected or expected[_key(first)]:
            return
        self._finish()
        seconds = max(0, first.time - self._newest) / 1e9
        self.spool.note(first.time, f"gap: {seconds:.1f} s of the log may be missing")
        self.spool.gaps += 1

    def _take(self, batch: list[Frame], expected: Counter[Key]) -> bool:
        grown = False
        for frame in batch:
            key = _key(frame)
            if expected and expected[key] > 0:
                expected[key] -= 1
                continue
            grown = True
            self._remember(key)
            if frame.stream == ENGINE:
                self.spool.put_aside(frame.data)
                continue
            if frame.stream != STDERR:
                self.spool.add(frame.stream, frame.time, frame.data)
                continue
            for piece in self._scanner.feed(frame.data):
                if isinstance(piece, bytes):
                    self.spool.add(STDERR, frame.time, piece)
                else:
                    self._on_event(piece)
        if grown:
            self.spool.flush()
            self._on_flush()
            if time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS:
                self._checkpoint()
        return grown

    def _remember(self, key: Key) -> None:
        self._window.append(key)
        self._seen[key] += 1
        if key[0] > self._newest:
            self._newest = key[0]
            horizon = self._newest - OVERLAP
            while self._window and self._window[0][0] < horizon:
                old = self._window.popleft()
                if self._seen[old] == 1:
                    del self._seen[old]
                else:
                    self._seen[old] -= 1

    def _finish(self) -> None:
        rest = self._scanner.flush()
        if rest:
            self.spool.add(STDERR, self._newest, rest)
            self.spool.flush()
        self._on_flush()
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Written aside and renamed: a reader meets the old one or the new one."""
        self._checkpointed = time.monotonic()
        position = {
            "bytes": self.spool.bytes,
            "lines": self.spool.lines,
            "gaps": self.spool.gaps,
            "newest": self._newest,
            "aside": self.spool.aside_bytes,
            "window": list(self._window),
            "held": base64.b64encode(self._scanner.held).decode(),
        }
        aside = self._folder / "log.pos.new"
        try:
            self.spool.flush()
            aside.write_text(json.dumps(position))
            aside.replace(self._folder / "log.pos")
        except OSError:
            pass  # A full disk: the older checkpoint stands, and what follows it is fetched again.

    def _restore(self) -> None:
        position: dict[str, Any]
        try:
            position = json.loads((self._folder / "log.pos").read_text())
        except (OSError, ValueError):
            position = {}
        size, lines = position.get("bytes", 1 << 62), position.get("lines", 1 << 62)
        if size > self.spool.bytes or lines > self.spool.lines:
            # None yet, or the machine went down and kept it but not all of the log: from the start.
            self.spool.truncate(0, 0, 0)
            return
        self.spool.truncate(size, lines, position.get("aside", 0))
        self.spool.gaps = position["gaps"]
        self._newest = position["newest"]
        self._window.extend((key[0], key[1], key[2], key[3]) for key in position["window"])
        self._seen.update(self._window)
        self._scanner.hold(base64.b64decode(position["held"]))


def _key(frame: Frame) -> Key:
    return (frame.time, frame.stream, len(frame.data), zlib.crc32(frame.data))


def _take_lock(folder: Path) -> int:
    make_private(folder)
    lock = os.open(folder / "follow.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FollowerBusyError from None
    return lock

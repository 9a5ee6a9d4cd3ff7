"""The follower: brings one job's log from its engine into the spool, every byte once.

The end of a stream is a hint; the engine's state decides. After every end or cut the follower asks
the engine, and goes on from its resume point (`stoke.logs.resume`).

`log.pos` beside the spool is the checkpoint: a later program cuts the spool back to it and goes on
from there, so a kill -9 at any moment neither loses nor doubles a byte.
"""

from __future__ import annotations

import base64
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from stoke.backend.api import (
    ENGINE,
    Backend,
    EngineState,
    Frame,
    LogBehindError,
    LogDeniedError,
    LogEndingError,
    LogStream,
)
from stoke.errors import EngineError
from stoke.files.atomic import write_atomically
from stoke.files.debug import Logger
from stoke.files.file_lock import take_lock
from stoke.files.paths import make_private
from stoke.files.untrusted import read_json
from stoke.logs.resume import LEAST_OVERLAP, OVERLAP, Repeats, ResumePoint
from stoke.logs.spool import MAX_CHECKPOINT, STDERR, SpoolWriter, cannot_save
from stoke.remote.events import Event, EventScanner
from stoke.remote.protocol import SEPARATOR

_log = Logger(__name__)

# What came since the last one is fetched again by whoever goes on after a kill -9. In a flood writing
# one costs some 15 ms.
CHECKPOINT_SECONDS = 1.0
CHECKPOINT_BYTES = 32 << 20
BACKOFF_SECONDS = (0.5, 30.0)
OVER = ("exited", "absent")
# A connection that lasted so long was good, also if it brought nothing.
GOOD_SECONDS = 20.0
# What an interpreter that cannot run the runner says is shorter than this.
MOST_BEFORE_RUNNER = 16 * 1024
# How often a job that was made and has not begun is looked at, and a disk that is full.
START_SECONDS = 0.1
FULL_SECONDS = 1.0
# For how long a full disk is waited for. Then whoever shows the log needs another folder for it.
PATIENCE_SECONDS = 10.0


class FollowerBusyError(Exception):
    """Another program follows this job; its spool can be read meanwhile."""


class LeftError(Exception):
    """Closed while something waited for room: it is not kept, and fetched again by whoever follows."""


class Follower:
    """Follows one job until its log is complete. `run` blocks; `close` ends it from elsewhere.

    `on_event` gets each of the runner's events, some again after a restart (events are idempotent);
    `on_flush` is called when the spool has grown, `on_trouble` when the engine could not be reached
    or the disk is full (the follower goes on trying), `on_state` with what the engine said of the job,
    `on_restart` before the log of another start of the job is read (see `stoke.backend.LogStream`).
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
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._job_id = job_id
        self._folder = folder
        self._on_event = on_event
        self._on_flush = on_flush
        self._on_trouble = on_trouble
        self._on_state = on_state
        self._on_restart = on_restart
        # Which start of the job the log so far is of, where the engine may start it again.
        self._source: str | None = None
        # Whether the connection turned out to be of another one.
        self._restarted = False
        self._scanner = EventScanner(nonce)
        self._mark = SEPARATOR + nonce.encode()
        # Whether the log's beginning was met, or missed: it begins with the runner's first words.
        self._begun = not nonce
        # What came before that is known: so little that it waits.
        self._waiting: list[Frame] = []
        self._lock = take_follow_lock(folder)
        self._closed = threading.Event()
        self._stream: LogStream | None = None
        self._cut: EngineError | None = None
        self._overlap = OVERLAP
        self._point = ResumePoint()
        self._checkpointed = 0.0
        self._checkpointed_bytes = 0
        # Whether to wait where nothing can be kept, or to give up at once.
        self._patient = True
        self.event_time = 0.0
        """The engine's time (epoch seconds) of the line that carried the event being handed on."""
        try:
            self.spool = SpoolWriter(folder)
            self._restore()
            self._try_folder()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def held(self) -> bytes:
        """What may be the beginning of an event: most often a last newline of stderr."""
        return self._scanner.held

    def run(self) -> EngineState | None:
        """Until the engine says that the job is over and the log is whole, or `close`.

        Returns the engine's last word, or None when closed first.
        """
        try:
            return self._run()
        except LeftError:
            return None
        finally:
            self._let_go()

    def _run(self) -> EngineState | None:
        attempt = 0
        follow = True
        while not self._closed.is_set():
            began = time.monotonic()
            grown, cut = self._read(follow)
            follow = not isinstance(cut, LogBehindError)
            if not follow:
                continue
            state = self._ask()
            if state and state.status == "created":
                attempt = 0
                self._closed.wait(START_SECONDS)
                continue
            if state and state.status in ("exited", "absent") and self._read_rest(state):
                self._finish()
                return state
            if state and cut is not None and not grown and attempt and not _is_expected(cut):
                self._on_trouble(cut)  # It answers, and gives no log.
            good = grown or time.monotonic() - began > GOOD_SECONDS
            attempt = 0 if good else attempt + 1
            self._wait(attempt)
        return None

    def catch_up(self) -> None:
        """What the engine has by now, instead of `run`: does not wait for more, nor for room."""
        self._patient = False
        try:
            self._read(follow=False)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        try:
            self.spool.close()
        except EngineError:
            if not self._closed.is_set():
                raise
        finally:
            os.close(self._lock)

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
        self._patiently(lambda: self._on_state(state))
        return state

    def _wait(self, attempt: int) -> None:
        first, most = BACKOFF_SECONDS
        if attempt:
            self._closed.wait(random.uniform(0, min(most, first * 2 ** min(attempt - 1, 10))))  # noqa: S311

    def _read_rest(self, state: EngineState) -> bool:
        """Once the job is over: reads until nothing new comes. False when closed or cut before that."""
        grown = True
        while grown and not self._closed.is_set():
            grown, error = self._read(follow=False)
            if isinstance(error, LogDeniedError):
                self._note_gap(f"the engine does not give its log: {error.what}")
                return True
            if error is not None and state.status != "absent":
                if not _is_expected(error):
                    self._on_trouble(error)
                return False
        return not self._closed.is_set()

    def _read(self, follow: bool) -> tuple[bool, EngineError | None]:
        """One connection, to its end or cut. (Did it bring anything new, what cut it.) A second one
        where the first turns out to be of another start of the job.

        Trouble with keeping what comes is no cut: it is waited out, or raised, and then the older
        checkpoint stands.
        """
        repeats = self._point.repeats(self._overlap)
        _log.debug("log of %s: read from %d ns, follow=%s", self._job_id, repeats.since, follow)
        grown = began = False
        self._waiting = []
        try:
            for batch in self._batches(repeats.since, follow):
                began = True
                new = repeats.new(batch)
                self._note_gap_of(repeats)
                if new:
                    (self._take if self._begun else self._take_beginning)(new)
                    grown = True
            self._take_waiting()
            is_whole = self._cut is None and not follow and not self._closed.is_set()
            if is_whole and not self._restarted:
                repeats.end()
                self._note_gap_of(repeats)
        finally:
            if self._stream is not None:
                self._stream.close()
            self._stream = None
        if self._restarted:
            return self._read(follow)
        if grown:
            self._overlap = OVERLAP
        elif began and self._cut is not None and not isinstance(self._cut, LogBehindError):
            # Cut before it came to anything new, as it may be next time: begin closer to that.
            self._overlap = LEAST_OVERLAP
        self._checkpoint()
        _log.debug("log of %s: read ends, new=%s, cut by %s", self._job_id, grown, self._cut)
        return grown, self._cut

    def _is_of_another_start(self) -> bool:
        """Whether the log that has been opened is not the one that was read before. Its times have
        nothing to do with that one's, so it is read from its beginning."""
        source = getattr(self._stream, "source", None)
        preface = getattr(self._stream, "preface", None)
        if source is None or source == self._source:
            return False
        known, self._source = self._source, source
        if preface is not None:
            self._finish()
            self.spool.note(self._point.newest or time.time_ns(), preface)
            self._flush()
        if known is None:
            return False
        self._point = ResumePoint()
        self._begun = self._mark == SEPARATOR
        self._on_restart()
        self._checkpoint()
        return True

    def _batches(self, since: int, follow: bool) -> Iterator[list[Frame]]:
        """What one connection brings; afterwards `_cut` says what cut it, if anything did."""
        self._cut = None
        self._restarted = False
        try:
            self._stream = self._backend.logs(self._job_id, since, follow)
            if self._closed.is_set():
                self._stream.close()
            for batch in self._stream:
                self._restarted = self._is_of_another_start()
                if self._restarted:
                    return
                if batch:
                    yield batch
                elif (state := self._ask()) and state.status in OVER:
                    return
            self._restarted = self._is_of_another_start()
        except EngineError as error:
            self._cut = error

    def _note_gap_of(self, repeats: Repeats) -> None:
        if repeats.gap is not None:
            self._note_gap(repeats.gap)
            repeats.gap = None

    def _note_gap(self, text: str) -> None:
        self._finish()
        self.spool.note(self._point.newest or time.time_ns(), f"gap: {text}")
        self.spool.gaps += 1
        self._flush()

    def _take_beginning(self, batch: list[Frame]) -> None:
        """Holds it back until it is clear whether something belongs before it."""
        self._waiting += batch
        mine = [frame.data for frame in self._waiting if frame.stream != ENGINE]
        if not any(self._mark in data for data in mine):
            if self.spool.bytes + sum(map(len, mine)) <= MOST_BEFORE_RUNNER:
                return
            self._missed_the_beginning(self._waiting[0].time)
        self._take_waiting()

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._take(waiting)

    def _missed_the_beginning(self, moment: int) -> None:
        self._begun = True
        self.spool.note(moment, "gap: the engine no longer has the beginning of the log")
        self.spool.gaps += 1

    def _take(self, batch: list[Frame]) -> None:
        streams, times, pieces = zip(*batch, strict=True)
        if streams.count(streams[0]) == len(streams):
            self._keep(streams[0], times, pieces)
        else:
            start = 0
            for stream, run in groupby(streams):
                end = start + len(list(run))
                self._keep(stream, times[start:end], pieces[start:end])
                start = end
        self._point.take(streams, times, pieces)
        self._flush()
        self._on_flush()
        late = time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS
        if late or self.spool.bytes - self._checkpointed_bytes > CHECKPOINT_BYTES:
            self._checkpoint()

    def _keep(self, stream: int, times: tuple[int, ...], pieces: tuple[bytes, ...]) -> None:
        if stream == ENGINE:
            self._patiently(lambda: self.spool.put_aside(b"".join(pieces)))
            return
        if stream != STDERR:
            self.spool.add_all(stream, times, pieces)
            return
        plain = self._scanner.feed_plain(pieces)
        if plain is not None:
            self.spool.add_all(STDERR, times, plain)
            return
        for moment, data in zip(times, pieces, strict=True):
            for piece in self._scanner.feed(data):
                if isinstance(piece, bytes):
                    self.spool.add(STDERR, moment, piece)
                    continue
                if not self._begun and piece["event"] not in ("begin", "note", "error"):
                    self._missed_the_beginning(moment)
                self._begun = True
                self.event_time = moment / 1e9
                self._patiently(lambda event=piece: self._on_event(event))  # type: ignore[misc]

    def _finish(self) -> None:
        rest = self._scanner.flush()
        if rest:
            self.spool.add(STDERR, self._point.newest, rest)
            self._flush()
        self._on_flush()
        self._checkpoint()

    def _flush(self) -> None:
        self._patiently(self.spool.flush)

    def _patiently(self, keep: Callable[[], None]) -> None:
        """Does what needs room on a disk; where there is none, says so and waits for it.

        Meanwhile nothing is read: the engine keeps what comes. After `PATIENCE_SECONDS` the error is
        raised.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return keep()
            except EngineError as error:
                if not self._patient or time.monotonic() > deadline:
                    raise
                self._on_trouble(error)
                if self._closed.wait(FULL_SECONDS):
                    raise LeftError from error

    def _try_folder(self) -> None:
        """Room that comes later is waited for; what has none to begin with is said at once."""
        try:
            self._write_checkpoint()
        except OSError as error:
            raise cannot_save(self._folder, error) from error

    def _checkpoint(self) -> None:
        try:
            self._write_checkpoint()
        except (OSError, EngineError):
            pass  # A full disk: the older checkpoint stands, and what follows it is fetched again.

    def _write_checkpoint(self) -> None:
        self._checkpointed = time.monotonic()
        self._checkpointed_bytes = self.spool.bytes
        position = {
            "bytes": self.spool.bytes,
            "lines": self.spool.lines,
            "gaps": self.spool.gaps,
            "aside": self.spool.aside_bytes,
            "begun": self._begun,
            "source": self._source,
            "held": base64.b64encode(self._scanner.held).decode(),
            **self._point.as_json(),
        }
        self.spool.flush()
        write_atomically(self._folder / "log.pos", json.dumps(position))

    def _restore(self) -> None:
        try:
            position: dict[str, Any] = read_json(self._folder / "log.pos", MAX_CHECKPOINT)
            size, lines, aside = position["bytes"], position["lines"], position["aside"]
            begun: bool = position["begun"]
            spool = self.spool
            if size > spool.bytes or lines > spool.lines or aside > spool.aside_bytes:
                raise ValueError("ahead of the log")
            gaps, source = int(position["gaps"]), position.get("source")
            held = base64.b64decode(position["held"])
            counts = (size, lines, aside)
            if not isinstance(source, str | None) or not all(
                isinstance(one, int) and one >= 0 for one in counts
            ):
                raise ValueError("not our checkpoint")
            self._point.restore(position)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # None yet, an older program's, or the machine went down and kept it but not all of the
            # log: from the start.
            self._point = ResumePoint()
            self.spool.truncate(0, 0, 0)
            return
        self.spool.truncate(size, lines, aside)
        self.spool.gaps = gaps
        self._begun = self._begun or begun
        self._source = source
        self._scanner.hold(held)


def _is_expected(cut: EngineError) -> bool:
    return isinstance(cut, LogEndingError)


def take_follow_lock(folder: Path) -> int:
    """Take the file lock of a spool's writer; return the descriptor that holds it until it is closed.

    Raises `FollowerBusyError` if another follower holds it.
    """
    make_private(folder)
    try:
        lock = take_lock(folder / "follow.lock", wait=False)
    except OSError as error:
        raise cannot_save(folder, error) from error
    if lock is None:
        raise FollowerBusyError
    return lock

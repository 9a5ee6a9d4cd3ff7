"""Follow one job's log from its engine into the spool, every byte exactly once.

The end of a stream is only a hint that the job has ended; the engine's state decides. After every end
or cut the follower asks the engine, and continues from its resume point (`stoke.logs.resume`).

`log.pos` beside the spool is the checkpoint. A later process truncates the spool to it and continues
from there, so a kill -9 at any moment neither loses nor repeats a byte. docs/log-contract.md lists what
the follower promises.
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
    EngineStatus,
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
from stoke.logs.spool import MAX_CHECKPOINT, NOTE, STDERR, SpoolWriter, cannot_save
from stoke.remote.events import Event, EventScanner
from stoke.remote.protocol import SEPARATOR

_log = Logger(__name__)

# After a kill -9, the next follower fetches everything since the last checkpoint again. While a job
# prints fast, writing a checkpoint costs some 15 ms.
CHECKPOINT_SECONDS = 1.0
CHECKPOINT_BYTES = 32 << 20
BACKOFF_SECONDS = (0.5, 30.0)
OVER = (EngineStatus.EXITED, EngineStatus.ABSENT)
# A connection that lasted so long was good, also if it brought nothing.
GOOD_SECONDS = 20.0
# An interpreter that cannot run the runner prints less than this.
MOST_BEFORE_RUNNER = 16 * 1024
# Intervals for checking a job that was created but has not started, and a full disk.
START_SECONDS = 0.1
FULL_SECONDS = 1.0
# How long to wait for space on a full disk. After that the log needs another folder.
PATIENCE_SECONDS = 10.0
# Exit codes from here on tell of a signal, which may have killed the runner.
SIGNAL = 128


class FollowerBusyError(Exception):
    """Another process follows this job. Its spool can be read in the meantime."""


class ClosedWhileWaitingError(Exception):
    """The follower was closed while data waited for disk space. The next follower fetches it again."""


class Follower:
    """Follow one job until its log is complete. `run` blocks; `close` ends it from another thread.

    `on_event` gets each event of the runner, some again after a restart (events are idempotent);
    `on_flush` is called when the spool has grown, `on_trouble` when the engine cannot be reached or the
    disk is full (the follower tries again), `on_state` with the engine's state of the job, `on_restart`
    before the follower reads the log of another start of the job (see `stoke.backend.api.LogStream`).
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
        self.folder = folder
        self._on_event = on_event
        self._on_flush = on_flush
        self._on_trouble = on_trouble
        self._on_state = on_state
        self._on_restart = on_restart
        # The start of the job that the log so far belongs to, if the engine may start it again.
        self._source: str | None = None
        # Whether the current connection turned out to belong to another start.
        self._restarted = False
        self._scanner = EventScanner(nonce)
        self._mark = SEPARATOR + nonce.encode()
        # Whether the beginning of the log was found or reported as missing. A log begins with the
        # runner's first event.
        self._begun = not nonce
        # Whether the runner's last event was found. A log ends with it, unless the runner was killed.
        self._ended = not nonce
        # Frames that came before this is known; few enough to be held back.
        self._waiting: list[Frame] = []
        self._lock = take_follow_lock(folder)
        self._closed = threading.Event()
        self._stream: LogStream | None = None
        self._cut: EngineError | None = None
        self._overlap = OVERLAP
        self._point = ResumePoint()
        self._checkpointed = 0.0
        self._checkpointed_bytes = 0
        # Whether to wait for disk space, or to fail at once.
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
        """Bytes of stderr that may be the beginning of an event: most often a last newline."""
        return self._scanner.held

    def run(self) -> EngineState | None:
        """Follow until the engine reports the end of the job and the log is complete, or until `close`.

        Returns the engine's last state, or None when closed first.
        """
        try:
            return self._run()
        except ClosedWhileWaitingError:
            return None
        finally:
            self._release()

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
            if state and state.status == EngineStatus.CREATED:
                attempt = 0
                self._closed.wait(START_SECONDS)
                continue
            if state and state.status in OVER and self._read_rest(state):
                self._note_missing_end(state)
                self._finish()
                return state
            if state and cut is not None and not grown and attempt and not _is_expected(cut):
                self._on_trouble(cut)  # The engine answers but gives no log.
            good = grown or time.monotonic() - began > GOOD_SECONDS
            attempt = 0 if good else attempt + 1
            self._wait(attempt)
        return None

    def catch_up(self) -> None:
        """Read what the engine has by now, instead of `run`; wait neither for more nor for space."""
        self._patient = False
        try:
            self._read(follow=False)
        finally:
            self._release()

    def _release(self) -> None:
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
        """Read until nothing new comes, after the job's end. Return False if closed or cut before."""
        grown = True
        while grown and not self._closed.is_set():
            grown, error = self._read(follow=False)
            if isinstance(error, LogDeniedError):
                self._note_gap(f"the engine does not give its log: {error.what}")
                return True
            if error is not None and state.status != EngineStatus.ABSENT:
                if not _is_expected(error):
                    self._on_trouble(error)
                return False
        return not self._closed.is_set()

    def _read(self, follow: bool) -> tuple[bool, EngineError | None]:
        """Read one connection to its end or cut. Return (whether it brought anything new, what cut it).

        Reads a second connection if the first turns out to belong to another start of the job. Failures
        to save are not cuts: they are waited out or raised, and the older checkpoint stays valid.
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
            # The connection was cut within the overlap, as the next one may be: shorten the overlap.
            self._overlap = LEAST_OVERLAP
        self._checkpoint()
        _log.debug("log of %s: read ends, new=%s, cut by %s", self._job_id, grown, self._cut)
        return grown, self._cut

    def _is_of_another_start(self) -> bool:
        """Return whether the open log belongs to another start of the job than the log read so far.

        The times of the two logs are unrelated, so the new log is read from its beginning.
        """
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
        self._begun = self._ended = self._mark == SEPARATOR
        self._on_restart()
        self._checkpoint()
        return True

    def _batches(self, since: int, follow: bool) -> Iterator[list[Frame]]:
        """Yield the batches of one connection; afterwards `_cut` is the error that cut it, if any."""
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
        """Hold frames back until it is clear whether the engine has dropped something before them."""
        self._waiting += batch
        mine = [frame.data for frame in self._waiting if frame.stream != ENGINE]
        if not any(self._mark in data for data in mine):
            if self.spool.bytes + sum(map(len, mine)) <= MOST_BEFORE_RUNNER:
                return
            self._note_missing_beginning(self._waiting[0].time)
        self._take_waiting()

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._take(waiting)

    def _note_missing_beginning(self, moment: int) -> None:
        self._begun = True
        self.spool.note(moment, "gap: the engine no longer has the beginning of the log")
        self.spool.gaps += 1

    def _note_missing_end(self, state: EngineState) -> None:
        """Note a gap if the engine gave the log without the end that the runner must have written.

        A node that rotates a log just before the job ends serves the new, empty one.
        """
        if self._ended or not (self._begun or state.began) or state.log_gone:
            return
        if state.exit_code is not None and state.exit_code < SIGNAL:
            self._ended = True
            self._note_gap("the engine no longer has the end of the log")

    def _take(self, batch: list[Frame]) -> None:
        streams, times, pieces = zip(*batch, strict=True)
        if streams.count(streams[0]) == len(streams):
            self._save(streams[0], times, pieces)
        else:
            start = 0
            for stream, run in groupby(streams):
                end = start + len(list(run))
                self._save(stream, times[start:end], pieces[start:end])
                start = end
        self._point.take(streams, times, pieces)
        self._flush()
        self._on_flush()
        late = time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS
        if late or self.spool.bytes - self._checkpointed_bytes > CHECKPOINT_BYTES:
            self._checkpoint()

    def _save(self, stream: int, times: tuple[int, ...], pieces: tuple[bytes, ...]) -> None:
        if stream == ENGINE:
            self._patiently(lambda: self.spool.put_aside(b"".join(pieces)))
            return
        if stream != STDERR:
            self.spool.add_all(stream, times, pieces)
            if stream == NOTE:  # The engine itself reports output that it lost.
                self.spool.gaps += len(pieces)
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
                    self._note_missing_beginning(moment)
                self._begun = True
                self._ended = self._ended or piece["event"] == "end"
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

    def _patiently(self, save: Callable[[], None]) -> None:
        """Call `save`; if the disk is full, report that and wait for space.

        Nothing is read in the meantime, so the engine keeps new output. Raises the error after
        `PATIENCE_SECONDS`.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return save()
            except EngineError as error:
                if not self._patient or time.monotonic() > deadline:
                    raise
                self._on_trouble(error)
                if self._closed.wait(FULL_SECONDS):
                    raise ClosedWhileWaitingError from error

    def _try_folder(self) -> None:
        """Fail at once if the folder is not writable at the start; later errors are waited out."""
        try:
            self._write_checkpoint()
        except OSError as error:
            raise cannot_save(self.folder, error) from error

    def _checkpoint(self) -> None:
        try:
            self._write_checkpoint()
        except (OSError, EngineError):
            pass  # Disk full: the older checkpoint stays valid, and the rest is fetched again.

    def _write_checkpoint(self) -> None:
        self._checkpointed = time.monotonic()
        self._checkpointed_bytes = self.spool.bytes
        position = {
            "bytes": self.spool.bytes,
            "lines": self.spool.lines,
            "gaps": self.spool.gaps,
            "aside": self.spool.aside_bytes,
            "begun": self._begun,
            "ended": self._ended,
            "source": self._source,
            "held": base64.b64encode(self._scanner.held).decode(),
            **self._point.as_json(),
        }
        self.spool.flush()
        write_atomically(self.folder / "log.pos", json.dumps(position))

    def _restore(self) -> None:
        try:
            position: dict[str, Any] = read_json(self.folder / "log.pos", MAX_CHECKPOINT)
            size, lines, aside = position["bytes"], position["lines"], position["aside"]
            begun, ended = position["begun"] is True, position.get("ended", True) is True
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
            # No checkpoint yet, one of an older version, or one that a crash of the machine left ahead
            # of the log: start from the beginning.
            self._point = ResumePoint()
            self.spool.truncate(0, 0, 0)
            return
        self.spool.truncate(size, lines, aside)
        self.spool.gaps = gaps
        self._begun, self._ended = self._begun or begun, self._ended or ended
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

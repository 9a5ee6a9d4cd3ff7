"""Read the log of a job that runs on Podman (log driver `k8s-file`).

Podman cannot follow a log exactly. It reads the file while conmon writes it, sends half a line as a
whole one, and loses the other half ("not a valid container log line" in its own log; seen with 4.3.1).
So the text comes from readings that do not follow. Such a reading ends at the end of the file, and only
its last line can be half a line. A followed log says when to read again, and its text is not used.

Podman scans the file from its start for each reading, and sends only the lines from the given time on.
With 100,000 lines the scan takes about 0.3 s and sending all of them 1 s.
"""

from __future__ import annotations

import select
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backends.docker.container import PODMAN_LOG_DRIVER
from backends.docker.engine import Engine
from backends.docker.log import READ_SIZE, DockerLog
from stoke.backend.api import Frame, LogBehindError, LogEndingError, LogStream
from stoke.logs.resume import OVERLAP, clock_offset

SECOND = 1_000_000_000
# How long a last line has to stay the same before it counts as whole.
LINE_SECONDS = 0.05
# A silent log is read again after IDLE_SECONDS, or after IDLE_READINGS times the duration of a reading,
# in case Podman did not report a line.
IDLE_SECONDS = 5.0
IDLE_READINGS = 20


def open_podman_log(
    engine: Engine, job_id: str, since: int, follow: bool, has_ended: bool, max_size: int
) -> LogStream:
    """Open the log of a container; `has_ended` says that the container writes no more to it."""
    if has_ended:
        # Podman loses lines also where a log is followed whose container has ended.
        return DockerLog(engine, job_id, since, False, PODMAN_LOG_DRIVER, max_size, False)
    return PodmanLog(engine, job_id, since, follow, max_size)


class PodmanLog:
    """The log of a container that may still write to it; see `stoke.backend.api.LogStream`."""

    def __init__(
        self, engine: Engine, job_id: str, since: int, follow: bool, max_size: int
    ) -> None:
        self._engine = engine
        self._job_id = job_id
        self._max_size = max_size
        self._closed = threading.Event()
        self._readings = ReadingDiff(since)
        # Opened before the first reading, so that it reports all that the reading misses.
        self._growth = _GrowthReports(engine, job_id) if follow else None
        try:
            self._reading = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> DockerLog:
        since = self._readings.next_since()
        return DockerLog(
            self._engine, self._job_id, since, False, PODMAN_LOG_DRIVER, self._max_size, False
        )

    def close(self) -> None:
        self._closed.set()
        if self._growth is not None:
            self._growth.close()
        if hasattr(self, "_reading"):
            self._reading.close()

    def __iter__(self) -> Iterator[list[Frame]]:
        try:
            if self._growth is None:
                yield from self._read_twice()
            else:
                yield from self._follow(self._growth)
        finally:
            self.close()

    def _read_twice(self) -> Iterator[list[Frame]]:
        yield from self._read()
        if self._readings.unconfirmed is not None and not self._closed.wait(LINE_SECONDS):
            self._reopen()
            yield from self._read()
        if self._readings.unconfirmed is not None and not self._closed.is_set():
            raise LogEndingError(f"the last line of the log of {self._job_id} may be half written")

    def _follow(self, growth: _GrowthReports) -> Iterator[list[Frame]]:
        while True:
            began = time.monotonic()
            yield from self._read()
            ended = time.monotonic()
            took = ended - began
            if self._readings.unconfirmed is None:
                growth.wait(max(IDLE_SECONDS, IDLE_READINGS * took))
            # A job that prints all the time must not keep Podman reading all the time.
            next_reading = ended + max(LINE_SECONDS, took / 2)
            self._closed.wait(max(0, next_reading - time.monotonic()))
            if self._closed.is_set() or not growth.forget():
                return
            self._reopen()

    def _read(self) -> Iterator[list[Frame]]:
        try:
            yield from self._readings.new_frames(self._reading)
        except LogBehindError:
            if not self._closed.is_set():  # else `close` ended the reading early
                raise

    def _reopen(self) -> None:
        self._reading = self._open()
        if self._closed.is_set():  # `close` closed the one before
            self._reading.close()


class ReadingDiff:
    """Find what is new in each of many readings of one log, and which last line is complete."""

    def __init__(self, since: int) -> None:
        self._start = self._since = since
        # The frames given from `_start` on, and from `_since` on.
        self._all = _Progress()
        self._recent = _Progress()
        self._clock = clock_offset()
        self._monotonic = True
        self.unconfirmed: Frame | None = None
        """The last line of the log, until another reading finds it unchanged."""

    def next_since(self) -> int:
        """Return the time from which the next reading takes frames, in nanoseconds.

        That is the second of the newest frame, because Podman before 4.4 gives whole seconds. Where
        the clock went back, newer frames may have older times, so it is the start.
        """
        self._monotonic = self._monotonic and clock_offset() >= self._clock - OVERLAP
        if not self._monotonic:
            self._since, self._recent = self._start, self._all
        return self._since

    def new_frames(self, reading: Iterable[list[Frame]]) -> Iterator[list[Frame]]:
        """Give the new frames of a reading from `next_since` on, except for an unconfirmed last
        line.

        Raises `LogBehindError` if earlier frames are missing: Podman has begun another file.
        """
        given = self._recent
        met = _Progress()
        last: list[Frame] = []
        grown = False
        for batch in reading:
            new = batch[given.number - met.number :]
            if len(new) < len(batch):
                met = met.plus(batch[: len(batch) - len(new)])
            if not new:
                continue
            _check_same(met, given)
            whole = last + new[:-1]
            last = new[-1:]
            if whole:
                grown = True
                self._add(whole)
                yield whole
        _check_same(met, given)
        if last and last[0] == self.unconfirmed and not grown:
            self.unconfirmed = None
            self._add(last)
            yield last
        else:
            self.unconfirmed = last[0] if last else None

    def _add(self, frames: list[Frame]) -> None:
        self._all = self._all.plus(frames)
        if min(frame.time for frame in frames) < self._since:
            self._monotonic = False
        if not self._monotonic:
            return
        second = frames[-1].time - frames[-1].time % SECOND
        if second > self._since:
            self._since, self._recent = second, _Progress()
            frames = [frame for frame in frames if frame.time >= second]
        self._recent = self._recent.plus(frames)


class _Progress(NamedTuple):
    """A number of frames, and a checksum of their text."""

    number: int = 0
    checksum: int = 0

    def plus(self, frames: list[Frame]) -> _Progress:
        text = b"".join([frame.data for frame in frames])
        return _Progress(self.number + len(frames), zlib.crc32(text, self.checksum))


def _check_same(met: _Progress, given: _Progress) -> None:
    if met != given:
        raise LogBehindError("Podman no longer has the log that was read before")


class _GrowthReports:
    """A followed log of which only the arrival of bytes matters."""

    def __init__(self, engine: Engine, job_id: str) -> None:
        with engine.call(f"follow the log of {job_id}") as api:
            self._response = api._get(
                api._url("/containers/{0}/logs", job_id),
                # Podman sends its headers with the first line: with a tail of 0 that is the next one.
                params={"stdout": 1, "stderr": 1, "follow": 1, "tail": 1},
                # Podman then closes the connection at the end of the log.
                headers={"Connection": "close"},
                stream=True,
            )
            try:
                api._raise_for_status(self._response)
            except BaseException:
                self._response.close()
                raise
        # As in `DockerLog`: the socket below requests, urllib3 and http.client.
        self._socket: socket.socket = self._response.raw._fp.fp.raw._sock

    def wait(self, seconds: float) -> None:
        """Return once the log has grown or ended, `close` was called, or `seconds` passed."""
        try:
            select.select([self._socket], [], [], seconds)
        except (OSError, ValueError):  # closed
            pass

    def forget(self) -> bool:
        """Drop the reports so far. Return whether there can be more."""
        try:
            while select.select([self._socket], [], [], 0)[0]:
                if not self._socket.recv(READ_SIZE):
                    return False
        except (OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        try:
            # Wakes a thread that waits.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._response.close()

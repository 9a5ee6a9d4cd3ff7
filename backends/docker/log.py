"""A container's log, read directly from the engine's HTTP stream.

docker-py's reader drops the stream number, ends silently at a cut connection and takes one call a
line. The engine sends one HTTP chunk a line, so chunks and frames are decoded here, many a read.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, repeat
from typing import Any

from backends.common.chunked import ChunkedDecoder
from backends.common.stream_markers import decode_lines
from backends.docker.container import PODMAN_LOG_DRIVER
from backends.docker.engine import AnswerError, Engine
from stoke.backend.api import SILENCE_SECONDS, Frame, LogBehindError, LogDeniedError
from stoke.errors import EngineError
from stoke.logs.resume import OVERLAP

READ_SIZE = 256 * 1024
# The engine cuts lines at 16 KiB, so a longer frame is damage.
MAX_FRAME = 1024**2
HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR, ENGINE_FAILED = 1, 2, 3
# The engine follows the file that it writes. A reader that is more than a whole file behind when
# the file is rotated gets the newest file next: the lines between are skipped, and the newest may
# come twice. A reader cannot be that late if it caught up within the time that a file takes to fill
# at this speed, in bytes a second. (Without following, the engine reads all existing files and
# skips nothing.)
FASTEST = 400_000_000
# The most bytes that a sent byte takes in a file. JSON may write one as \\u0000; the `local` driver
# adds less than the stream does, except for parts of a long line.
LARGEST = {"local": 1.02}
LARGEST_ELSEWHERE = 6
# To serve lines from a time on, the engine reads its files from their start; for the last lines,
# from their end. A reader that has nearly all of a finished log first asks for this many last lines,
# and then for as many as an engine was seen to write within the overlap, at a microsecond each.
LAST_LINES = (1_000, 40_000)
# Podman before 4.4 omits the fraction; stoke.logs.resume then counts frames instead of seconds.
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{9})?(Z|[+-]\d\d:\d\d) ")


class FrameDecoder:
    """Decode the engine's frames: 8 bytes of header, a timestamp, the data.

    `failure` is set when nothing more can be read: the engine reported an error inside the stream,
    or the bytes are not a frame. Frames before that are still given.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._rest = b""
        # The last second seen and its zone, as text and as nanoseconds, so that most need no
        # parsing.
        self._second = b"?"
        self._zone = b""
        self._zone_at = 0
        self._epoch = 0

    @property
    def within(self) -> bool:
        """Whether the stream is in the middle of a frame."""
        return bool(self._rest)

    @property
    def between_frames(self) -> bool:
        """Whether the next bytes begin a frame."""
        return not (self._rest or self.failure)

    def feed(self, data: bytes) -> list[Frame]:
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= 8:
            stream, length = HEADER.unpack_from(data, at)
            if stream not in (STDOUT, STDERR, ENGINE_FAILED) or length > MAX_FRAME:
                self.failure = f"a frame of stream {stream} and {length} bytes"
                break
            start = at + 8
            stop = start + length
            if stop > end:
                break
            if stream == ENGINE_FAILED:
                self.failure = data[start:stop].decode(errors="replace").strip()
                break
            # Fixed width: 2006-01-02T15:04:05.000000000Z and a space, or +02:00 in place of Z.
            space = data.find(b" ", start, stop)
            zone = data[start + self._zone_at : space]
            known = data.startswith(self._second, start) and zone == self._zone
            if not known and not self._learn(data, start, stop):
                self.failure = "a line without a timestamp"
                break
            time = self._epoch + int(data[start + 20 : start + self._zone_at] or 0)
            frames.append(Frame(stream, time, data[space + 1 : stop]))
            at = stop
        self._rest = data[at:] if self.failure is None else b""
        return frames

    def _learn(self, data: bytes, start: int, stop: int) -> bool:
        """Parse the whole timestamp at `start`, once a second."""
        stamp = _STAMP.match(data, start, stop)
        if stamp is None:
            return False
        self._second = stamp[1] + (b"." if stamp[2] else b"")
        self._zone, self._zone_at = stamp[3], stamp.start(3) - start
        self._epoch = _epoch(stamp[1], stamp[3])
        return True


class LineDecoder:
    """`ChunkedDecoder` and `FrameDecoder` in one, much faster in the usual case: a chunk is a frame
    is a line.

    Blocks of such lines are decoded without a Python step for each. Everything else (parts of
    lines, ends, errors, lines cut between two reads) goes to the two other decoders.
    """

    def __init__(self, frames: FrameDecoder) -> None:
        self._chunks = ChunkedDecoder()
        self._frames = frames

    @property
    def ended(self) -> bool:
        return self._chunks.ended

    @property
    def failure(self) -> str | None:
        return self._frames.failure

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames. Raises `ValueError` if the body is not chunked."""
        chunks, frames = self._chunks, self._frames
        got: list[Frame] = []
        if left := chunks.left:
            got = frames.feed(chunks.feed(data[:left]))
            data = data[left:]
        else:
            data = chunks.take_rest() + data
        if frames.between_frames:
            lines, data = decode_whole_lines(data)
            got += lines
        if data and frames.failure is None:
            got += frames.feed(chunks.feed(data))
        return got


# A chunk's size, a frame's header and time, and a line with its end; or all remaining bytes, so
# that nothing between two lines can be skipped.
_LINE = re.compile(
    rb"(\r\n[0-9a-f]{1,5}\r\n[\x01\x02]\0\0\0[\0-\xff]{4})"
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z ([^\n]*\n)|([\0-\xff]+)"
)
_STAMP_SIZE = 31


def decode_whole_lines(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the complete lines at the beginning of `data`, and the rest.

    Returns no lines if one of them has another size than announced: that needs the slow decoders.
    """
    found = _LINE.findall(data)
    rest = b""
    if found and found[-1][4]:
        rest = found.pop()[4]
    if not found:
        return [], data
    heads, seconds, nanoseconds, texts, _ = zip(*found, strict=True)
    streams: dict[bytes, int] = {}
    for head, size in set(zip(heads, map(len, texts), strict=True)):
        stream, length = HEADER.unpack(head[-8:])
        if not length + 8 == size + _STAMP_SIZE + 8 == int(head[2:-10], 16):
            return [], data
        streams[head] = stream
    epochs = {second: _epoch(second, b"Z") for second in set(seconds)}
    whole = map(epochs.__getitem__, seconds)
    times = map(int.__add__, whole, map(int, nanoseconds))
    fields = zip(map(streams.__getitem__, heads), times, texts, strict=True)
    return list(map(tuple.__new__, repeat(Frame), fields)), rest


def _epoch(second: bytes, zone: bytes) -> int:
    """Return nanoseconds."""
    return int(datetime.fromisoformat((second + zone).decode()).timestamp()) * 1_000_000_000


class DockerLog:
    """One open connection to a container's log; see `stoke.backend.api.LogStream`.

    Raises `EngineError` if the container was removed or its log is unreadable, and `LogDeniedError`
    if the engine refuses it. A followed log that is silent for `SILENCE_SECONDS` ends, because a
    half-open connection cannot be told from a silent job. `driver` and `max_size` describe how the
    engine stores the log, and `tagged` says whether its lines are marked.
    """

    def __init__(
        self,
        engine: Engine,
        job_id: str,
        since: int,
        follow: bool,
        driver: str,
        max_size: int,
        tagged: bool,
    ) -> None:
        self._engine = engine
        self._job_id = job_id
        self._follow = follow
        self._tagged = tagged
        self._late = max_size * 1_000_000_000 // FASTEST
        # The last time at which this reader had caught up with the job; and the time up to which
        # the stream only repeats what was requested again, whose age says nothing.
        self._abreast = time.monotonic_ns()
        self._repeats_until = since + 2 * OVERLAP if since else 0
        # Bytes of the log's first file, which nothing precedes, that surely are still to come.
        first = int(max_size / LARGEST.get(driver, LARGEST_ELSEWHERE))
        self._first_left = first if since == 0 else 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._since = since
        # For the last lines, Podman joins the parts of a line, and a line with the next.
        self._from_end = since > 0 and not follow and driver != PODMAN_LOG_DRIVER
        try:
            self._open({"tail": LAST_LINES[0]} if self._from_end else self._by_time())
        except AnswerError as error:
            if error.status in (401, 403, 501):  # no right, or a log driver that cannot be read
                raise LogDeniedError(error.what, error.hint) from error
            raise

    def _by_time(self) -> dict[str, Any]:
        if self._since == 0:
            return {}
        # As text, because a float is off by up to 119 ns and the resume point is exact.
        second, fraction = divmod(self._since, 1_000_000_000)
        return {"since": f"{second}.{fraction:09d}"}

    def _open(self, where: dict[str, Any]) -> None:
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(self._follow), **where}
        with self._engine.call(f"read the log of {self._job_id}") as api:
            self._frames = FrameDecoder()
            self._response = api._get(
                api._url("/containers/{0}/logs", self._job_id),
                params=params,
                stream=True,
            )
            try:
                api._raise_for_status(self._response)
                # The buffered reader below urllib3 and http.client, and its socket: those two
                # return one chunk a call. docker-py reaches for them in the same way.
                self._chunked: bool = self._response.raw.chunked
                self._file = self._response.raw._fp.fp
                self._socket: socket.socket = self._file.raw._sock
            except BaseException:
                self._response.close()
                raise
        self._socket.settimeout(SILENCE_SECONDS)
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def __iter__(self) -> Iterator[list[Frame]]:
        try:
            for batch in self._from_end_or_time():
                if self._follow and self._is_behind(batch):
                    raise LogBehindError(f"the log of {self._job_id} is read too late")
                yield batch
        finally:
            self.close()

    def _from_end_or_time(self) -> Iterator[list[Frame]]:
        """Give batches that are not empty."""
        batches = self._job_batches()
        if not self._from_end:
            yield from batches
            return
        first = next(batches, [])
        for where in (*({"tail": lines} for lines in LAST_LINES[1:]), self._by_time()):
            if not first or first[0].time < self._since - OVERLAP:
                break
            # The requested lines may begin before these.
            self._open_again(where)
            batches = self._job_batches()
            first = next(batches, [])
        for batch in chain([first], batches):
            if new := [frame for frame in batch if frame.time >= self._since]:
                yield new

    def _open_again(self, where: dict[str, Any]) -> None:
        before = self._response
        try:
            self._open(where)
        finally:
            before.close()
        with self._lock:
            if self._closed.is_set():  # `close` closed the previous response.
                self._response.close()

    def _is_behind(self, batch: list[Frame]) -> bool:
        if self._first_left > 0:
            return False
        oldest = next((frame.time for frame in batch if frame.time > self._repeats_until), None)
        if oldest is None:
            return False
        self._repeats_until = 0
        # The age of a line depends on clocks that can be set, so the delay is measured on one that
        # cannot.
        if time.time_ns() - oldest < self._late:
            self._abreast = time.monotonic_ns()
        return time.monotonic_ns() - self._abreast > self._late

    def close(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        try:
            # Wakes a reader on another thread; closing the response does not.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._response.close()

    def _job_batches(self) -> Iterator[list[Frame]]:
        batches = filter(None, self._whole_batches())
        return map(decode_lines, batches) if self._tagged else batches

    def _whole_batches(self) -> Iterator[list[Frame]]:
        """Give `_batches`, and raise the reason if they end for another reason than the end of the
        log."""
        frames = self._frames
        for batch in self._batches():
            yield batch
            if frames.failure is not None:
                raise EngineError(
                    f"the engine cannot read the log of {self._job_id}: {frames.failure}"
                )
        if frames.within and not self._closed.is_set():
            raise self._cut("it ended inside a line")

    def _batches(self) -> Iterator[list[Frame]]:
        """Give the frames of each read until the engine ends the response or `close` is called."""
        lines = LineDecoder(self._frames)
        while not (self._closed.is_set() or lines.ended):
            try:
                if self._chunked:
                    data = self._file.read1(READ_SIZE)
                    batch = lines.feed(data) if data else []
                else:
                    data = self._response.raw.read1()
                    batch = self._frames.feed(data)
            except Exception as error:
                # A closed file, a reset connection, a TLS error or an invalid chunk: all mean a
                # cut.
                if self._closed.is_set():
                    return
                if isinstance(error, TimeoutError) and self._follow:
                    return  # After a long silence the follower asks again.
                raise self._cut(str(error)) from error
            self._first_left -= len(data)
            if not data:
                if self._chunked and not self._closed.is_set():
                    raise self._cut("the engine closed it")
                return
            yield batch

    def _cut(self, why: str) -> EngineError:
        return EngineError(f"the connection to the log of {self._job_id} was cut: {why}")

"""A container's log, read straight from the engine's stream.

docker-py's own reader drops the stream's number, ends quietly at a cut connection and costs a call
a line; the engine sends one HTTP chunk a line, so chunks and frames are taken apart here, many a
read.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from backends.docker.engine import Engine
from stoke.backend import Frame
from stoke.errors import EngineError
from stoke.logs.chunks import Chunks

READ_SIZE = 256 * 1024
# The engine cuts lines at 16 KiB; what is longer than this is no frame.
MAX_FRAME = 1024**2
# A frame of this size without a newline is a part of a line; the engine's buffer was full.
PART_SIZE = 16 * 1024
# Engines before 23.0 store the end of a line that came in parts and leave it out when they read it
# back from the `local` driver.
FIRST_WITH_WHOLE_LINES = (1, 42)
HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR, ENGINE_FAILED = 1, 2, 3
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) ")


class Frames:
    """Takes the engine's frames apart: 8 bytes of header, a timestamp, the data.

    `failure` says why nothing more can be read: the engine's own report from inside the stream, or
    bytes that are no frame. Frames before it are still given.

    `ends_lost` says that the engine leaves out the newline behind the last part of a line that came
    in parts; it is put back. What cannot be told there is a long line that really has no end, as the
    last of its stream: it gets one.
    """

    def __init__(self, ends_lost: bool = False) -> None:
        self._ends_lost = ends_lost
        self._in_parts: dict[int, int] = {}  # stream: time of a line whose last part is to come
        self.failure: str | None = None
        self._rest = b""
        # The last second seen and its zone, as text and as nanoseconds: few lines begin a new one.
        self._second = b"?"
        self._zone = b""
        self._epoch = 0

    @property
    def within(self) -> bool:
        """Whether the stream stands in the middle of a frame."""
        return bool(self._rest)

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
            known = data.startswith(self._second, start) and data[start + 29 : space] == self._zone
            if not known and not self._learn(data, start, stop):
                self.failure = "a line without a timestamp"
                break
            time = self._epoch + int(data[start + 20 : start + 29])
            text = data[space + 1 : stop]
            if self._ends_lost and (self._in_parts or stop - space > PART_SIZE):
                text = self._with_its_end(stream, time, text)
            frames.append(Frame(stream, time, text))
            at = stop
        self._rest = data[at:] if self.failure is None else b""
        return frames

    def _with_its_end(self, stream: int, time: int, text: bytes) -> bytes:
        """All parts of a line carry the same time, and all but the last are of the same size."""
        if len(text) == PART_SIZE and not text.endswith(b"\n"):
            self._in_parts[stream] = time
        elif self._in_parts.pop(stream, None) == time and not text.endswith(b"\n"):
            return text + b"\n"
        return text

    def _learn(self, data: bytes, start: int, stop: int) -> bool:
        """Reads the whole timestamp at `start`, once a second."""
        stamp = _STAMP.match(data, start, stop)
        if stamp is None:
            return False
        moment = datetime.fromisoformat((stamp[1] + stamp[3]).decode())
        self._second, self._zone = stamp[1] + b".", stamp[3]
        self._epoch = int(moment.timestamp()) * 1_000_000_000
        return True


class DockerLog:
    """One open connection to a container's log; see `stoke.backend.LogStream`.

    `EngineError` when the container has gone or its log cannot be read.
    """

    def __init__(self, engine: Engine, job_id: str, since: int, follow: bool) -> None:
        self._engine = engine
        self._job_id = job_id
        self._lock = threading.Lock()
        self._closed = threading.Event()
        params: dict[str, Any] = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow)}
        if since > 0:
            # As text: a float is off by up to 119 ns, and the resume point is exact.
            params["since"] = f"{since // 1_000_000_000}.{since % 1_000_000_000:09d}"
        with engine.call(f"read the log of {job_id}") as api:
            version = tuple(int(part) for part in api.api_version.split("."))
            self._frames = Frames(ends_lost=version < FIRST_WITH_WHOLE_LINES)
            self._response = api._get(
                api._url("/containers/{0}/logs", job_id),
                params=params,
                stream=True,
            )
            try:
                api._raise_for_status(self._response)
            except BaseException:
                self._response.close()
                raise
        # The buffered reader below urllib3 and http.client, and its socket: theirs give one chunk a
        # call. docker-py reaches for them in the same way.
        self._chunked: bool = self._response.raw.chunked
        self._file = self._response.raw._fp.fp
        self._socket: socket.socket = self._file.raw._sock
        # A job may be quiet for hours.
        self._socket.settimeout(None)
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def __iter__(self) -> Iterator[list[Frame]]:
        frames = self._frames
        try:
            for data in self._bodies():
                batch = frames.feed(data)
                if batch:
                    yield batch
                if frames.failure is not None:
                    raise EngineError(
                        f"the engine cannot read the log of {self._job_id}: {frames.failure}"
                    )
            if frames.within and not self._closed.is_set():
                raise self._cut("in the middle of a line")
        finally:
            self.close()

    def close(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        try:
            # Wakes a reader on another thread; closing alone would not.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._response.close()

    def _bodies(self) -> Iterator[bytes]:
        """What each read brings, without HTTP's framing, until the engine ends it or `close`."""
        chunks = Chunks()
        while not (self._closed.is_set() or chunks.ended):
            try:
                data = self._file.read1(READ_SIZE) if self._chunked else self._response.raw.read1()
                if data and self._chunked:
                    data, more = chunks.feed(data), True
                else:
                    more = bool(data)
            except Exception as error:
                # A closed file, a reset connection, TLS, no chunks: all of them a cut.
                if self._closed.is_set():
                    return
                raise self._cut(str(error)) from error
            if not more:
                if self._chunked and not self._closed.is_set():
                    raise self._cut("the engine closed it")
                return
            if data:
                yield data

    def _cut(self, why: str) -> EngineError:
        return EngineError(f"the connection to the log of {self._job_id} was cut: {why}")

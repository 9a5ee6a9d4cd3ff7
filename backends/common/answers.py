"""Read a server's response with limits on its size and duration, because a server may send anything."""

from __future__ import annotations

import http.client
import io
import time
import zlib
from collections.abc import Iterator
from typing import Any

MAX_ANSWER = 32 * 1024**2
READ_SIZE = 256 * 1024
SLOWEST_BYTES = 64 * 1024
SLOWEST_SECONDS = 300.0

# Interim responses ("100 Continue") and trailer lines accepted. No server that we use sends any.
MOST_EXTRAS = 20
# From the first byte of an answer to the end of its headers.
HEADER_SECONDS = 30.0


class _TimedReader(io.RawIOBase):
    """Read a socket until a time; a socket's own timeout starts again at each byte."""

    def __init__(self, below: Any) -> None:
        self._below = below
        self._sock = below._sock  # docker-py and log readers take the socket from here.
        self.seconds: float | None = None
        """The seconds that are left when the next byte has arrived."""
        self.until: float | None = None

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._below.fileno())

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._below.readinto(buffer)
        if self.seconds is not None:
            self.until, self.seconds = time.monotonic() + self.seconds, None
        if self.until is not None and time.monotonic() > self.until:
            raise TimeoutError("the answer takes too long")
        return count

    def close(self) -> None:
        self._below.close()
        super().close()


class BoundedResponse(http.client.HTTPResponse):
    """A response whose headers end within `HEADER_SECONDS`, and which has few interim answers and
    trailers; http.client reads both without a limit.

    Set it as the `response_class` of a connection.
    """

    _interim = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timed = _TimedReader(self.fp.detach())
        self.fp = io.BufferedReader(self._timed)

    def begin(self) -> None:
        self._timed.seconds = HEADER_SECONDS
        super().begin()
        self.limit_time(None)

    def limit_time(self, until: float | None) -> None:
        """Let a read after `until`, a time of `time.monotonic`, raise `TimeoutError`."""
        self._timed.until = until

    def _read_status(self) -> Any:
        self._interim += 1
        if self._interim > MOST_EXTRAS:
            raise http.client.HTTPException("too many interim responses")
        return super()._read_status()  # type: ignore[misc]

    def _read_and_discard_trailer(self) -> None:
        for _ in range(MOST_EXTRAS):
            if self.fp.readline(4096) in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException("too many trailer lines")


class TooLongAnswerError(ConnectionError):
    """The response exceeds its limit. Its connection cannot be used again."""


def limit_time(response: Any, until: float | None) -> None:
    """Have reads of an urllib3 response raise `TimeoutError` after `until`, a time of
    `time.monotonic`."""
    if isinstance(response._fp, BoundedResponse):
        response._fp.limit_time(until)


def read_body(response: Any, limit: int = MAX_ANSWER, until: float | None = None) -> bytes:
    """Return the whole body of an urllib3 response that was opened with `preload_content=False`.

    `until` is a time of `time.monotonic`. Raises `TooLongAnswerError` for more than `limit` bytes
    after decompression, `TimeoutError` if the body is incomplete at `until`, and `OSError` if it is
    cut.
    """
    pieces: list[bytes] = []
    size = 0
    limit_time(response, until)
    try:
        for piece in body_of(response):
            size += len(piece)
            if size > limit:
                raise TooLongAnswerError(f"the response is longer than {limit // 1024**2} MiB")
            if until is not None and time.monotonic() > until:
                raise TimeoutError("the response takes too long")
            pieces.append(piece)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return b"".join(pieces)


def body_of(response: Any, slowest: bool = False) -> Iterator[bytes]:
    """Give the body as it arrives, decompressed, in pieces of at most `READ_SIZE` bytes.

    With `slowest`, raises `TimeoutError` for less than `SLOWEST_BYTES` in `SLOWEST_SECONDS`, where a
    socket's own timeout starts again at each byte.

    Reads the http.client response below urllib3, because urllib3 reads the size of a chunk without
    a limit. Raises `OSError` if the body is cut or does not match its headers.
    """
    below = response._fp
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise ConnectionError(f"the response has an unknown compression: {encoding[:40]}")
    gzip = zlib.decompressobj(31) if encoding == "gzip" else None
    if below.length == 0:
        below.close()
    missing = 0
    while True:
        if slowest and missing <= 0:
            missing = SLOWEST_BYTES
            limit_time(response, time.monotonic() + SLOWEST_SECONDS)
        try:
            data = below.read1(READ_SIZE)
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionResetError("the response ended early") from error
        if not data:
            break
        missing -= len(data)
        if below.length == 0:
            below.close()  # Only a closed response frees its connection.
        if gzip is None:
            yield data
            continue
        if gzip.eof:
            # Not asked for, and perhaps without an end: the connection is of no further use.
            response.close()
            return
        while data:
            try:
                piece = gzip.decompress(data, READ_SIZE)
            except zlib.error as error:
                raise ConnectionError(f"the response is damaged: {error}") from error
            if piece:
                yield piece
            data = b"" if gzip.eof else gzip.unconsumed_tail
    # Read the last chunk after a compressed body, too: left there, it would become the begin of the
    # connection's next response.
    if below.length or (gzip is not None and not gzip.eof):
        raise ConnectionResetError("the response ended early")

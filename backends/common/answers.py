"""Read the answer of a server that may send anything: bounded in size and in time."""

from __future__ import annotations

import http.client
import time
import zlib
from collections.abc import Iterator
from typing import Any

MAX_ANSWER = 32 * 1024**2
READ_SIZE = 256 * 1024


# Of "100 Continue", and of lines behind the last chunk. No server that we talk to sends any.
MOST_EXTRAS = 20


class BoundedResponse(http.client.HTTPResponse):
    """A response without endless interim answers and trailers, which http.client reads for ever.

    A connection uses it as its `response_class`.
    """

    _interim = 0

    def _read_status(self) -> Any:
        self._interim += 1
        if self._interim > MOST_EXTRAS:
            raise http.client.HTTPException("too many interim answers")
        return super()._read_status()  # type: ignore[misc]

    def _read_and_discard_trailer(self) -> None:
        for _ in range(MOST_EXTRAS):
            if self.fp.readline(4096) in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException("too many lines behind the answer")


class TooLongAnswerError(ConnectionError):
    """An answer that goes on beyond its limit; the connection is of no further use."""


def read_body(response: Any, limit: int = MAX_ANSWER, until: float | None = None) -> bytes:
    """Return the whole body of an urllib3 response that was opened with `preload_content=False`.

    `until` is a time of `time.monotonic`. Raises `TooLongAnswerError` for more than `limit` bytes,
    counted after decompression, `TimeoutError` for a body that is still coming at `until`, and
    `OSError` for one that is cut.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in body_of(response):
            size += len(piece)
            if size > limit:
                raise TooLongAnswerError(f"the answer is longer than {limit // 1024**2} MiB")
            if until is not None and time.monotonic() > until:
                raise TimeoutError("the answer takes too long")
            pieces.append(piece)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return b"".join(pieces)


def body_of(response: Any) -> Iterator[bytes]:
    """The body as it comes, decompressed, in pieces of at most `READ_SIZE` bytes.

    The http.client response below urllib3 is read, because urllib3 reads the size of a chunk
    without a limit. Raises `OSError` where the body is cut or is not what its headers say.
    """
    below = response._fp
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise ConnectionError(
            f"the answer is compressed in a way nobody asked for: {encoding[:40]}"
        )
    gzip = zlib.decompressobj(31) if encoding == "gzip" else None
    if below.length == 0:
        below.close()
    while True:
        try:
            data = below.read1(READ_SIZE)
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionResetError("it ended in the middle") from error
        if not data:
            break
        if below.length == 0:
            below.close()  # Only then can its connection take another request.
        if gzip is None:
            yield data
            continue
        while data:
            try:
                piece = gzip.decompress(data, READ_SIZE)
            except zlib.error as error:
                raise ConnectionError(f"the answer is damaged: {error}") from error
            if piece:
                yield piece
            data = b"" if gzip.eof else gzip.unconsumed_tail
        if gzip.eof:
            return  # What comes behind the end is nothing that was asked for.
    if below.length or gzip is not None:
        raise ConnectionResetError("it ended in the middle")

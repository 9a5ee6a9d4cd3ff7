"""Read one file from a container, in whose place the job may have put anything."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from backends.common.answers import body_of

# Bytes of the archive beside the file: a header, attributes, and padding.
EXTRA = 64 * 1024


def read_file(api: Any, container: str, path: str, limit: int) -> bytes | None:
    """Return the content of a regular file in a container, or None if it is longer or not regular.

    Reads little more than `limit` bytes, because the archive of a folder or of a growing file may
    be endless. `api` is docker-py's client. Raises `AnswerError` if the file does not exist.
    """
    # docker-py's get_archive cannot end a response early.
    answer = api._get(
        api._url("/containers/{0}/archive", container), params={"path": path}, stream=True
    )
    with closing(answer):
        api._raise_for_status(answer)
        pieces = body_of(answer.raw, slowest=True)
        reader = io.BufferedReader(_LimitedReader(pieces, limit + EXTRA))
        try:
            with tarfile.open(fileobj=reader, mode="r|") as archive:
                first = archive.next()
                if first is None or not first.isreg() or first.issparse() or first.size > limit:
                    return None
                file = archive.extractfile(first)
                return None if file is None else file.read()
        except (tarfile.TarError, EOFError, ValueError, RecursionError):
            return None


class _LimitedReader(io.RawIOBase):
    """A file over chunks, which raises `EOFError` after a number of bytes."""

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        super().__init__()
        self._chunks = chunks
        self._left = limit
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
            self._left -= len(self._rest)
            if self._left < 0:
                raise EOFError
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

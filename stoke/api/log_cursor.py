"""A position in a job's log, from which its exact bytes are read on as the log grows.

A position is a number of bytes from the beginning of the saved log, which holds both streams and the
notes of stoke in their order. It stays valid when another process follows the job, and after the end of
the server.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from stoke.logs.spool import NOTE, STDERR, STDOUT, LogSource, SpoolReader

NAMES = {STDOUT: "stdout", STDERR: "stderr", NOTE: "note"}
PIECE = 64 * 1024
"""Bytes that one piece holds at most."""
_ROWS = 2048


class LogPiece(NamedTuple):
    """Consecutive bytes of one stream; `end` is the position after them."""

    stream: int
    data: bytes
    time: int
    end: int


class LogCursor:
    """Not safe to use from several threads at once."""

    def __init__(self, source: LogSource, position: int = 0) -> None:
        self._reader = SpoolReader(source)
        self.position = position
        self._row = -1
        """The row that the position is in; -1 until it is known."""

    def size(self) -> int:
        """Return the bytes that the log has now."""
        return self._reader.size()[0]

    def next(self) -> LogPiece | None:
        """Return the bytes after the position and move it; None if there are none yet.

        Also None while a new follower, which has truncated the log, reads it again up to the position.
        """
        size, rows = self._reader.size()
        if size <= self.position:
            return None
        if self._row < 0:
            found = bisect_right(range(rows), self.position, key=self._offset)
            self._row = max(0, found - 1)
        # One more row tells where the last one ends.
        here = self._reader.rows(self._row, _ROWS + 1)
        if not here or here[0][0] > self.position:
            self._row = -1  # The log was truncated, and its rows are others now.
            return None
        at = 0
        while at + 1 < len(here) and here[at + 1][0] <= self.position:
            at += 1
        stream = here[at][2]
        last = at
        limit = min(size, self.position + PIECE)
        while last + 1 < len(here) and here[last + 1][2] == stream and here[last + 1][0] < limit:
            last += 1
        end = here[last + 1][0] if last + 1 < len(here) else size
        if last == len(here) - 1 and len(here) == _ROWS + 1:
            end = here[last][0]  # The end of the last row is not known.
        end = min(end, limit)
        data = self._reader.read(self.position, end)
        if not data:
            return None
        self.position += len(data)
        self._row += last
        return LogPiece(stream, data, here[at][1], self.position)

    def _offset(self, row: int) -> int:
        found = self._reader.rows(row, 1)
        return found[0][0] if found else 1 << 62

    def close(self) -> None:
        self._reader.close()

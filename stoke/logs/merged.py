"""The logs of several jobs as one spool, its rows in the order of their times.

The rows are copied into a temporary folder, in the format of `stoke.logs.spool`. So whatever reads a
spool reads this one: the log window, search, filters and saving.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from stoke.errors import StokeError
from stoke.logs.search import PIECE
from stoke.logs.spool import LogSource, SpoolReader

MOST_JOBS = 50
"""Each log takes two open files."""
_ROWS = 16 * 1024
_LATEST = 1 << 62
# Between two pieces of the logs, so that drawing gets Python's lock.
_REST_SECONDS = 0.0005


class MergedLog:
    """Copies the logs in `sources`, by job, into `folder`, until `close` removes that.

    One thread calls `update`; others may read the folder and ask for the jobs of rows meanwhile.
    """

    def __init__(self, sources: Mapping[str, LogSource]) -> None:
        self.job_ids = tuple(sources)
        if len(sources) > MOST_JOBS:
            raise StokeError(f"at most {MOST_JOBS} logs are shown as one", "mark fewer jobs")
        try:
            self._temporary = tempfile.TemporaryDirectory(
                prefix="stoke-log-", ignore_cleanup_errors=True
            )
            self.folder = Path(self._temporary.name)
            self._log = open(self.folder / "log", "ab", buffering=0)  # noqa: SIM115
            self._index = open(self.folder / "log.idx", "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _cannot_write(error) from error
        self._owners = array("B")
        self._inputs = [_Input(source) for source in sources.values()]
        self._bytes = 0

    def owner(self, row: int) -> int:
        """Return the place in `job_ids` of the job that printed a row."""
        return self._owners[row]

    def update(self, ended: Collection[str]) -> int:
        """Append what the logs have gained; return the number of rows.

        An unfinished last line waits, except for the jobs in `ended`. Rows that arrive later than
        younger ones of other jobs are below those. Raises `StokeError` if the copy cannot be written.
        """
        known = len(self._owners)
        for job_id, log in zip(self.job_ids, self._inputs, strict=True):
            log.look(job_id in ended)
        try:
            while self._take():
                time.sleep(_REST_SECONDS)
        except OSError as error:
            raise _cannot_write(error) from error
        return len(self._owners) - known

    def _take(self) -> bool:
        """Copy the rows in memory that come before all others; return whether there were any."""
        for log in self._inputs:
            log.fill()
        # Rows that are not in memory are no older than the last one of their log that is.
        partly = [
            (log.times[-1], number) for number, log in enumerate(self._inputs) if log.has_more
        ]
        limit, last = min(partly, default=(_LATEST, len(self._inputs)))
        times, owners, sizes, stamps = list[int](), list[int](), list[int](), list[int]()
        texts: list[bytes | _LongRow] = []
        for number, log in enumerate(self._inputs):
            first, end = log.take(limit, number <= last)
            times += log.times[first:end]
            owners += [number] * (end - first)
            sizes += log.sizes[first:end]
            stamps += log.stamps[first:end]
            texts += log.texts[first:end]
        # Stable: rows of equal times keep the order of the jobs, and that within a job.
        order = sorted(range(len(times)), key=times.__getitem__)
        rows = array("Q", bytes(16 * len(order)))
        offsets = accumulate((sizes[at] for at in order), initial=self._bytes)
        rows[0::2] = array("Q", list(offsets)[:-1])
        rows[1::2] = array("Q", [stamps[at] for at in order])
        if sys.byteorder == "big":
            rows.byteswap()
        # A reader of a spool expects rows before their bytes, and asks for the jobs of rows it knows.
        self._owners.extend([owners[at] for at in order])
        _write(self._index, rows.tobytes())
        self._bytes += sum(sizes)
        self._write_texts([texts[at] for at in order])
        return bool(order)

    def _write_texts(self, texts: list[bytes | _LongRow]) -> None:
        short: list[bytes] = []
        for text in texts:
            if isinstance(text, bytes):
                short.append(text)
                continue
            _write(self._log, b"".join(short))
            short.clear()
            for piece in text.pieces():
                _write(self._log, piece)
        _write(self._log, b"".join(short))

    def close(self) -> None:
        """Remove the copy. Not while `update` runs."""
        for log in self._inputs:
            log.reader.close()
        self._log.close()
        self._index.close()
        self._temporary.cleanup()


class _LongRow:
    """A row that is copied in pieces: it may be as long as its log."""

    def __init__(self, reader: SpoolReader, start: int, end: int) -> None:
        self._reader, self._start, self._end = reader, start, end

    def pieces(self) -> Iterator[bytes]:
        for at in range(self._start, self._end, PIECE):
            yield self._reader.read(at, min(self._end, at + PIECE))


class _Input:
    """One log; of its next rows in memory: times in nanoseconds, sizes, stamps and bytes.

    A time is never before that of the row above, since the order within a job is kept.
    """

    def __init__(self, source: LogSource) -> None:
        self.reader = SpoolReader(source)
        self.times: list[int] = []
        self.sizes: list[int] = []
        self.stamps: array[int] = array("Q")
        self.texts: list[bytes | _LongRow] = []
        self._at = self._loaded = self._rows = self._size = self._time = 0

    @property
    def has_more(self) -> bool:
        """Whether there are rows that are not in memory."""
        return self._loaded < self._rows

    def look(self, has_ended: bool) -> None:
        """Look for new rows."""
        self._size, rows = self.reader.size()
        if rows and not has_ended and self.reader.read(self._size - 1, self._size) != b"\n":
            rows -= 1
        # A new follower may have cut the log to its checkpoint: the same rows come again.
        self._rows = max(self._loaded, rows)

    def fill(self) -> None:
        """Read the next rows, a megabyte or one row, once those in memory are taken."""
        if self._at < len(self.times):
            return
        count = min(_ROWS, self._rows - self._loaded)
        starts, self.stamps = self.reader.columns(self._loaded, count + 1 if count else 0)
        if len(starts) == count:
            starts.append(self._size)
        starts = starts[: max(2, bisect_right(starts, starts[0] + PIECE))] if starts else starts
        self.stamps = self.stamps[: max(0, len(starts) - 1)]
        times = accumulate((stamp >> 2 for stamp in self.stamps), max, initial=self._time)
        _, *self.times = times
        self.sizes = [end - start for start, end in pairwise(starts)]
        self.texts = self._read(starts)
        self._at = 0
        self._loaded += len(self.stamps)
        if not self.stamps:
            self._rows = self._loaded  # The log was cut meanwhile.
        else:
            self._time = self.times[-1]

    def _read(self, starts: array[int]) -> list[bytes | _LongRow]:
        if not starts:
            return []
        base, end = starts[0], starts[-1]
        if end - base > PIECE:
            return [_LongRow(self.reader, base, end)]
        data = self.reader.read(base, end)
        return [data[start - base : stop - base] for start, stop in pairwise(starts)]

    def take(self, limit: int, with_limit: bool) -> tuple[int, int]:
        """Take the rows in memory before a time, or up to it; return their range."""
        first = self._at
        cut = bisect_right if with_limit else bisect_left
        self._at = cut(self.times, limit, first)
        return first, self._at


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file.fileno(), view) :]


def _cannot_write(error: OSError) -> StokeError:
    return StokeError(
        f"cannot write the logs as one in {tempfile.gettempdir()}: {error.strerror}",
        "name another folder: export TMPDIR=/some/folder",
    )

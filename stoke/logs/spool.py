"""The spool: one job's output on this machine, as raw bytes and an index.

`log` holds the job's bytes as they came, both streams mixed. `log.idx` holds one row per line, of 16
bytes, little endian: the offset in `log` where the line begins, and its time in epoch nanoseconds
shifted left by two, with the stream in the low bits (1 stdout, 2 stderr, 3 a note of stoke). A new row
begins after a newline and wherever the stream changes, so a row is what a screen shows as a line, and a
reader that writes each row to its stream reproduces the job's bytes exactly. If a newline comes after
rows of the other stream, it is at the beginning of its stream's next row and is not a line of its own.

`log.engine` holds lines that the engine itself wrote into the job's log. They are not part of the
output and have no rows.

One writer at a time (the follower holds the file lock), any number of readers.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path

from stoke.errors import EngineError
from stoke.files.paths import make_private
from stoke.files.untrusted import NotRegularError, read_json, regular
from stoke.logs.fallback import LogLocation

# A checkpoint has a key for each frame of the overlap: 1.6 MB while a job prints fast.
MAX_CHECKPOINT = 64 * 1024**2
ROW = struct.Struct("<QQ")
STDOUT, STDERR, NOTE = 1, 2, 3
ENGINE_LOG = "log.engine"
# The spool leaves this much of a disk to the history, at most a sixteenth of it.
_MARGIN_SHARE = 16
_MOST_MARGIN = 4 << 20
# How much a reader reads at once.
_ROWS = 4096
_BYTES = 4 << 20


@dataclass(frozen=True)
class LogLine:
    """One row of the spool. `text` is raw, with its newline if it has one; `time` is in nanoseconds;
    `cut` is the number of bytes left out of `text`."""

    number: int
    stream: int
    time: int
    text: bytes
    cut: int = 0


class SpoolWriter:
    """Append to a spool. `flush` makes the additions visible to readers.

    Rows are written before their bytes, so that no reader assigns a byte to the wrong stream.
    """

    def __init__(self, folder: Path) -> None:
        make_private(folder)
        self._folder = folder
        try:
            self._log = open(folder / "log", "ab", buffering=0, opener=regular)  # noqa: SIM115
            self._index = open(folder / "log.idx", "ab", buffering=0, opener=regular)  # noqa: SIM115
        except OSError as error:
            raise cannot_save(folder, error) from error
        self.bytes = self._log.tell()
        self.lines = self._index.tell() // ROW.size
        self.gaps = 0
        self._aside = folder / ENGINE_LOG
        try:
            self.aside_bytes = self._aside.stat().st_size
        except FileNotFoundError:
            self.aside_bytes = 0
        self._bytes_waiting: list[bytes] = []
        self._rows_waiting: list[bytes] = []
        # The stream whose line is unfinished; None at the beginning of a line.
        self._open_stream: int | None = None
        # Streams whose line is unfinished and is followed by rows of the other stream.
        self._interrupted: set[int] = set()
        # Whether the last row has only a late newline so far. That newline ends an earlier line, and
        # the stream's next line belongs to this row.
        self._late = False
        self._find_unfinished_lines()

    def _find_unfinished_lines(self) -> None:
        """Find the streams with an unfinished line from the last rows of each stream."""
        if not self.lines:
            return
        first = max(0, self.lines - _ROWS)
        with open(self._folder / "log.idx", "rb") as index:
            index.seek(first * ROW.size)
            rows = list(ROW.iter_unpack(index.read((self.lines - first) * ROW.size)))
        starts = [offset for offset, _ in rows]
        last: dict[int, list[tuple[int, int]]] = {}
        for (start, stamp), end in zip(rows, [*starts[1:], self.bytes], strict=True):
            last[stamp & 3] = [*last.get(stamp & 3, [])[-1:], (start, end)]
        with open(self._folder / "log", "rb") as log:

            def is_whole(row: tuple[int, int]) -> bool:
                log.seek(row[1] - 1)
                return log.read(1) == b"\n"

            for stream in (STDOUT, STDERR):
                *before, row = last.get(stream, [(0, 0)])
                late = row[1] - row[0] == 1 and before != [] and not is_whole(before[0])
                if row[1] == 0 or (is_whole(row) and not late):
                    continue
                if row[1] == self.bytes:
                    self._open_stream, self._late = stream, late and is_whole(row)
                elif not (late and is_whole(row)):
                    self._interrupted.add(stream)

    def truncate(self, size: int, lines: int, aside: int) -> None:
        """Truncate the spool to a checkpoint; the follower fetches the rest again."""
        if self.aside_bytes > aside:
            os.truncate(self._aside, aside)
        self._log.truncate(size)
        self._index.truncate(lines * ROW.size)
        self._log.close()
        self._index.close()
        self.__init__(self._folder)  # type: ignore[misc]

    def add(self, stream: int, time: int, data: bytes) -> None:
        """Add bytes of one stream of the job; `time` is that of their first byte."""
        if not data:
            return
        stamp = time << 2 | stream
        at = self.bytes
        rows = self._rows_waiting
        newline = data.find(b"\n")
        last = len(data) - 1
        late = False
        if self._open_stream != stream or stream == NOTE:
            rows.append(ROW.pack(at, stamp))
            self.lines += 1
            if newline == 0 and stream in self._interrupted:
                newline = data.find(b"\n", 1) if last else -1
                late = not last
            if self._open_stream not in (None, NOTE) and not self._late:
                self._interrupted.add(self._open_stream)
            self._interrupted.discard(stream)
        self._late = late
        if -1 < newline < last:
            sizes = _line_sizes(data[newline + 1 :])
            self._add_rows(at + newline + 1, sizes, repeat(stamp, len(sizes)))
        self._open_stream = None if newline >= 0 and data.endswith(b"\n") else stream
        self._bytes_waiting.append(data)
        self.bytes += len(data)

    def add_all(self, stream: int, times: Sequence[int], pieces: Sequence[bytes]) -> None:
        """Add many pieces of one stream; fast if each piece is a whole line."""
        self.add(stream, times[0], pieces[0])
        if len(pieces) > 2 and self._open_stream is None:
            between = pieces[1:-1]
            data = b"".join(between)
            sizes = list(map(len, between))
            if data.endswith(b"\n") and _line_sizes(data) == sizes:
                stamps = [time << 2 | stream for time in times[1:-1]]
                self._add_rows(self.bytes, sizes, stamps)
                self._bytes_waiting.append(data)
                self.bytes += len(data)
                times, pieces = times[-2:], pieces[-2:]
        for time, piece in zip(times[1:], pieces[1:], strict=True):
            self.add(stream, time, piece)

    def _add_rows(self, start: int, sizes: list[int], stamps: Iterable[int]) -> None:
        """Add rows for consecutive lines of these sizes, beginning at `start`."""
        rows = array("Q", bytes(ROW.size * len(sizes)))
        rows[0::2] = array("Q", accumulate(sizes[:-1], initial=start))
        rows[1::2] = array("Q", stamps)
        if sys.byteorder == "big":
            rows.byteswap()
        self._rows_waiting.append(rows.tobytes())
        self.lines += len(sizes)

    def note(self, time: int, text: str) -> None:
        """Add a line of stoke, such as a gap. It is shown in its place, marked as not the job's."""
        self.add(NOTE, time, text.encode() + b"\n")

    def put_aside(self, data: bytes) -> None:
        """Write lines of the engine, all or nothing; they are few and do not wait for `flush`."""
        try:
            with open(self._aside, "ab", buffering=0, opener=regular) as aside:
                try:
                    _write(aside, data)
                except OSError:
                    aside.truncate(self.aside_bytes)
                    raise
        except OSError as error:
            raise cannot_save(self._folder, error) from error
        self.aside_bytes += len(data)

    def flush(self) -> None:
        """Write the additions, all or nothing.

        If the disk is full they stay in memory, and the files stay complete and readable.
        """
        if not self._bytes_waiting:
            return
        data, rows = b"".join(self._bytes_waiting), b"".join(self._rows_waiting)
        try:
            _check_room(self._log.fileno(), len(rows) + len(data))
            _write(self._index, rows)
            _write(self._log, data)
        except OSError as error:
            self._log.truncate(self.bytes - len(data))
            self._index.truncate(self.lines * ROW.size - len(rows))
            raise cannot_save(self._folder, error) from error
        self._bytes_waiting.clear()
        self._rows_waiting.clear()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._log.close()
            self._index.close()


def cannot_save(folder: Path, error: OSError) -> EngineError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return EngineError(
        f"cannot save the log in {folder}: {error.strerror}",
        f"{'make room there' if full else 'make it writable'}, or name another folder: "
        "export STOKE_STATE_DIR=/some/folder",
    )


def _check_room(descriptor: int, size: int) -> None:
    """Raise ENOSPC before the last bytes of the disk are used."""
    disk = os.fstatvfs(descriptor)
    margin = min(_MOST_MARGIN, disk.f_blocks * disk.f_frsize // _MARGIN_SHARE)
    if disk.f_bavail * disk.f_frsize < margin + size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _line_sizes(data: bytes) -> list[int]:
    """Return the size of each line, newline included; the last line may have none."""
    sizes = [size + 1 for size in map(len, data.split(b"\n"))]
    sizes[-1] -= 1
    if not sizes[-1]:
        sizes.pop()
    return sizes


def _write(file: object, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file.fileno(), view) :]  # type: ignore[attr-defined]


LogSource = Path | LogLocation
"""What a reader reads: a spool's folder, or the location of a log that may move to another one."""


class SpoolReader:
    """Read a spool that may still grow. Missing files are an empty spool.

    With a `LogLocation`, every call reads from the folder that is current then.
    """

    def __init__(self, source: LogSource) -> None:
        self._location = source if isinstance(source, LogLocation) else LogLocation(source)
        self._folder = self._location.current
        self._log: int | None = None
        self._index: int | None = None

    def _open(self) -> bool:
        while True:
            folder = self._location.current
            if folder != self._folder:
                self.close()
                self._folder = folder
            if self._log is not None:
                return True
            try:
                self._log = regular(folder / "log", os.O_RDONLY | os.O_CLOEXEC)
                self._index = regular(folder / "log.idx", os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotRegularError):
                self.close()
                if folder == self._location.current:
                    return False  # Otherwise the log moved in between.
            except OSError:
                self.close()
                raise

    def size(self) -> tuple[int, int]:
        """Return (bytes, rows) that can be read now: every byte has its row, every row has a byte."""
        if not self._open():
            return 0, 0
        assert self._log is not None and self._index is not None
        # In this order, because rows are written before their bytes.
        size = os.fstat(self._log).st_size
        rows = os.fstat(self._index).st_size // ROW.size
        if rows and self._offset(rows - 1) >= size:
            rows = bisect_left(range(rows), size, key=self._offset)
        return size, rows

    def _offset(self, row: int) -> int:
        assert self._index is not None
        data = os.pread(self._index, ROW.size, row * ROW.size)
        if len(data) < ROW.size:
            return 1 << 63  # A new follower has just truncated the spool.
        offset: int = ROW.unpack(data)[0]
        return offset

    def gaps(self) -> int:
        """Return how many gap notes the log has, by the follower's checkpoint."""
        try:
            gaps = read_json(self._location.current / "log.pos", MAX_CHECKPOINT)["gaps"]
        except (OSError, ValueError, LookupError, TypeError):
            return 0
        return gaps if isinstance(gaps, int) else 0

    def rows(self, first: int, count: int) -> list[tuple[int, int, int]]:
        """Return (offset, time, stream) of `count` rows from `first` on; fewer at the end."""
        if count <= 0 or not self._open():
            return []
        assert self._index is not None
        data = os.pread(self._index, count * ROW.size, first * ROW.size)
        whole = len(data) - len(data) % ROW.size
        return [(offset, stamp >> 2, stamp & 3) for offset, stamp in ROW.iter_unpack(data[:whole])]

    def columns(self, first: int, count: int) -> tuple[array[int], array[int]]:
        """Return (offsets, stamps) of up to `count` rows from `first` on.

        A stamp is time << 2 | stream. The same data as `rows`, fast enough for millions of rows.
        """
        cells = array("Q")
        if count > 0 and self._open():
            assert self._index is not None
            data = os.pread(self._index, count * ROW.size, first * ROW.size)
            cells.frombytes(data[: len(data) - len(data) % ROW.size])
            if sys.byteorder == "big":
                cells.byteswap()
        return cells[0::2], cells[1::2]

    def read(self, start: int, end: int) -> bytes:
        """Return the raw bytes [start, end) of the log."""
        if end <= start or not self._open():
            return b""
        assert self._log is not None
        parts = []
        while start < end:
            part = os.pread(self._log, min(end - start, 1 << 20), start)
            if not part:
                break
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def first_since(self, time: int) -> int:
        """Return the number of the first row that is not older than `time` (nanoseconds)."""
        _, rows = self.size()
        return bisect_left(range(rows), time, key=lambda row: self._row_time(row))

    def _row_time(self, row: int) -> int:
        found = self.rows(row, 1)
        return found[0][1] if found else 1 << 62

    def lines(
        self, first: int = 0, count: int | None = None, longest: int | None = None
    ) -> Iterator[LogLine]:
        """Yield lines from number `first` (0-based) on; the last line may still be growing.

        At most `longest` bytes of a line are read; its `cut` is the number of bytes left out.
        """
        size, total = self.size()
        end = total if count is None else min(total, first + count)
        number = first
        while number < end:
            rows = self.rows(number, min(_ROWS, end - number) + 1)
            here = rows[: min(_ROWS, end - number)]
            if not here:
                return
            stops = [row[0] for row in rows[1:]]
            if len(stops) < len(here):
                stops.append(size)
            base = here[0][0]
            # Limit what is read at once: a line may be as long as the log.
            fitting = max(1, bisect_right(stops, base + _BYTES))
            here, stops = here[:fitting], stops[:fitting]
            stop = stops[-1]
            if fitting == 1 and longest is not None:
                stop = min(stop, base + longest)
            data = self.read(base, stop)
            for (offset, time, stream), after in zip(here, stops, strict=True):
                until = after if longest is None else min(after, offset + longest)
                yield LogLine(
                    number, stream, time, data[offset - base : until - base], after - until
                )
                number += 1

    def close(self) -> None:
        for descriptor in (self._log, self._index):
            if descriptor is not None:
                os.close(descriptor)
        self._log = self._index = None

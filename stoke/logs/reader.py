"""Search a spool, find errors and times in it, and save it as a file.

Everything here reads the log in pieces, so memory does not grow with the log, and works on any thread.
The log may grow in the meantime, and a new follower may truncate it to its checkpoint.
"""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stoke.errors import RequestError, StokeError
from stoke.files.atomic import replacing
from stoke.logs.search import ERRORS, PART_OVERLAP, PIECE, Block, Query
from stoke.logs.spool import NOTE, STDERR, LogSource, SpoolReader
from stoke.text.sanitize import clean_line

_ROWS = 32 * 1024
NOTE_MARK = "-- "
"""The mark of stoke's own lines wherever they are shown or saved."""


class Piece(NamedTuple):
    """Some rows of a log, or a part of a row that is longer than a piece."""

    first: int
    """The number of the first row."""
    block: Block
    stamps: array[int]


def pieces(reader: SpoolReader, first: int, end: int, size: int) -> Iterator[Piece]:
    """Yield the rows [first, end) of a log of `size` bytes, a megabyte at a time."""
    while first < end:
        count = min(_ROWS, end - first)
        offsets, stamps = reader.columns(first, count + 1)
        if len(offsets) <= count:
            # The log ends here or earlier: a new follower has truncated it.
            count = len(offsets)
            offsets.append(size)
        at = 0
        while at < count:
            base = offsets[at]
            stop = max(at + 1, min(count, bisect_right(offsets, base + PIECE) - 1))
            starts = offsets[at : stop + 1]
            length = starts[-1] - base
            if length > PIECE + PART_OVERLAP:
                for block in parts(reader, base, base + length):
                    yield Piece(first + at, block, stamps[at:stop])
            else:
                data = reader.read(base, base + length)
                if len(data) < length:
                    return
                yield Piece(first + at, Block(data, starts), stamps[at:stop])
            at = stop
        if not count:
            return
        first += count


def parts(reader: SpoolReader, start: int, end: int) -> Iterator[Block]:
    """Yield one long row, the bytes [start, end) of a log, in parts that overlap."""
    for at in range(start, end, PIECE):
        stop = min(end, at + PIECE + PART_OVERLAP)
        data = reader.read(at, stop)
        yield Block(data, array("Q", [at, at + len(data)]), (at == start, stop == end))
        if stop == end:
            return


class Matches:
    """The rows of one spool that match all of `queries`, in order.

    `scan` runs on one thread at a time; other threads may use everything else at the same time.
    """

    def __init__(self, source: LogSource, *queries: Query) -> None:
        self.queries = queries
        self.rows = array("I")
        self.scanned = 0
        """Rows scanned so far; the last one is scanned again while it has no newline."""
        self.whole = False
        """Whether the whole log, as it was at some time, has been scanned."""
        self._in_parts: set[int] = set()
        """Which queries the row that comes in parts has matched so far."""
        self._source = source
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End `scan` within one piece."""
        self._cancelled.set()

    def scan(self, progress: Callable[[], object] = lambda: None) -> None:
        """Scan what the spool has gained since the last call. `progress` is called often."""
        reader = SpoolReader(self._source)
        try:
            size, total = reader.size()
            if total < self.scanned:
                # A new follower has truncated the log, and it is unknown how far.
                self.rows, self.scanned = array("I"), 0
            for piece in pieces(reader, self.scanned, total, size):
                if self._cancelled.is_set():
                    return
                self._take(piece)
                progress()
            if self.scanned and reader.read(size - 1, size) != b"\n":
                self.scanned -= 1
            self.whole = True
        finally:
            reader.close()

    def _take(self, piece: Piece) -> None:
        each = [list(query.rows(piece.block)) for query in self.queries]
        if piece.block.part is not None:
            if piece.block.part[0]:
                self._in_parts.clear()
            self._in_parts.update(number for number, rows in enumerate(each) if rows)
            found = [0] if len(self._in_parts) == len(each) else []
        else:
            found = sorted(set(each[0]).intersection(*each[1:]))
        known = self.rows[-1] if self.rows else -1
        if known == piece.first and piece.first >= self.scanned and 0 not in found:
            # The last row has changed since it was scanned: a progress bar.
            self.rows.pop()
        self.rows.extend(piece.first + row for row in found if piece.first + row > known)
        self.scanned = piece.first + piece.block.rows

    def after(self, row: int) -> int | None:
        """Return the first match after `row`; None if there is none."""
        at = bisect_right(self.rows, row)
        return self.rows[at] if at < len(self.rows) else None

    def before(self, row: int) -> int | None:
        """Return the last match before `row`; None if there is none."""
        at = bisect_left(self.rows, row)
        return self.rows[at - 1] if at else None

    def place(self, row: int) -> int | None:
        """Return the number of this row among the matches, counted from 1; None if it is no match."""
        at = bisect_left(self.rows, row)
        return at + 1 if at < len(self.rows) and self.rows[at] == row else None


# --- errors ---------------------------------------------------------------------------------------

# Lines that logging and progress bars write to stderr although nothing is wrong.
_CALM = re.compile(r"\b(?:TRACE|DEBUG|INFO|NOTICE)\b|\d%\|")
_MOST_BACK = 1000


def next_error(source: LogSource, row: int, step: int, cancelled: Callable[[], bool]) -> int | None:
    """Return the nearest error after (`step` 1) or before (-1) `row`; None if there is none.

    An error is a line that reports one, or the first line on stderr after stdout. A traceback, and
    lines right below that are indented or report errors, belong to the same error.
    """
    reader = SpoolReader(source)
    try:
        size, total = reader.size()
        for first, end in _stretches(row, step, total):
            found = []
            for piece in pieces(reader, first, end, size):
                if cancelled():
                    return None
                found += _errors_in(reader, piece)
            known = set(found)
            for hit in found if step > 0 else reversed(found):
                if hit - 1 not in known and not _belongs_to_another(reader, hit):
                    return hit
        return None
    finally:
        reader.close()


def _stretches(row: int, step: int, total: int) -> Iterator[tuple[int, int]]:
    if step > 0:
        yield from ((at, min(at + _ROWS, total)) for at in range(row + 1, total, _ROWS))
    else:
        yield from ((max(0, at - _ROWS), at) for at in range(min(row, total), 0, -_ROWS))


def _errors_in(reader: SpoolReader, piece: Piece) -> list[int]:
    found = {piece.first + row for row in ERRORS.rows(piece.block)}
    before = reader.rows(piece.first - 1, 1)[0][2] if piece.first else STDERR
    for row, stamp in enumerate(piece.stamps):
        stream = stamp & 3
        if stream == STDERR and before not in (STDERR, NOTE):
            text = clean_line(piece.block.row(row))
            if text.strip() and not _CALM.search(text):
                found.add(piece.first + row)
        before = stream
    return sorted(found)


def _belongs_to_another(reader: SpoolReader, row: int) -> bool:
    """Return whether the nearest line above that is neither indented nor blank reports an error."""
    for line in _backwards(reader, row):
        if not line.strip() or line[0].isspace():
            continue
        return ERRORS.holds(line)
    return False


def _backwards(reader: SpoolReader, row: int) -> Iterator[str]:
    for at in range(row - 1, max(-1, row - _MOST_BACK), -1):
        for line in reader.lines(at, 1, longest=4096):
            if line.stream == NOTE:
                return
            yield clean_line(line.text)


# --- times ----------------------------------------------------------------------------------------

_AGO = re.compile(
    r"([+-])\s*(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m)?\s*(?:(\d+)\s*s?)?", re.I
)
_CLOCK = re.compile(
    r"(?:(?:(\d{4})-)?(\d{1,2})-(\d{1,2})[ T]+)?(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?"
)
_HOW = "write 12:03, 12:03:45, 2026-11-21 12:03, -5m (before the end) or +90s (after the beginning)"


class Span(NamedTuple):
    """The times of a log's first and last line, in epoch nanoseconds."""

    first: int
    last: int


def span(reader: SpoolReader) -> Span | None:
    """Return the times of the log's ends; None for an empty log."""
    _, rows = reader.size()
    ends = reader.rows(0, 1) + reader.rows(rows - 1, 1) if rows else []
    return Span(ends[0][1], ends[-1][1]) if len(ends) == 2 else None


def moment(text: str, log: Span, near: int) -> int:
    """Return the time that `text` means in this log, in epoch nanoseconds.

    A time of day without a date is the one within the log, nearest to `near` if there are several.
    Times of day are local. Raises `RequestError` if `text` is not a time.
    """
    text = text.strip()
    if (ago := _AGO.fullmatch(text)) and any(ago.groups()[1:]):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups()[1:])
        away = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000_000
        return max(0, log.last - away) if ago[1] == "-" else log.first + away
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        raise RequestError("time", f"{text!r} is not a time", _HOW)
    year, month, day, hour, minute, second, fraction = clock.groups()
    nanoseconds = int((fraction or "").ljust(9, "0"))
    first, last = (datetime.fromtimestamp(end / 1e9) for end in log)
    times = []
    try:
        # One more day at both ends, so that there is always a nearest time.
        for days in range(-1, min((last.date() - first.date()).days, 3660) + 2):
            date = first + timedelta(days=days)
            if month is not None:
                date = date.replace(day=1, month=int(month), year=int(year or first.year))
                date = date.replace(day=int(day))
            date = date.replace(
                hour=int(hour), minute=int(minute), second=int(second or 0), microsecond=0
            )
            times.append(int(date.timestamp()) * 1_000_000_000 + nanoseconds)
    except ValueError as error:
        raise RequestError("time", f"{text!r} is not a time: {error}", _HOW) from error
    within = [time for time in times if log.first <= time <= log.last]
    if within:
        return min(within, key=lambda time: abs(time - near))
    return min(times, key=lambda time: max(log.first - time, time - log.last))


def row_at(reader: SpoolReader, time: int) -> int:
    """Return the first row of that time or later; the last row if all are earlier."""
    _, rows = reader.size()

    def key(row: int) -> int:
        found = reader.rows(row, 1)
        return found[0][1] if found else 1 << 62

    return min(bisect_left(range(rows), time, key=key), max(0, rows - 1))


# --- saving ---------------------------------------------------------------------------------------


Tag = Callable[[int], str]
"""Returns what precedes a row in a file: the job that printed it, in a log of several jobs."""


def save(source: LogSource, target: Path, replace: bool = False, tag: Tag | None = None) -> int:
    """Copy the log as it is now to `target`; return the bytes written. stoke's own lines are marked.

    The job's bytes are exact, with their escape sequences; with a `tag`, lines are as they are shown.
    Raises `FileExistsError` for an existing file unless `replace` is set, and `StokeError` if writing
    fails; an existing file then keeps its content.
    """
    reader = SpoolReader(source)
    try:
        size, rows = reader.size()
        with replacing(target, 0o666) if replace else _new_file(target) as file:
            for piece in _saved(reader, rows, size) if tag is None else _as_shown(reader, tag):
                file.write(piece)
            written = file.tell()
    except FileExistsError:
        raise
    except OSError as error:
        raise StokeError(
            f"cannot save the log as {target}: {error.strerror}", "choose another file name"
        ) from error
    finally:
        reader.close()
    return written


def save_as_shown(source: LogSource, target: Path, tag: Tag | None = None) -> None:
    """Write the log's lines as they are shown, complete and without colours, to a new file."""
    reader = SpoolReader(source)
    try:
        with open(target, "xb") as file:
            for line in _as_shown(reader, tag):
                file.write(line)
    except OSError as error:
        raise StokeError(f"cannot write a copy of the log: {error.strerror}") from error
    finally:
        reader.close()


def _as_shown(reader: SpoolReader, tag: Tag | None) -> Iterator[bytes]:
    for line in reader.lines():
        begin = tag(line.number) if tag is not None else ""
        mark = NOTE_MARK if line.stream == NOTE else ""
        yield f"{begin}{mark}{clean_line(line.text)}\n".encode(errors="replace")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that did not exist; remove it if the block ends with an error."""
    with open(path, "xb") as file:
        try:
            yield file
            file.flush()
        except BaseException:
            path.unlink()
            raise


def _saved(reader: SpoolReader, rows: int, size: int) -> Iterator[bytes]:
    for first in range(0, rows, _ROWS):
        count = min(_ROWS, rows - first)
        offsets, stamps = reader.columns(first, count + 1)
        if len(offsets) <= count:
            offsets.append(size)
        at = offsets[0]
        for row in (row for row, stamp in enumerate(stamps[:count]) if stamp & 3 == NOTE):
            yield from _raw(reader, at, offsets[row])
            yield NOTE_MARK.encode()
            at = offsets[row]
        yield from _raw(reader, at, offsets[-1])


def _raw(reader: SpoolReader, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, PIECE):
        yield reader.read(at, min(end, at + PIECE))

"""The lines that a log window shows: all rows of a spool, or those that pass a filter.

A *row* is a row of the spool's index. A *line* is an index into what is shown: without a filter it is
the same number, with one it counts the rows that pass.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from textual.cache import LRUCache

from stoke.errors import StokeError
from stoke.logs import reader
from stoke.logs.pattern import SlowPatternError
from stoke.logs.reader import NOTE_MARK, Matches
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, LogSource, SpoolReader
from stoke.remote.protocol import PROJECT_COPY, JobFolder, PythonLayout
from stoke.text.ansi import Styled, styled_line
from stoke.text.sanitize import clean_line
from tui.log.row import LogRow, Span

DRAWN_BYTES = 32 * 1024
"""Of a longer line only both ends are drawn; the spool has all of it."""
# Cached characters of drawn lines. A window of long lines may exceed this, and is cached too.
_CACHE_CHARACTERS = 2_000_000
_MOST_MATCHES = 500
_MOST_COPIED = 16 * 1024**2


def _files_of(job_ids: Sequence[str]) -> re.Pattern[str]:
    """Return the pattern of the folders with the code of jobs. In a container, every job's own folder
    is /stoke."""
    own = f"(?:{'|'.join(map(re.escape, job_ids))}|stoke)"
    in_own = f"{own}/{JobFolder.WORK}/(?:{JobFolder.FILES}|{JobFolder.PROJECT})"
    on_volume = f"{PythonLayout.PROJECT_COPIES}/{PROJECT_COPY}"
    return re.compile(rf"(?:/[^\s\"':/]+)*/(?:{in_own}|{on_volume})/")


_MOST_BETWEEN = 4096
"""Rows between a line and its late newline, beyond which that newline is shown as a line."""


class LogLines:
    """The log in `folder`, or nothing for None. It changes only in `update`.

    The temporary folders of the jobs are not drawn; copies and saved files have them.
    """

    def __init__(self, folder: LogSource | None, job_ids: Sequence[str] = ()) -> None:
        self.folder = folder
        self._own_folder = _files_of(job_ids) if job_ids else None
        self.rows = 0
        self.bytes = 0
        self.count = 0
        """Lines that are shown."""
        self.filter: Matches | None = None
        self.widest = 0
        """Width in cells of the widest line drawn so far."""
        self._reader = SpoolReader(folder) if folder is not None else None
        self._drawn: LRUCache[int, LogRow] = LRUCache(1000)
        self._drawn_size = 0
        self._matches: LRUCache[int, list[Span]] = LRUCache(1000)
        # After a pattern took too long on one line, matches are no longer highlighted.
        self._pattern_is_slow = False
        # Whether a row could not be read when it was to be drawn.
        self._read_failed = False

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def update(self) -> int | None:
        """Read the present size of the spool. Return the rows gained or lost, None without a change."""
        if self._reader is None:
            return None
        size, rows = self._reader.size()
        if self._ends_late(size, rows):
            rows -= 1
        if (size, rows) == (self.bytes, self.rows) and not self._read_failed:
            return None
        if self._read_failed:
            self._matches.clear()
            self._read_failed = False
        gained = rows - self.rows
        if gained < 0:
            # A new follower has truncated the spool to its last complete part.
            self.clear_cache()
        elif self.rows:
            self._drawn.discard(self.rows - 1)
            self._matches.discard(self.rows - 1)
        self.bytes, self.rows = size, rows
        return abs(gained)

    def _ends_late(self, size: int, rows: int) -> bool:
        """Whether the last row has only the newline of an earlier line of its stream: stderr's last
        newline comes with the end of the job, after the rows of stdout."""
        reader = self._reader
        last = reader.rows(rows - 1, 1) if reader is not None and rows > 1 else []
        if (
            reader is None
            or not last
            or size - last[0][0] != 1
            or reader.read(size - 1, size) != b"\n"
        ):
            return False
        stream, end = last[0][2], last[0][0]
        first = max(0, rows - 1 - _MOST_BETWEEN)
        for offset, _, other in reversed(reader.rows(first, rows - 1 - first)):
            if other == stream:
                return end != last[0][0] and reader.read(end - 1, end) != b"\n"
            end = offset
        return False

    def update_count(self) -> None:
        """Show the rows that the filter has found so far."""
        self.count = len(self.filter.rows) if self.filter is not None else self.rows

    def row(self, line: int) -> int:
        if self.filter is None:
            return line
        rows = self.filter.rows
        return rows[min(line, len(rows) - 1)] if rows else 0

    def line(self, row: int) -> int:
        """Return the line of this row, or of the next row that is shown."""
        if self.filter is None:
            return row
        return min(bisect_left(self.filter.rows, row), max(0, self.count - 1))

    def shows(self, row: int) -> bool:
        return self.filter is None or self.filter.place(row) is not None

    def load(self, line: int) -> LogRow:
        """Return a line as it is drawn; an empty one past the end of the log."""
        row = self.row(line)
        if row >= self.rows:
            return LogRow(0, 0, Styled(""))
        loaded = self._drawn.get(row)
        if loaded is None:
            try:
                loaded = self._read(row)
            except EOFError:
                # A new follower has just truncated the spool. The row will return, maybe before the
                # next update, which would then see no change of the size.
                self._read_failed = True
                return LogRow(0, 0, Styled(""))
            if self._drawn_size > _CACHE_CHARACTERS:
                self.clear_cache()
            self._drawn_size += len(loaded.text)
            self._drawn[row] = loaded
            self.widest = max(self.widest, loaded.width)
        return loaded

    def matches(self, line: int, query: Query) -> list[Span]:
        """Return where a drawn line matches. The same query is cached until `clear_matches`."""
        row = self.row(line)
        spans = self._matches.get(row)
        if spans is None:
            try:
                spans = (
                    [] if self._pattern_is_slow else self.load(line).matches(query, _MOST_MATCHES)
                )
            except SlowPatternError:
                self._pattern_is_slow = True
                spans = []
            self._matches[row] = spans
        return spans

    def clear_cache(self) -> None:
        self._drawn.clear()
        self._matches.clear()
        self._drawn_size = 0

    def clear_matches(self) -> None:
        self._matches.clear()
        self._pattern_is_slow = False

    def _read(self, row: int) -> LogRow:
        assert self._reader is not None
        index = self._reader.rows(row, 2)
        if len(index) < min(2, self.rows - row):
            raise EOFError
        start, moment, stream = index[0]
        # Rows are written before their bytes, so the next row may begin past the end.
        end = min(index[1][0], self.bytes) if len(index) > 1 else self.bytes
        if stream == NOTE:
            return LogRow(stream, moment, Styled(NOTE_MARK + clean_line(self._raw(start, end))))
        if end - start <= DRAWN_BYTES:
            return LogRow(stream, moment, self._shortened(styled_line(self._raw(start, end))))
        half = DRAWN_BYTES // 2
        tail = self._raw(end - half, end)
        bar = tail.rstrip(b"\r\n").rfind(b"\r")
        if bar >= 0:
            # All states of a progress bar are one row; the last follows the last carriage return.
            return LogRow(stream, moment, styled_line(tail[bar:]))
        head, rest = styled_line(self._raw(start, start + half)), styled_line(tail)
        text = f"{head.text} ... {end - start - 2 * half:,} bytes ... "
        spans = tuple((a + len(text), b + len(text), style) for a, b, style in rest.spans)
        return LogRow(stream, moment, Styled(text + rest.text, head.spans + spans))

    def _shortened(self, styled: Styled) -> Styled:
        """Remove the job's own folder from a line: `File "fit.py"` is what its user wrote."""
        while self._own_folder is not None and (match := self._own_folder.search(styled.text)):
            start, end = match.span()

            def moved(at: int, start: int = start, end: int = end) -> int:
                return at if at <= start else max(start, at - (end - start))

            spans = ((moved(a), moved(b), style) for a, b, style in styled.spans)
            styled = Styled(
                styled.text[:start] + styled.text[end:],
                tuple(span for span in spans if span[0] < span[1]),
            )
        return styled

    def _raw(self, start: int, end: int) -> bytes:
        """Read these bytes; `EOFError` if the spool has lost them."""
        assert self._reader is not None
        data = self._reader.read(start, end)
        if len(data) < end - start:
            raise EOFError
        return data

    # --- times ------------------------------------------------------------------------------------

    @property
    def span(self) -> reader.Span | None:
        return reader.span(self._reader) if self._reader is not None else None

    def at(self, moment: int) -> int:
        """Return the first line at or after a time in epoch nanoseconds."""
        return self.line(reader.row_at(self._reader, moment)) if self._reader is not None else 0

    # --- copying ----------------------------------------------------------------------------------

    def texts(self, first: int, last: int) -> list[str]:
        """Return the complete text of the lines [first, last]. May be called on any thread.

        `StokeError` for more than 16 MiB.
        """
        if self.folder is None:
            return []
        reader = SpoolReader(self.folder)
        size = 0
        texts = []
        try:
            for row in self._rows(first, last):
                for line in reader.lines(row, 1, longest=_MOST_COPIED + 1):
                    size += len(line.text)
                    if size > _MOST_COPIED:
                        raise StokeError(
                            "the selection is too long for a clipboard", "save the log instead: S"
                        )
                    texts.append(clean_line(line.text))
        finally:
            reader.close()
        return texts

    def _rows(self, first: int, last: int) -> Iterator[int]:
        return (self.row(line) for line in range(first, last + 1))

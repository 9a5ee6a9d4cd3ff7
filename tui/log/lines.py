"""What a log window has before it: the rows of a spool, or those that pass a filter, as they are drawn.

A *row* is a row of the spool's index; a *line* is a place in what is shown: the same number, or with
a filter the place among the rows that pass it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from textual.cache import LRUCache

from stoke.errors import StokeError
from stoke.logs import reader
from stoke.logs.pattern import SlowPatternError
from stoke.logs.reader import NOTE_MARK, Matches
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, SpoolReader
from stoke.text.ansi import Styled, styled_line
from stoke.text.sanitize import clean_line
from tui.log.row import LogRow, Span

DRAWN_BYTES = 32 * 1024
"""Of a longer line the ends are drawn; it is whole in the spool."""
# Characters of drawn lines that are kept; one window of long lines is more, and is kept too.
_KEPT = 2_000_000
_MOST_MARKS = 500
_MOST_COPIED = 16 * 1024**2


class LogLines:
    """The log in `folder`, or nothing for None. It changes when `look` says so, and not before."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.rows = 0
        self.bytes = 0
        self.count = 0
        """Lines shown."""
        self.filter: Matches | None = None
        self.widest = 0
        """Columns of the widest line drawn so far."""
        self._reader = SpoolReader(folder) if folder is not None else None
        self._drawn: LRUCache[int, LogRow] = LRUCache(1000)
        self._drawn_size = 0
        self._marks: LRUCache[int, list[Span]] = LRUCache(1000)
        # Whether a pattern took too long on one line: the others are drawn without marks.
        self._slow_to_mark = False
        # Whether something was to be drawn that could not be read.
        self._missed = False

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def look(self) -> int | None:
        """Takes note of what the spool has gained. Returns the rows, or None if nothing changed."""
        if self._reader is None:
            return None
        size, rows = self._reader.size()
        if (size, rows) == (self.bytes, self.rows) and not self._missed:
            return None
        if self._missed:
            self._marks.clear()
            self._missed = False
        gained = rows - self.rows
        if gained < 0:
            # A follower that took over has cut the spool back to what was whole.
            self.forget()
        elif self.rows:
            self._drawn.discard(self.rows - 1)
            self._marks.discard(self.rows - 1)
        self.bytes, self.rows = size, rows
        return abs(gained)

    def reconcile(self) -> None:
        """Takes over what the filter has found meanwhile."""
        self.count = len(self.filter.rows) if self.filter is not None else self.rows

    def row(self, line: int) -> int:
        if self.filter is None:
            return line
        rows = self.filter.rows
        return rows[min(line, len(rows) - 1)] if rows else 0

    def line(self, row: int) -> int:
        """The line that shows this row, or the next one that is shown."""
        if self.filter is None:
            return row
        return min(bisect_left(self.filter.rows, row), max(0, self.count - 1))

    def shows(self, row: int) -> bool:
        return self.filter is None or self.filter.place(row) is not None

    def load(self, line: int) -> LogRow:
        """Return a line as it is drawn; an empty one where the log has none."""
        row = self.row(line)
        if row >= self.rows:
            return LogRow(0, 0, Styled(""))
        loaded = self._drawn.get(row)
        if loaded is None:
            try:
                loaded = self._read(row)
            except EOFError:
                # A follower that took over has just cut it off. It will be there again, maybe before
                # the next look, which then finds the spool as it was.
                self._missed = True
                return LogRow(0, 0, Styled(""))
            if self._drawn_size > _KEPT:
                self.forget()
            self._drawn_size += len(loaded.text)
            self._drawn[row] = loaded
            self.widest = max(self.widest, loaded.width)
        return loaded

    def marks(self, line: int, query: Query) -> list[Span]:
        """Where in a line as it is drawn `query` stands. Always the same query until `forget_marks`."""
        row = self.row(line)
        marks = self._marks.get(row)
        if marks is None:
            try:
                marks = [] if self._slow_to_mark else self.load(line).marks(query, _MOST_MARKS)
            except SlowPatternError:
                self._slow_to_mark = True
                marks = []
            self._marks[row] = marks
        return marks

    def forget(self) -> None:
        self._drawn.clear()
        self._marks.clear()
        self._drawn_size = 0

    def forget_marks(self) -> None:
        self._marks.clear()
        self._slow_to_mark = False

    def _read(self, row: int) -> LogRow:
        assert self._reader is not None
        index = self._reader.rows(row, 2)
        if len(index) < min(2, self.rows - row):
            raise EOFError
        start, moment, stream = index[0]
        # Rows are written before their bytes: the next may begin where nothing is yet.
        end = min(index[1][0], self.bytes) if len(index) > 1 else self.bytes
        if stream == NOTE:
            return LogRow(stream, moment, Styled(NOTE_MARK + clean_line(self._raw(start, end))))
        if end - start <= DRAWN_BYTES:
            return LogRow(stream, moment, styled_line(self._raw(start, end)))
        half = DRAWN_BYTES // 2
        tail = self._raw(end - half, end)
        bar = tail.rstrip(b"\r\n").rfind(b"\r")
        if bar >= 0:
            # A progress bar's whole life is one row; its last state stands behind the last return.
            return LogRow(stream, moment, styled_line(tail[bar:]))
        head, rest = styled_line(self._raw(start, start + half)), styled_line(tail)
        text = f"{head.text} ... {end - start - 2 * half:,} bytes ... "
        spans = tuple((a + len(text), b + len(text), look) for a, b, look in rest.spans)
        return LogRow(stream, moment, Styled(text + rest.text, head.spans + spans))

    def _raw(self, start: int, end: int) -> bytes:
        """`EOFError` when the spool does not hold them any more."""
        assert self._reader is not None
        data = self._reader.read(start, end)
        if len(data) < end - start:
            raise EOFError
        return data

    # --- moments ----------------------------------------------------------------------------------

    @property
    def span(self) -> reader.Span | None:
        return reader.span(self._reader) if self._reader is not None else None

    def at(self, moment: int) -> int:
        """The first line of that time, in epoch nanoseconds, or later."""
        return self.line(reader.row_at(self._reader, moment)) if self._reader is not None else 0

    # --- copying ----------------------------------------------------------------------------------

    def texts(self, first: int, last: int) -> list[str]:
        """The lines [first, last] as they are shown, whole. On any thread.

        `StokeError` when that is more than a clipboard should hold.
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
                            "that is more than a clipboard should hold", "save the log instead: s"
                        )
                    texts.append(clean_line(line.text))
        finally:
            reader.close()
        return texts

    def _rows(self, first: int, last: int) -> Iterator[int]:
        return (self.row(line) for line in range(first, last + 1))

"""Finding a text in a spool, all of it, without holding it in memory."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from pathlib import Path

from stoke.logs.sanitise import clean_line
from stoke.logs.spool import SpoolReader

_ROWS = 4096
_BYTES = 8 * 1024**2


class LogSearch:
    """The rows of one spool that hold a text, as the screen shows them.

    A query in lower case finds any case. Raw bytes are searched first, which is quick, and each row
    found is looked at again as it is shown; a word with colours inside it is therefore not found.
    """

    def __init__(self, folder: Path, query: str) -> None:
        flags = re.IGNORECASE if query == query.lower() else 0
        self.query = query
        self.pattern = re.compile(re.escape(query), flags)
        self.rows = array("Q")
        self._folder = folder
        self._raw = re.compile(re.escape(query.encode()), flags)
        self._scanned = 0

    def scan(self) -> None:
        """Looks at what the spool has gained since the last call. Blocks."""
        reader = SpoolReader(self._folder)
        try:
            # The last row may still grow: it is looked at again next time.
            size, total = reader.size()
            while self.rows and self.rows[-1] >= self._scanned:
                self.rows.pop()
            first = self._scanned
            while first < total:
                first += self._block(reader, first, min(_ROWS, total - first), size)
            self._scanned = max(0, total - 1)
        finally:
            reader.close()

    def _block(self, reader: SpoolReader, first: int, count: int, size: int) -> int:
        """Searches up to `count` rows and returns how many it took."""
        rows = reader.rows(first, count + 1)
        starts = [row[0] for row in rows]
        if len(starts) <= count:
            starts.append(size)
        taken = max(1, bisect_right(starts, starts[0] + _BYTES) - 1)
        taken = min(taken, len(starts) - 1)
        base, end = starts[0], min(starts[taken], starts[0] + _BYTES)
        data = reader.read(base, end)
        found = -1
        for match in self._raw.finditer(data):
            at = bisect_right(starts, base + match.start()) - 1
            if at == found:
                continue
            found = at
            text = data[starts[at] - base : starts[at + 1] - base]
            if self.pattern.search(clean_line(text)):
                self.rows.append(first + at)
        return taken

    def after(self, row: int) -> int | None:
        """The first found row behind `row`, or the first of all; None when there is none."""
        at = bisect_right(self.rows, row)
        return self._at(at if at < len(self.rows) else 0)

    def before(self, row: int) -> int | None:
        return self._at(bisect_left(self.rows, row) - 1)

    def place(self, row: int) -> int | None:
        """Which of the found rows this one is, from 1."""
        at = bisect_left(self.rows, row)
        return at + 1 if at < len(self.rows) and self.rows[at] == row else None

    def _at(self, at: int) -> int | None:
        return self.rows[at] if self.rows else None

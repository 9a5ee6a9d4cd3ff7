"""Read a job's log page by page: cleaned lines within a number of bytes, and where the next begins.

The pages of a log, one after the other, are its cleaned text, without gaps and without repetition.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from stoke.agents.json_text import json_size
from stoke.errors import RequestError
from stoke.logs.reader import pieces
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, LogLine, SpoolReader
from stoke.text.sanitize import clean_line
from stoke.text.shorten import shorten

SCAN_SECONDS = 5.0
"""How long one page may look for lines that its filter selects."""
MOST_GROWTH = 3
"""How many bytes a byte of a log takes at most in a page: U+FFFD in place of one that is not UTF-8."""
MOST_NOTES = 20
_STEP = 1000
"""After how many lines the time is checked."""
_CURSOR = re.compile(r"([0-9]{1,15})(?:\+([0-9]{1,15}))?")


class Cursor(NamedTuple):
    """A position in a log: a line, and the number of its bytes that were read before."""

    line: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.line}+{self.offset}" if self.offset else str(self.line)


def parse_cursor(text: str) -> Cursor:
    """Return the position that an earlier page named. Raises `RequestError` for anything else."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise RequestError(
            "cursor",
            f"{text!r} is not a cursor",
            "pass the next_cursor of an answer, or leave it out",
        )
    return Cursor(int(found[1]), int(found[2] or 0))


@dataclass(frozen=True)
class Selection:
    """Which lines a page has: those of one stream, those that match a pattern."""

    stream: int | None = None
    grep: Query | None = None


@dataclass(frozen=True)
class LogPage:
    """A part of a log. `reaches_end` tells that the log had no more when it was read."""

    text: str
    notes: tuple[str, ...]
    """What stoke wrote in the log, such as gaps; no words of the job."""
    next: Cursor
    reaches_end: bool


def read_page(
    reader: SpoolReader, start: Cursor, limit: int, is_over: bool, wanted: Selection
) -> LogPage:
    """Return the page that begins at `start`, whose text takes at most `limit` bytes of JSON.

    A line that is longer is continued on the next page. The last line of a job that runs (not
    `is_over`) is returned as far as it is there.
    """
    parts: list[str] = []
    notes: list[str] = []
    left = limit
    at = start
    deadline = time.monotonic() + SCAN_SECONDS
    _, total = reader.size()
    for line, scanned in _selected(reader, start, limit, is_over, wanted):
        if line is None:
            at = Cursor(scanned)
            if time.monotonic() > deadline:
                return LogPage("".join(parts), tuple(notes), at, False)
            continue
        offset = start.offset if line.number == start.line else 0
        ends = line.text.endswith(b"\n")
        is_last = line.number + 1 >= total
        if is_last and not is_over and line.text == b"\n" and not offset:
            break  # It may be the end of an earlier line, which the stream's next line follows.
        text = clean_line(line.text)
        if line.stream == NOTE:
            if len(notes) < MOST_NOTES:
                notes.append(shorten(text))
        elif wanted.stream in (None, line.stream):
            whole = text if line.cut or (is_last and not ends) else f"{text}\n"
            size = json_size(whole)
            if line.cut or size > left:
                if parts:
                    return LogPage("".join(parts), tuple(notes), Cursor(line.number, offset), False)
                piece = _whole_characters(line.text[: max(1, left // MOST_GROWTH)])
                following = Cursor(line.number, offset + len(piece))
                return LogPage(clean_line(piece), tuple(notes), following, False)
            parts.append(whole)
            left -= size
        if is_last and not is_over and not ends:
            at = Cursor(line.number, offset + len(line.text))
            break
        at = Cursor(line.number + 1)
    return LogPage("".join(parts), tuple(notes), at, True)


def _selected(
    reader: SpoolReader, start: Cursor, limit: int, is_over: bool, wanted: Selection
) -> Iterator[tuple[LogLine | None, int]]:
    """Yield the lines from `start` on that match the pattern, and None with each number of a line up to
    which all were searched. The line at `start` is yielded if it was begun before."""
    if wanted.grep is None:
        for line in _lines(reader, start, limit):
            if line.number % _STEP == 0 and line.number > start.line:
                yield None, line.number
            yield line, line.number
        return
    first = start.line
    if start.offset:
        for line in _lines(reader, start, limit):
            yield line, line.number
            break
        first += 1
    size, end = reader.size()
    if end and not is_over:
        # A line is searched once it is whole; a newline alone may be the end of an earlier line.
        last_line = reader.read(max(_begin(reader, end - 1), size - 2), size)
        if len(last_line) < 2 or not last_line.endswith(b"\n"):
            end -= 1
    for piece in pieces(reader, first, end, size):
        last = -1
        for row in wanted.grep.rows(piece.block):
            # Each part of a long row may match.
            if row > last and piece.first + row >= first:
                yield from (
                    (line, line.number) for line in reader.lines(piece.first + row, 1, limit)
                )
                first = piece.first + row + 1
            last = row
        part = piece.block.part
        if part is None or part[1]:
            yield None, piece.first + piece.block.rows


def last_page(reader: SpoolReader, limit: int, is_over: bool) -> tuple[Cursor, LogPage]:
    """Return the page that reaches the end of a log, as long as `limit` allows, and where it begins."""
    size, total = reader.size()
    share = limit
    while True:
        start = _before_end(reader, size, total, share)
        page = read_page(reader, start, limit, is_over, Selection())
        if page.reaches_end or share <= limit // MOST_GROWTH:
            return start, page
        share = max(share // 2, limit // MOST_GROWTH)


def _before_end(reader: SpoolReader, size: int, total: int, share: int) -> Cursor:
    """Return the first line that begins within the last `share` bytes, or a place inside the line
    before it if that is long."""
    at = size - share
    if at <= 0:
        return Cursor()
    line = bisect_left(range(total), at, key=lambda row: _begin(reader, row))
    if line < total and _begin(reader, line) - at <= share // 2:
        return Cursor(line)
    # A character of UTF-8 has at most three more bytes behind its first.
    rest = re.match(rb"[\x80-\xbf]{0,3}", reader.read(at, at + 3))
    return Cursor(line - 1, at - _begin(reader, line - 1) + (rest.end() if rest else 0))


def _begin(reader: SpoolReader, line: int) -> int:
    """Return the offset of a line; a number behind all if the log was truncated meanwhile."""
    found = reader.rows(line, 1)
    return found[0][0] if found else 1 << 62


def _lines(reader: SpoolReader, start: Cursor, limit: int) -> Iterator[LogLine]:
    """Yield the lines from `start` on, the first without its bytes before that, each cut at `limit`."""
    first = start.line
    if start.offset:
        size, _ = reader.size()
        rows = reader.rows(start.line, 2)
        if not rows:
            return
        begin, moment, stream = rows[0]
        end = rows[1][0] if len(rows) > 1 else size
        at = min(begin + start.offset, end)
        data = reader.read(at, min(end, at + limit))
        yield LogLine(start.line, stream, moment, data, end - at - len(data))
        first += 1
    yield from reader.lines(first, longest=limit)


def _whole_characters(piece: bytes) -> bytes:
    """Return the piece without the begin of a character at its end, unless it is nothing else."""
    for back in range(1, min(4, len(piece))):
        first = piece[-back]
        if first >= 0xC0:
            length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return piece[:-back] if length > back else piece
        if first < 0x80:
            break
    return piece

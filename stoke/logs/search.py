"""Search a log: a text or regular expression, and the rows of a block that match it.

A row matches if the text that it is shown as matches: without colour codes, and only the last state of
a progress bar. Most rows are ruled out as raw bytes, thousands at a time. Only rows of blocks with
bytes that are not shown as they are get cleaned and searched again.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise

from stoke.logs.pattern import Pattern
from stoke.text.sanitize import clean, clean_line

LONGEST_CLEANED = 64 * 1024
"""The longest row, in bytes, that is cleaned before the search; longer rows are searched raw."""
PIECE = 1024 * 1024
"""Bytes searched at once: this takes some milliseconds, in which no other thread runs."""
PART_OVERLAP = 64 * 1024
"""Bytes by which the parts of a row longer than `PIECE` overlap; a longer match may be missed there."""
_CONTEXT = 64
_OVERLAP = 4096

# Bytes of a line that are not shown: escape sequences and control characters.
_PAYLOAD = rb"(?:(?!\xc2[\x80-\x9f])[^\x07\x18\x1a\x1b\r\n])*?"
_UNSEEN = (
    rb"(?:(?:\x1b\[|\xc2\x9b)[0-?]*+[ -/]*+[@-~]"
    rb"|(?:\x1b\]|\xc2\x9d)" + _PAYLOAD + rb"(?:\x07|\x1b\\|\xc2\x9c)"
    rb"|(?:\x1b[PX^_]|\xc2[\x90\x98\x9e\x9f])" + _PAYLOAD + rb"(?:\x1b\\|\xc2\x9c)"
    rb"|\x1b[ -/]*+[0-~]"
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c"
    rb"|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9])*+"
)
_CONTROLS = bytes([*range(9), *range(11, 32), 127])

Find = Callable[[int], tuple[int, int] | None]
"""Returns the next match in a block, as (start, end), from a position on."""


class Block:
    """Consecutive rows of a log. `starts` has their offsets in the log, and the end of the last row.

    It comes as one array, because computing the offsets of a million rows one by one is slow.

    `part` is None, except for a part of one row: then it is (is the row's beginning, is the row's end).
    """

    __slots__ = ("base", "data", "part", "rows", "starts")

    def __init__(
        self, data: bytes, starts: array[int], part: tuple[bool, bool] | None = None
    ) -> None:
        self.data = data
        self.starts = starts
        self.part = part
        self.rows = len(starts) - 1
        self.base = starts[0]

    def start(self, row: int) -> int:
        """Return where in `data` a row begins."""
        return self.starts[row] - self.base

    def row(self, row: int) -> bytes:
        return self.data[self.starts[row] - self.base : self.starts[row + 1] - self.base]

    def row_of(self, position: int, first: int) -> int:
        """Return the row of a position in `data`; `first` or a later row."""
        return bisect_right(self.starts, position + self.base, first, self.rows) - 1


class Query:
    """A text or a regular expression to search for. One in lower case matches any case.

    Raises `RequestError` if a regular expression is not valid.
    """

    def __init__(self, text: str, regex: bool = False) -> None:
        self.text = text
        self.regex = regex
        self._any_case = text == text.lower()
        if regex:
            self._pattern = Pattern(text, self._any_case)
        # Whether the raw bytes of a row contain the text wherever the shown row does.
        self._literal = not regex and "\ufffd" not in text

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of each match in a line as shown, without empty matches.

        Raises `SlowPatternError` if a regular expression takes too long for a line that is drawn.
        """
        if self.regex:
            return self._pattern.spans(text)
        return (match.span() for match in self._shown.finditer(text) if match[0])

    def holds(self, text: str) -> bool:
        """Return whether a line as shown matches. Raises `SlowPatternError` if that takes too long."""
        return self._search_from(text, 0)

    def _search_from(self, text: str, start: int) -> bool:
        if self.regex:
            return self._pattern.found_in(text, start)
        return self._shown.search(text, start) is not None

    def rows(self, block: Block) -> Iterator[int]:
        """Yield the rows of `block` that match."""
        if block.part is not None:
            if part_holds(self._search_from, block.data, *block.part):
                yield 0
            return
        data = block.data
        clean = data.isascii() and len(data.translate(None, _CONTROLS)) == len(data)
        if not self._literal:
            yield from self._row_by_row(block, clean)
            return
        for row, end in candidates(self._find_in(data, clean), block):
            if end <= block.start(row + 1) if clean else self.holds_row(block.row(row)):
                yield row

    def holds_row(self, raw: bytes) -> bool:
        """Return whether one row of a spool, given as raw bytes, matches as shown."""
        if len(raw) <= LONGEST_CLEANED:
            return self.holds(clean_line(raw))
        if self._literal:
            return self._raw.search(raw) is not None
        # Such a line is never shown whole. A regular expression may miss a match at a cut.
        step = LONGEST_CLEANED - _OVERLAP
        return any(
            self.holds(clean_line(raw[at : at + LONGEST_CLEANED]))
            for at in range(0, len(raw), step)
        )

    def _row_by_row(self, block: Block, clean: bool) -> Iterator[int]:
        if not clean:
            yield from (row for row in range(block.rows) if self.holds_row(block.row(row)))
            return
        text, base = block.data.decode("ascii"), block.base
        for row, (start, end) in enumerate(pairwise(block.starts)):
            if self.holds(text[start - base : end - base].strip("\n")):
                yield row

    def _find_in(self, block: bytes, clean: bool) -> Find:
        if not clean or not self.text.isascii():
            search = self._raw.search
            return lambda start: match.span() if (match := search(block, start)) else None
        needle = self.text.encode()
        find = (block.lower() if self._any_case else block).find

        def found(start: int) -> tuple[int, int] | None:
            at = find(needle, start)
            return (at, at + len(needle)) if at >= 0 else None

        return found

    @cached_property
    def _shown(self) -> re.Pattern[str]:
        """Matches the text in a line as shown."""
        forms = ("|".join(map(re.escape, self._forms(one))) for one in self.text)
        return re.compile("".join(f"(?:{form})" for form in forms))

    @cached_property
    def _raw(self) -> re.Pattern[bytes]:
        forms = []
        for character in self.text:
            shown = self._forms(character) | ({"\u2028", "\u2029"} if character == " " else set())
            forms.append(b"(?:" + b"|".join(re.escape(one.encode()) for one in shown) + b")")
        return re.compile(_UNSEEN.join(forms))

    def _forms(self, character: str) -> set[str]:
        """Return the characters that match a character, including itself."""
        if not self._any_case:
            return {character}
        every = (character, character.upper(), character.title())
        return {form for form in every if len(form) == 1}


def part_holds(
    found_from: Callable[[str, int], bool], data: bytes, first: bool, last: bool
) -> bool:
    """Return whether a pattern matches in a part of a row; parts overlap by `PART_OVERLAP` bytes.

    `found_from` returns whether the pattern matches in a text from a position on. `^` and `$` match
    only at the row's own ends.
    """
    text = clean(data.decode(errors="replace").strip("\n"))
    # An added character keeps `$` from matching at the end of a part; a later start keeps `^` from
    # matching at its beginning.
    return found_from(text if last else text + "\0", 0 if first else _CONTEXT)


def candidates(find: Find, block: Block) -> Iterator[tuple[int, int]]:
    """Yield each row that has a match, and where its first match ends."""
    row = 0
    found = find(0)
    while found is not None:
        row = block.row_of(found[0], row)
        yield row, found[1]
        if row + 1 == block.rows:
            return
        found = find(block.start(row + 1))


class _Errors(Query):
    """A query for lines that report an error, as people and Python write them."""

    _WORDS = re.compile(rb"error|exception|traceback|fatal|critical|panic")
    _TELLS = re.compile(
        r"(?i:\b(?:error|exception|traceback|fatal|critical|panic)\b)|(?:Error|Exception)\b"
    )

    def __init__(self) -> None:
        super().__init__("error")
        self._literal = False  # Other words than this one match, too.

    def holds(self, text: str) -> bool:
        return self._search_from(text, 0)

    def _search_from(self, text: str, start: int) -> bool:
        return self._TELLS.search(text, start) is not None

    def rows(self, block: Block) -> Iterator[int]:
        if block.part is not None:
            yield from super().rows(block)
            return
        lower, search = block.data.lower(), self._WORDS.search
        for row, _ in candidates(
            lambda start: match.span() if (match := search(lower, start)) else None, block
        ):
            if self.holds_row(block.row(row)):
                yield row


ERRORS = _Errors()

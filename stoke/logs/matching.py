"""What a person looks for in a log, and in which rows of a block of it that stands.

A row holds what is looked for if the text it is shown as does: without colour codes, the last state
of a progress bar. Most rows are ruled out as raw bytes, thousands at a time; only where a block
holds something that is not shown as it stands is a row cleaned and looked at again.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property

from stoke.errors import RequestError
from stoke.logs.sanitise import clean_line

LONGEST_CLEANED = 64 * 1024
"""Bytes of a row that are cleaned to be looked at; of a longer one the raw bytes decide."""
PIECE = 1024 * 1024
"""Bytes looked at in one go: some milliseconds in which no other thread runs."""
_OVERLAP = 4096

# What stands in a line and is not shown, as bytes: sequences and control characters.
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
"""Where something next stands in a block, from a position on."""


class Query:
    """A text, or a regular expression. In lower case it finds any case.

    `RequestError` when a regular expression is none.
    """

    def __init__(self, text: str, regex: bool = False) -> None:
        self.text = text
        self.regex = regex
        self._any_case = text == text.lower()
        if regex:
            try:
                self.pattern = re.compile(text, re.IGNORECASE if self._any_case else 0)
            except re.error as error:
                raise RequestError(
                    "pattern", f"{text!r} is no regular expression: {error}"
                ) from error
        else:
            forms = ("|".join(map(re.escape, self._forms(one))) for one in text)
            self.pattern = re.compile("".join(f"(?:{form})" for form in forms))
        # Only such a text stands in the raw bytes as it stands in the shown ones.
        self._literal = not regex and "\ufffd" not in text

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it stands in a line as shown; an empty match is none."""
        for match in self.pattern.finditer(text):
            if match.end() > match.start():
                yield match.span()

    def holds(self, text: str) -> bool:
        """Whether a line as shown holds it."""
        return self.pattern.search(text) is not None

    def rows(self, block: bytes, starts: array[int]) -> Iterator[int]:
        """Which rows of `block` hold it. `starts` are where the rows begin, and where the last ends."""
        clean = block.isascii() and len(block.translate(None, _CONTROLS)) == len(block)
        if not self._literal:
            yield from self._row_by_row(block, starts, clean)
            return
        for row, end in _candidates(self._find_in(block, clean), starts):
            after = starts[row + 1]
            if end <= after if clean else self.holds_row(block[starts[row] : after]):
                yield row

    def holds_row(self, raw: bytes) -> bool:
        """Whether one row of a spool, as raw bytes, is shown as a text that holds it."""
        if len(raw) <= LONGEST_CLEANED:
            return self.holds(clean_line(raw))
        if self._literal:
            return self._raw.search(raw) is not None
        # Nobody sees such a line whole; where it is cut a regular expression may miss.
        step = LONGEST_CLEANED - _OVERLAP
        return any(
            self.holds(clean_line(raw[at : at + LONGEST_CLEANED]))
            for at in range(0, len(raw), step)
        )

    def _row_by_row(self, block: bytes, starts: array[int], clean: bool) -> Iterator[int]:
        if not clean:
            for row in range(len(starts) - 1):
                if self.holds_row(block[starts[row] : starts[row + 1]]):
                    yield row
            return
        text, search = block.decode("ascii"), self.pattern.search
        for row in range(len(starts) - 1):
            if search(text[starts[row] : starts[row + 1]].strip("\n")):
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
    def _raw(self) -> re.Pattern[bytes]:
        forms = []
        for character in self.text:
            shown = self._forms(character) | ({"\u2028", "\u2029"} if character == " " else set())
            forms.append(b"(?:" + b"|".join(re.escape(one.encode()) for one in shown) + b")")
        return re.compile(_UNSEEN.join(forms))

    def _forms(self, character: str) -> set[str]:
        """What stands for a character, with itself."""
        if not self._any_case:
            return {character}
        every = (character, character.upper(), character.title())
        return {form for form in every if len(form) == 1}


def _candidates(find: Find, starts: array[int]) -> Iterator[tuple[int, int]]:
    """For each row in which something is found: the row, and where the first of it ends."""
    row, last = 0, len(starts) - 1
    found = find(0)
    while found is not None:
        row = bisect_right(starts, found[0], row, last) - 1
        yield row, found[1]
        if row + 1 == last:
            return
        found = find(starts[row + 1])


class _Errors(Query):
    """A line that tells of an error, as people and Python write it."""

    _WORDS = re.compile(rb"error|exception|traceback|fatal|critical|panic")

    def __init__(self) -> None:
        super().__init__(
            r"(?i:\b(?:error|exception|traceback|fatal|critical|panic)\b)|(?:Error|Exception)\b",
            regex=True,
        )

    def rows(self, block: bytes, starts: array[int]) -> Iterator[int]:
        lower, search = block.lower(), self._WORDS.search
        for row, _ in _candidates(
            lambda start: match.span() if (match := search(lower, start)) else None, starts
        ):
            if self.holds_row(block[starts[row] : starts[row + 1]]):
                yield row


ERRORS = _Errors()

"""The level of a log line: Python's logging, JSON, logfmt, klog, tracebacks and similar formats.

Only the beginning of a line is read, so the cost does not depend on its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum

from stoke.logs.search import Block, Query, candidates

_READ = 400
"""Characters of a line in which its level is looked for."""


class Level(IntEnum):
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


_LEVELS = {
    Level.ERROR: (
        *("error", "critical", "fatal", "panic", "err", "alert", "emerg", "emergency", "severe"),
    ),
    Level.WARNING: ("warning", "warn"),
    Level.INFO: ("info", "notice"),
    Level.DEBUG: ("debug", "trace", "verbose"),
}  # fmt: skip
_BY_WORD = {word: level for level, words in _LEVELS.items() for word in words}
_WORDS = "|".join(sorted(_BY_WORD, key=len, reverse=True))
# The first word in capitals: `2026-01-02 12:00:00,123 app ERROR ...`, `[ERROR] ...`, `ERROR:root:...`.
_CAPITALS = re.compile(rf"(?<![\w.-])(?P<word>{_WORDS.upper()})(?=[\s:\]|>),-]|$)")
_CAPITALS_END = 80
# In any case at the very beginning: `error: ...`, `[warning] ...`.
_AT_BEGIN = re.compile(rf"^\s*[\[<(]?(?P<word>{_WORDS})(?=\s*[\]>)]|\s*:)", re.IGNORECASE)
_FIELD = re.compile(
    rf"(?:^|[{{,\s])\"?(?:level|lvl|severity|levelname|log\.level)\"?\s*[=:]\s*\"?(?P<word>{_WORDS})\b",
    re.IGNORECASE,
)  # fmt: skip
_NUMBER = re.compile(r"\"level\"\s*:\s*(?P<number>\d{2})\b")
_KLOG = re.compile(r"^(?P<letter>[EFW])\d{4} \d\d:\d\d:\d\d")
_TRACEBACK = re.compile(
    r"^\s*(?:[|+] ?)*(?:Traceback \(most recent call last\):|File \"[^\"]+\", line \d+)"
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?P<kind>Error|Exception|Warning|Interrupt|Exit|ExceptionGroup)(?=:|$)"
)
# `fit.py:3: UserWarning: ...`
_WARNED = re.compile(r"^\S+:\d+: (?:\w+\.)*\w*Warning: ")
# Every line that warns or reports an error has one of these, in lower case.
_TELLS = re.compile(
    rb"err|critical|fatal|panic|alert|emerg|severe|warn|traceback|file \"|exception|interrupt|exit"
    rb"|\"level\"|[efw]\d{4} "
)
_LETTERS = {"E": Level.ERROR, "F": Level.ERROR, "W": Level.WARNING}


def level_of(text: str) -> Level | None:
    """Return the level of a line as shown, without colours; None if it states none."""
    text = text[:_READ]
    match = _CAPITALS.search(text, 0, _CAPITALS_END) or _AT_BEGIN.match(text) or _FIELD.search(text)
    if match:
        return _BY_WORD[match["word"].lower()]
    if match := _KLOG.match(text):
        return _LETTERS[match["letter"]]
    if _TRACEBACK.match(text):
        return Level.ERROR
    if match := _EXCEPTION.match(text):
        return Level.WARNING if match["kind"] == "Warning" else Level.ERROR
    if _WARNED.match(text):
        return Level.WARNING
    if match := _NUMBER.search(text):
        number = int(match["number"])
        return next((level for level in (Level.ERROR, Level.WARNING) if number >= level), None)
    return None


class LevelQuery(Query):
    """Matches the lines of this level and of higher ones."""

    def __init__(self, least: Level) -> None:
        super().__init__(least.name.lower())
        self.least = least
        self._literal = False  # Lines that state the level in other words match, too.

    def spans(self, text: str) -> Iterator[tuple[int, int]]:  # noqa: ARG002
        return iter(())

    def holds(self, text: str) -> bool:
        level = level_of(text)
        return level is not None and level >= self.least

    def _search_from(self, text: str, start: int) -> bool:
        # The beginning of a long row states its level.
        return start == 0 and self.holds(text)

    def rows(self, block: Block) -> Iterator[int]:
        if block.part is not None:
            yield from super().rows(block)
            return
        lower, search = block.data.lower(), _TELLS.search
        for row, _ in candidates(
            lambda start: match.span() if (match := search(lower, start)) else None, block
        ):
            if self.holds_row(block.row(row)[: 4 * _READ]):
                yield row

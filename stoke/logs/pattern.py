"""Match regular expressions that users type, within a time limit.

Python's `re` holds the GIL while it matches, and `(a|aa)+$` on a line of 40 letters takes hours: the
whole program would freeze. The `regex` package takes the same syntax, releases the GIL, and stops at a
time limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stoke.errors import RequestError

LINE_SECONDS = 1.0
"""Limit for one line that a search looks at on its own thread."""
DRAW_SECONDS = 0.02
"""Limit for one line that is being drawn."""


class SlowPatternError(RequestError):
    """A pattern took longer than its limit on one line."""

    def __init__(self, text: str) -> None:
        super().__init__(
            "pattern",
            f"{text!r} takes too long on a single line",
            "write it without repetition inside repetition, such as (a+)+",
        )


class Pattern:
    """A compiled pattern. Raises `RequestError` if `text` is not a regular expression."""

    def __init__(self, text: str, any_case: bool = False) -> None:
        import regex

        self.text = text
        try:
            self._pattern: Any = regex.compile(text, regex.IGNORECASE if any_case else 0)
        except (regex.error, re.error, OverflowError, RecursionError, ValueError) as error:
            why = f"{text!r} is not a regular expression: {error}"
            raise RequestError("pattern", why) from error

    def found_in(self, line: str, start: int = 0, seconds: float = LINE_SECONDS) -> bool:
        """Return whether `line` has a match from `start` on.

        Raises `SlowPatternError` if that takes too long.
        """
        try:
            return self._pattern.search(line, start, timeout=seconds) is not None
        except TimeoutError:
            raise SlowPatternError(self.text) from None

    def spans(self, line: str, seconds: float = DRAW_SECONDS) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of each match that is not empty. Raises `SlowPatternError` as above."""
        try:
            for match in self._pattern.finditer(line, timeout=seconds):
                if match.end() > match.start():
                    yield match.span()
        except TimeoutError:
            raise SlowPatternError(self.text) from None

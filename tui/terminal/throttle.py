"""The threads that take logs in stand back while a key is answered.

A flood takes a processor and Python's lock; a key that needs 40 ms of both waited twice as long. What
comes meanwhile is kept by the engine, and fetched a moment later.
"""

from __future__ import annotations

import time

HOLD_SECONDS = 0.1
"""A key is answered within that."""
SHARE = 0.5
"""Of the time, at most, while keys go on and on: an engine does not keep a flood for ever."""
MOST_SECONDS = 1.0
"""In one go."""


class Throttle:
    """`pressed` is for whoever answers keys, `left` for the threads that take logs in."""

    def __init__(self) -> None:
        self._until = self._looked = 0.0
        self._left = MOST_SECONDS

    def pressed(self) -> None:
        now = time.monotonic()
        self._left = min(MOST_SECONDS, self._left + SHARE * (now - self._looked))
        self._looked = now
        begin = max(now, self._until)
        self._until = min(now + HOLD_SECONDS, begin + self._left)
        self._left -= self._until - begin

    def left(self) -> float:
        """For how many seconds the key may still be being answered."""
        return max(0.0, self._until - time.monotonic())

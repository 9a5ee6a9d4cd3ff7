"""Pause log readers for 100 ms after a key press.

A flood of output occupies a processor and Python's lock: the response to a key that needs 40 ms of both
took twice as long. The engine keeps the log, so the readers fetch it a moment later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_SECONDS = 0.1
"""The response to a key takes less."""
SHARE = 0.5
"""The most of the time that readers pause while keys keep coming: engines drop old log lines."""
MOST_SECONDS = 1.0
"""The longest uninterrupted pause."""


class Throttle:
    """The driver calls `key_pressed`, the log readers `left`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = self._updated_at = 0.0
        self._budget = MOST_SECONDS

    def key_pressed(self) -> None:
        now = self._clock()
        self._budget = min(MOST_SECONDS, self._budget + SHARE * (now - self._updated_at))
        self._updated_at = now
        begin = max(now, self._until)
        self._until = min(now + PAUSE_SECONDS, begin + self._budget)
        self._budget -= self._until - begin

    def left(self) -> float:
        """Return for how many more seconds readers should pause."""
        return max(0.0, self._until - self._clock())

"""Run full garbage collections between keys.

By default, Python runs one whenever the old generation has grown by a quarter, which opening one or two
dialogs causes. It stops the program for 20 to 60 ms on a busy machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from textual.app import App

CHECK_SECONDS = 0.5
QUIET_SECONDS = 0.2
"""Time without a key before a collection."""
LATEST_SECONDS = 60.0
"""Time after which a collection does not wait any longer."""
# Young generations take a few milliseconds and hold most garbage. Python never collects the old one.
_THRESHOLDS = (2_000, 10, 1_000_000)


class GarbageCollection:
    """Starts when it is made; objects that exist by then are never collected."""

    def __init__(
        self,
        app: App[Any],
        clock: Callable[[], float] = time.monotonic,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._clock = clock
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
        gc.enable()
        self._collected_at = self._pressed_at = clock()
        app.set_interval(check_seconds, self._collect)

    def key_pressed(self) -> None:
        self._pressed_at = self._clock()

    def _collect(self) -> None:
        now = self._clock()
        quiet = now - self._pressed_at > QUIET_SECONDS or now - self._collected_at > LATEST_SECONDS
        # The last count is the number of collections that made objects old since then.
        if quiet and gc.get_count()[2]:
            gc.collect()
            self._collected_at = now

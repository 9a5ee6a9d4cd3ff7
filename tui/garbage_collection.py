"""When old garbage is looked for: between the keys.

Left to itself, Python looks through all it has whenever a quarter more has grown old, which opening a
dialog or two does. Everything stands still meanwhile, on a busy machine for 20 to 60 ms.
"""

from __future__ import annotations

import gc
import time
from typing import Any

from textual.app import App

LOOK_SECONDS = 0.5
QUIET_SECONDS = 0.2
"""Without a key: nobody waits for an answer."""
LATEST_SECONDS = 60.0
# What is young costs a few milliseconds, and most garbage is. The old is never looked at by itself.
_THRESHOLDS = (2_000, 10, 1_000_000)


class Garbage:
    """Looks from now on; what has been made so far stays."""

    def __init__(self, app: App[Any]) -> None:
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
        gc.enable()
        self._looked = self._pressed = time.monotonic()
        app.set_interval(LOOK_SECONDS, self._look)

    def pressed(self) -> None:
        """A key was."""
        self._pressed = time.monotonic()

    def _look(self) -> None:
        now = time.monotonic()
        quiet = now - self._pressed > QUIET_SECONDS or now - self._looked > LATEST_SECONDS
        # The last figure is how often something has grown old since.
        if quiet and gc.get_count()[2]:
            gc.collect()
            self._looked = now

"""Wall-clock times whose differences stay right when the system clock is set."""

from __future__ import annotations

import time


def elapsed() -> float:
    """Return seconds on a clock that is never set; it counts suspended time where the system can."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


_ORIGIN = time.time() - elapsed()


def now() -> float:
    """Return epoch seconds. Setting the system clock does not change their differences."""
    return _ORIGIN + elapsed()

"""Sizes, durations and ages as people read them, the same in commands and on screens."""

from __future__ import annotations

UNKNOWN = "-"
"""What stands for a figure that nobody knows; never a zero."""


def human_bytes(count: int | None) -> str:
    """`6.6 MB`; units are powers of 1000."""
    if count is None:
        return UNKNOWN
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float | None) -> str:
    """`1 ms`, `0.41 s`, `12 s`, `3m20s`, `1h05m`, `2d03h`: six columns for up to 99 days.

    Below 0 (a clock was set back, or two clocks differ) it is unknown.
    """
    if seconds is None or seconds < 0:
        return UNKNOWN
    if seconds < 0.0995:
        milli = seconds * 1000
        return f"{milli:.1f} ms" if milli < 0.95 else f"{milli:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def human_age(seconds: float) -> str:
    """`12s`, `5m`, `47h`, `2d`, rounded down. Below 0 (clocks differ) is 0."""
    for size, unit, until in ((1, "s", 60), (60, "m", 3600), (3600, "h", 48 * 3600)):
        if seconds < until:
            return f"{int(max(seconds, 0)) // size}{unit}"
    return f"{int(seconds) // 86400}d"

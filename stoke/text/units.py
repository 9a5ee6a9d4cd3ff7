"""Sizes, durations and ages: parsed from what people type, and printed for commands and screens."""

from __future__ import annotations

import re
from typing import Any

UNKNOWN = "-"
"""Printed for an unknown figure, never a zero."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)


def parse_size(text: Any) -> Any:
    """Return the bytes in `512m`, `2Gi`, `1.5 GB` or a plain number. Units are powers of 1024, as
    docker's. Anything but a text is returned as it is."""
    if not isinstance(text, str):
        return text
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; write it as 512m, 2g or 1.5GiB")
    power = " kmgt".index(match[2].lower() or " ")
    # A float holds whole numbers exactly only below 2**53.
    exact = match[1].isdigit() and len(match[1]) <= 18
    return int((int(match[1]) if exact else min(float(match[1]), 1e18)) * 1024**power)


def parse_duration(text: Any) -> Any:
    """Return the seconds in `90`, `90s`, `5m`, `1h30m` or `2d`. Anything but a text is returned as it
    is."""
    if not isinstance(text, str):
        return text
    text = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError(f"{text!r} is not a duration; write it as 90s, 5m or 1h30m")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def exact_size(count: int) -> str:
    """Return a text that `parse_size` reads as exactly this many bytes: `2g`, `1500m`, `1000`."""
    for power, unit in ((4, "t"), (3, "g"), (2, "m"), (1, "k")):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{unit}"
    return str(count)


def exact_number(value: float) -> str:
    """Return the number without loss and without an exponent: `0.5`, `3`, `0.0000001`."""
    from decimal import Decimal  # Not above: every command imports this module.

    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def human_bytes(count: int | None) -> str:
    """`6.6 MiB`; units are powers of 1024."""
    if count is None:
        return UNKNOWN
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_load(cores: float) -> str:
    """Return the load of processors as `98%`, 100 % for each core."""
    return f"{round(cores * 100)}%"


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

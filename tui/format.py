"""Figures and outside text as the screens show them. Unknown is a dash, never a zero."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from stoke.errors import StokeError
from stoke.logs.sanitise import clean

UNKNOWN = "-"


def plain(text: str, style: str = "") -> Text:
    """Text from outside, harmless on a terminal and never taken for markup."""
    return Text(clean(text), style=style)


def place(name: str) -> str:
    """A volume's name; a folder below the home directory begins with `~`."""
    home = str(Path.home())
    return f"~{name[len(home) :]}" if name.startswith(f"{home}/") else name


def size(count: int | None) -> str:
    """Bytes in powers of 1024: `512 B`, `46.1 MB`."""
    if count is None:
        return UNKNOWN
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1024
        if amount < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TB"


def duration(seconds: float | None) -> str:
    """`12 ms`, `3.4 s`, `2m03s`, `1h05m`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"


def age(seconds: float) -> str:
    """How long ago, no finer than a minute, so that a list at rest need not be drawn again."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return "<1m"
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h"
    return f"{minutes // (24 * 60)}d"


def hit(value: bool | None) -> str:
    return {True: "HIT", False: "MISS", None: UNKNOWN}[value]


def error_text(error: StokeError) -> Text:
    """What went wrong and, on a line of its own, what mends it."""
    text = plain(error.what)
    if error.mend:
        text.append("\n")
        text.append(clean(error.mend), style="bold")
    return text

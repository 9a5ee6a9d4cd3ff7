"""Figures and outside text as the screens show them. Unknown is a dash, never a zero."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from stoke.errors import StokeError
from stoke.text.sanitize import clean, clean_block
from stoke.text.units import UNKNOWN as UNKNOWN
from stoke.text.units import human_age, human_bytes, human_seconds


def plain(text: str, style: str = "") -> Text:
    """Text from outside, harmless on a terminal and never taken for markup."""
    return Text(clean(text), style=style)


def block(text: str, style: str = "") -> Text:
    """The same with its line breaks."""
    return Text(clean_block(text), style=style)


def place(name: str) -> str:
    """A volume's name; a folder below the home directory begins with `~`."""
    home = str(Path.home())
    return f"~{name[len(home) :]}" if name.startswith(f"{home}/") else name


size = human_bytes
duration = human_seconds


def age(seconds: float) -> str:
    """How long ago, no finer than a minute, so that a list at rest need not be drawn again."""
    return "<1m" if seconds < 60 else human_age(seconds)


def count(number: int, what: str) -> str:
    """`1 job`, `1,200 jobs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def share(part: float | None) -> str:
    """A part of 1: `95%`. What is not all of it never reads 100%, what is something never 0%."""
    if part is None:
        return UNKNOWN
    percent = round(part * 100)
    if 0 < part < 1:
        percent = min(99, max(1, percent))
    return f"{percent}%"


def hit(value: bool | None) -> str:
    return {True: "HIT", False: "MISS", None: UNKNOWN}[value]


def error_text(error: StokeError) -> Text:
    """What went wrong and, on a line of its own, how to fix it."""
    text = block(error.what)
    if error.hint:
        text.append("\n")
        text.append(clean(error.hint), style="bold")
    return text

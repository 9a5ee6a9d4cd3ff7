"""Figures and text from outside as the screens show them. Unknown is a dash, never a zero."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from stoke.errors import StokeError
from stoke.text.sanitize import clean, clean_block
from stoke.text.units import UNKNOWN as UNKNOWN
from stoke.text.units import human_age, human_bytes, human_load, human_seconds


def plain(text: str, style: str = "") -> Text:
    """Return text from outside on one line, sanitized and without markup."""
    return Text(clean(text), style=style)


def block(text: str, style: str = "") -> Text:
    """Return text from outside with its line breaks, sanitized and without markup."""
    return Text(clean_block(text), style=style)


def cell(text: str, style: str = "") -> Text:
    """Return text from outside for a cell of a table, which cuts it with an ellipsis."""
    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def place(name: str) -> str:
    """Return the name of a volume or a path; one below the home directory begins with `~`."""
    home = str(Path.home())
    return f"~{name[len(home) :]}" if name.startswith(f"{home}/") else name


def fit(text: str, width: int) -> str:
    """Return `text` in exactly `width` cells, cut with an ellipsis."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…"


def cut(text: str, width: int) -> str:
    """Return `text` in at most `width` cells, without its middle if it is longer."""
    if cell_len(text) <= width:
        return text
    tail = (width - 1) // 2
    return _head(text, width - 1 - tail) + "…" + _head(text[::-1], tail)[::-1]


def _head(text: str, width: int) -> str:
    taken = 0
    for number, character in enumerate(text):
        taken += cell_len(character)
        if taken > width:
            return text[:number]
    return text


def cut_distinct(names: Iterable[str], width: int) -> dict[str, str]:
    """Return each name, sanitized, in at most `width` cells; different names stay different."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names)):
        whole = shown = clean(name)
        number = 1
        if cell_len(whole) > width:
            tail = _head(whole[::-1], width - 2)[::-1]
            shown = next((one for one in (cut(whole, width), f"{_head(whole, 1)}…{tail}")
                          if one not in taken), cut(whole, width))  # fmt: skip
        while shown in taken:
            number += 1
            mark = f"~{number}"
            shown = cut(whole, max(1, width - len(mark))) + mark
        taken.add(shown)
        found[name] = shown
    return found


size = human_bytes
duration = human_seconds
load = human_load


def short_size(count: int) -> str:
    """Return a size in at most five cells, such as `6.6M`."""
    return size(count).replace("iB", "").replace(" ", "")


def age(seconds: float) -> str:
    """Return an age no finer than a minute, so that an idle list is seldom drawn again."""
    return "<1m" if seconds < 60 else human_age(seconds)


def count(number: int, what: str) -> str:
    """Return `1 job`, `1,200 jobs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def share(part: float | None) -> str:
    """Return a share of 1 as `95%`. Less than all is never 100%, more than none never 0%."""
    if part is None:
        return UNKNOWN
    percent = round(part * 100)
    if 0 < part < 1:
        percent = min(99, max(1, percent))
    return f"{percent}%"


def hit(value: bool | None) -> str:
    return {True: "HIT", False: "MISS", None: UNKNOWN}[value]


def error_text(error: StokeError) -> Text:
    """Return what failed and, on a line of its own, how to fix it."""
    text = block(error.what)
    if error.hint:
        text.append("\n")
        text.append(clean(error.hint), style="bold")
    return text

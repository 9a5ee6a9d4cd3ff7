"""Parse the colours of a log line: its SGR sequences become spans over the sanitized text.

All other escape sequences are removed (`stoke.text.sanitize`). A colour ends with its line, as in
`less -R`, so a job that dies while printing red does not colour later lines. Concealed text (SGR 8) is
shown, and blinking (5, 6) is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from stoke.text.sanitize import clean, clean_line, line_states

Colour = int | tuple[int, int, int] | None
"""A palette number (0-15 are the terminal's own), red, green and blue, or None for the default."""


class TextStyle(NamedTuple):
    """The style of a piece of text."""

    colour: Colour = None
    background: Colour = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False
    strike: bool = False


class Styled(NamedTuple):
    """A line as `clean_line` returns it, with its spans (start, end, style) in order."""

    text: str
    spans: tuple[tuple[int, int, TextStyle], ...] = ()


PLAIN = TextStyle()
# The sanitizer's limit on the length of a sequence. A longer one is text.
_SGR = re.compile(r"(?:\x1b\[|\x9b)([0-9;:]{0,256}+)m")
_ON: dict[int, dict[str, bool]] = {
    1: {"bold": True},
    2: {"dim": True},
    3: {"italic": True},
    4: {"underline": True},
    7: {"reverse": True},
    9: {"strike": True},
    21: {"underline": True},
    22: {"bold": False, "dim": False},
    23: {"italic": False},
    24: {"underline": False},
    27: {"reverse": False},
    29: {"strike": False},
}


def without_concealment(parameters: str) -> str | None:
    """Remove parameter 8, which conceals text, from an SGR sequence; None if nothing is left.

    Text in the colour of its background stays, because only the terminal knows its palette.
    """
    kept = []
    numbers = iter(parameters.split(";"))
    for parameter in numbers:
        while True:
            code = parameter.partition(":")[0].lstrip("0")
            if code == "8":
                break
            kept.append(parameter)
            if parameter.lstrip("0") not in ("38", "48", "58"):
                break
            # A colour follows: 5 and a number, or 2 and three numbers. An 8 among them is a colour.
            parameter = next(numbers, "")
            values = {"5": 1, "2": 3}.get(parameter.lstrip("0"))
            if values is not None:
                kept.append(parameter)
                kept += islice(numbers, values)
                break
            if not parameter:
                break
    return ";".join(kept) if kept else None


def styled_line(raw: bytes) -> Styled:
    """Return the last state of a log line (see `clean_line`) with the colours of that state."""
    if b"\x1b" not in raw and b"\xc2\x9b" not in raw:
        return Styled(clean_line(raw))
    states = line_states(raw)
    for state in reversed(states[1:]):
        if (styled := _styled(state)).text.strip():
            return styled
    return _styled(states[0])


def _styled(text: str) -> Styled:
    pieces = []
    spans: list[tuple[int, int, TextStyle]] = []
    length, at, style = 0, 0, PLAIN
    for match in _SGR.finditer(text):
        piece = clean(text[at : match.start()])
        if piece and style != PLAIN:
            spans.append((length, length + len(piece), style))
        pieces.append(piece)
        length += len(piece)
        at = match.end()
        style = _after(style, match[1])
    piece = clean(text[at:])
    if piece and style != PLAIN:
        spans.append((length, length + len(piece), style))
    pieces.append(piece)
    return Styled("".join(pieces), tuple(spans))


def _after(style: TextStyle, parameters: str) -> TextStyle:
    """Return the style after one SGR sequence; unknown parameters change nothing."""
    numbers = iter(parameters.split(";"))
    for parameter in numbers:
        code, *sub = (_number(part) for part in parameter.split(":"))
        if code == 0:
            style = PLAIN
        elif code == 4 and sub[:1] == [0]:
            style = style._replace(underline=False)
        elif code in _ON:
            style = style._replace(**_ON[code])
        elif code in (38, 48):
            colour = _extended(sub or None, numbers)
            if colour is None:
                pass
            elif code == 38:
                style = style._replace(colour=colour)
            else:
                style = style._replace(background=colour)
        elif code == 39:
            style = style._replace(colour=None)
        elif code == 49:
            style = style._replace(background=None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style = style._replace(colour=code - 30 if code < 90 else code - 82)
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style = style._replace(background=code - 40 if code < 100 else code - 92)
    return style


def _extended(sub: list[int] | None, rest: Iterator[str]) -> Colour:
    """Return the colour after 38 or 48, written with colons (in `sub`) or semicolons (in `rest`)."""
    if sub is not None:
        if sub[0] == 5 and len(sub) == 2:
            return _byte(sub[1])
        # 2:red:green:blue, or 2:colour space:red:green:blue.
        return _rgb(sub[-3:]) if sub[0] == 2 and len(sub) in (4, 5, 6) else None
    kind = _number(next(rest, ""))
    if kind == 5:
        return _byte(_number(next(rest, "")))
    if kind == 2:
        return _rgb([_number(next(rest, "")) for _ in range(3)])
    return None


def _number(text: str) -> int:
    return int(text) if text and len(text) < 6 else 0 if not text else -1


def _byte(number: int) -> int | None:
    return number if 0 <= number < 256 else None


def _rgb(numbers: list[int]) -> Colour:
    red, green, blue = numbers
    return (red, green, blue) if all(0 <= one < 256 for one in numbers) else None

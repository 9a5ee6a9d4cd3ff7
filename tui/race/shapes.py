"""Blocks, lines and Braille patterns as shapes: fonts draw them with gaps, or do not have them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby

_RANGES = "\u2500-\u259f\u2800-\u28ff"
"""The characters that may be shapes."""
_PIECES = re.compile(rf"[{_RANGES}]+|[^{_RANGES}\s]+(?:[ \xa0][^{_RANGES}\s]+)*")
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as parts of a cell."""

_LINES = {"LIGHT": 0.07, "HEAVY": 0.14}
"""The thickness of lines, as a part of the height of a cell."""
_ARMS = {
    "HORIZONTAL": ("LEFT", "RIGHT"),
    "VERTICAL": ("UP", "DOWN"),
    **{arm: (arm,) for arm in ("LEFT", "RIGHT", "UP", "DOWN")},
}
_EIGHTHS = {
    "FULL": 8,
    "HALF": 4,
    "ONE EIGHTH": 1,
    "ONE QUARTER": 2,
    "THREE EIGHTHS": 3,
    "FIVE EIGHTHS": 5,
    "THREE QUARTERS": 6,
    "SEVEN EIGHTHS": 7,
}
_QUADRANTS = {
    "UPPER LEFT": (0.0, 0.0, 0.5, 0.5),
    "UPPER RIGHT": (0.5, 0.0, 1.0, 0.5),
    "LOWER LEFT": (0.0, 0.5, 0.5, 1.0),
    "LOWER RIGHT": (0.5, 0.5, 1.0, 1.0),
}
# The dots of a Braille pattern: (column, row) of each bit.
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
_DOT = 0.11
"""The size of a dot, as a part of the height of a cell."""
_OVERLAP = 0.05
"""A shape that touches the next row goes into it by this, or a line shows between the two."""


def pieces(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield what a text has between blanks: its start, its characters, and whether they are shapes.

    Words with one blank between them stay together.
    """
    for match in _PIECES.finditer(text):
        start = match.start()
        for drawn, characters in groupby(match[0], _is_shape):
            piece = "".join(characters)
            yield start, piece, drawn
            start += len(piece)


def _is_shape(character: str) -> bool:
    return boxes(character, 1.0) is not None


@cache
def boxes(character: str, ratio: float) -> tuple[Box, ...] | None:
    """Return the boxes that make up a character; None for one that has to be drawn by a font.

    `ratio` is the width of a cell divided by its height.
    """
    name = unicodedata.name(character, "")
    if name.startswith("BRAILLE PATTERN"):
        return _braille(ord(character) - 0x2800, ratio)
    if name.startswith("BOX DRAWINGS "):
        return _lines(name.removeprefix("BOX DRAWINGS ").split(), ratio)
    if name.startswith("QUADRANT "):
        corners = name.removeprefix("QUADRANT ").split(" AND ")
        return tuple(_QUADRANTS[corner] for corner in corners)
    if name.endswith(" BLOCK"):
        return _block(name.removesuffix(" BLOCK"))
    return None


def _braille(bits: int, ratio: float) -> tuple[Box, ...]:
    width, height = _DOT / ratio / 2, _DOT / 2
    centres = [
        (0.25 + column / 2, 0.125 + row / 4)
        for bit, (column, row) in enumerate(_DOTS)
        if bits >> bit & 1
    ]
    return tuple((x - width, y - height, x + width, y + height) for x, y in centres)


def _lines(words: Sequence[str], ratio: float) -> tuple[Box, ...] | None:
    thickness = _LINES.get(words[0])
    # Corners are drawn without their arcs.
    arms = [word for word in words[1:] if word not in ("AND", "ARC")]
    if thickness is None or not all(arm in _ARMS for arm in arms):
        return None
    high = thickness / 2
    wide = high / ratio
    ways = {way for arm in arms for way in _ARMS[arm]}
    found = []
    if ways & {"LEFT", "RIGHT"}:
        left = 0.0 if "LEFT" in ways else 0.5 - wide
        found.append((left, 0.5 - high, 1.0 if "RIGHT" in ways else 0.5 + wide, 0.5 + high))
    if ways & {"UP", "DOWN"}:
        top = 0.0 if "UP" in ways else 0.5 - high
        bottom = 1.0 if "DOWN" in ways else 0.5 + high
        found.append((0.5 - wide, top, 0.5 + wide, bottom))
    return tuple(found)


def _block(name: str) -> tuple[Box, ...] | None:
    if name == "FULL":
        return ((0.0, 0.0, 1.0, 1.0),)
    side, _, size = name.partition(" ")
    part = _EIGHTHS.get(size, 0) / 8
    return {
        "UPPER": ((0.0, 0.0, 1.0, part),),
        "LOWER": ((0.0, 1.0 - part, 1.0, 1.0),),
        "LEFT": ((0.0, 0.0, part, 1.0),),
        "RIGHT": ((1.0 - part, 0.0, 1.0, 1.0),),
    }.get(side) if part else None  # fmt: skip


def path(characters: str, left: float, top: float, width: float, height: float) -> str:
    """Return the outlines of characters of `width` x `height` each, as the data of an SVG path.

    `left` and `top` are where the first one is. All of them must have boxes.
    """
    found: list[list[float]] = []
    for number, character in enumerate(characters):
        for x, y, right, bottom in boxes(character, width / height) or ():
            box = [number + x, y, number + right, bottom]
            before = found[-1] if found else box
            if before[2] == box[0] and before[1::2] == box[1::2]:
                before[2] = box[2]
            else:
                found.append(box)
    return "".join(
        f"M{left + x * width:.1f} {top + y * height:.1f}"
        f"H{left + right * width:.1f}"
        f"V{top + (bottom + _OVERLAP * (bottom == 1.0)) * height:.1f}"
        f"H{left + x * width:.1f}Z"
        for x, y, right, bottom in found
    )

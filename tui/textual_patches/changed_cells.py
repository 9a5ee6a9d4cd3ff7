"""What goes to the terminal: of a frame only the cells that have changed.

Textual sends every widget that changed whole: some 6 KiB for a log that went on by a few lines, 3 KiB
for a list in which one age did. Over a slow link that is what the keys wait behind.

What something else wrote onto the terminal stays until `forget`: at another size, or for a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, repeat
from operator import itemgetter

from rich.cells import cell_len, split_graphemes
from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

# These parts of Textual are not public; its version is pinned.

Cell = tuple[str, str]
"""What stands in a cell and its SGR codes. What takes several cells stands in the first, and the others
are empty."""

_UNKNOWN: Cell = ("\0", "")
# Cells that stay cost less than going around them.
_GAP = 8


class Canvas:
    """What the terminal shows, as far as it is known."""

    def __init__(self) -> None:
        self._rows: list[list[Cell]] = []

    def forget(self) -> None:
        """Something else may have drawn: whatever comes next is sent."""
        self._rows = []

    def draw(self, update: CompositorUpdate, system: ColorSystem) -> str:
        """What makes the terminal show `update`."""
        out = _Output()
        if isinstance(update, LayoutUpdate):
            rows = [
                [cell for strip in strips for cell in _cells(strip, system)]
                for strips in update.strips
            ]
            self._fit([len(row) for row in rows])
            pieces = [(y, 0, row) for y, row in enumerate(rows)]
        elif isinstance(update, ChopsUpdate):
            self._fit([ends[-1] if ends else 0 for ends in update.chop_ends])
            pieces = [(y, x, _cells(strip, system)) for y, x, strip in _placed(update)]
        else:
            return ""
        odd: set[int] = set()
        for y, x, cells in pieces:
            self._change(y, x, cells, odd, out)
        for y in sorted(odd):
            self._rows[y] = _mended(self._rows[y])
            out.put(y, 0, self._rows[y])
        return out.sequence()

    def _fit(self, sizes: list[int]) -> None:
        if sizes != [len(row) for row in self._rows]:
            self._rows = [[_UNKNOWN] * size for size in sizes]

    def _change(self, y: int, x: int, cells: list[Cell], odd: set[int], out: _Output) -> None:
        """Rows in which not every character takes one cell, which terminals disagree about, are sent
        whole: they go to `odd`."""
        row = self._rows[y]
        before = row[x : x + len(cells)]
        if before == cells:
            return
        whole = y in odd or any(len(text) != 1 for text, _ in row)
        row[x : x + len(cells)] = cells
        if whole or any(len(text) != 1 for text, _ in cells):
            odd.add(y)
            return
        for start, end in _runs(before, cells):
            out.put(y, x + start, cells[start:end])


class Frame(CompositorUpdate):
    """One of Textual's updates. It is drawn on the canvas when Textual sends it, and only then."""

    def __init__(self, update: CompositorUpdate, canvas: Canvas) -> None:
        self._update = update
        self._canvas = canvas

    def render_segments(self, console: Console) -> str:
        return self._canvas.draw(self._update, console._color_system or ColorSystem.TRUECOLOR)


class _Output:
    """A sequence for the terminal. Colours are set where they change, not for each piece."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._codes: str | None = None

    def put(self, y: int, x: int, cells: list[Cell]) -> None:
        self._parts.append(f"\x1b[{y + 1};{x + 1}H")
        for codes, run in groupby(cells, itemgetter(1)):
            if codes != self._codes:
                self._parts.append(f"\x1b[0;{codes}m" if codes else "\x1b[0m")
                self._codes = codes
            # What is not known and not drawn either is blank.
            self._parts.append("".join(map(itemgetter(0), run)).replace("\0", " "))

    def sequence(self) -> str:
        return "".join(self._parts) + ("\x1b[0m" if self._codes else "")


def _placed(update: ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    """(row, column, strip) of all that an update holds."""
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > x2 or end <= x1:
                continue
            whole = x1 <= x < x2 and end <= x2
            yield y, x, strip if whole else strip.crop(0, min(end, x2) - x)


def _cells(strip: Strip, system: ColorSystem) -> list[Cell]:
    cells: list[Cell] = []
    for text, style, _ in strip:
        # Without what Textual notes in it, by which no two rows of a log have the same style.
        codes = Strip.render_ansi(style.clear_meta_and_links(), system) if style else ""
        if text.isascii() or all(map(_is_single, text)):
            cells += zip(text, repeat(codes), strict=False)
        else:
            for start, end, width in split_graphemes(text)[0]:
                if width:
                    cells.append((text[start:end], codes))
                    cells += repeat(("", codes), width - 1)
                elif cells:
                    # A mark that begins a piece of text stands on what is before it.
                    cells[-1] = (cells[-1][0] + text[start:end], cells[-1][1])
    return cells


@lru_cache(4096)
def _is_single(character: str) -> bool:
    return cell_len(character) == 1


def _runs(before: list[Cell], after: list[Cell]) -> Iterator[tuple[int, int]]:
    """Where they differ: [start, end), with short gaps closed."""
    start = end = -1
    for at, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if start < 0:
            start = at
        elif at - end > _GAP:
            yield start, end
            start = at
        end = at + 1
    if start >= 0:
        yield start, end


def _mended(row: list[Cell]) -> list[Cell]:
    """The row without text that was drawn over in part: what is left of it is blank."""
    mended: list[Cell] = []
    while len(mended) < len(row):
        at = len(mended)
        text, codes = row[at]
        width = cell_len(text)
        if width == len(row[at : at + width]) and not any(
            part for part, _ in row[at + 1 : at + width]
        ):
            mended += row[at : at + max(1, width)] if width else [(" ", codes)]
        else:
            mended.append((" ", codes))
    return mended

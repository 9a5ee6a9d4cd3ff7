"""Send only the cells of a frame that differ from the cells that the terminal shows.

Textual 8.2.8 sends every changed widget whole: some 6 KiB for a log that grew by a few lines, 3 KiB for
a list in which one age changed. Over a slow link, keys wait behind that.

Text that another program writes to the terminal stays there until `TerminalCells.forget`, which a
resize and ctrl+l call.

Textual compares regions, not cells (https://github.com/Textualize/textual/pull/512); no upstream issue
is known.
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

Cell = tuple[str, str]
"""The text of a cell and its SGR codes. A wide character is in its first cell; its others are empty."""

_UNKNOWN: Cell = ("\0", "")
# Sending this many unchanged cells costs less than a cursor movement around them.
_GAP = 8


class TerminalCells:
    """The cells that the terminal shows, as far as they are known."""

    def __init__(self) -> None:
        self._rows: list[list[Cell]] = []

    def forget(self) -> None:
        """Send every cell of the next frame: another program may have drawn on the terminal."""
        self._rows = []

    def draw(self, update: CompositorUpdate, system: ColorSystem) -> str:
        """Return the escape sequences that make the terminal show `update`."""
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
        resend: set[int] = set()
        for y, x, cells in pieces:
            self._change(y, x, cells, resend, out)
        for y in sorted(resend):
            self._rows[y] = _without_halves(self._rows[y])
            out.put(y, 0, self._rows[y])
        return out.sequence()

    def _fit(self, sizes: list[int]) -> None:
        if sizes != [len(row) for row in self._rows]:
            self._rows = [[_UNKNOWN] * size for size in sizes]

    def _change(self, y: int, x: int, cells: list[Cell], resend: set[int], out: _Output) -> None:
        """Put the changed cells of a row into `out`.

        A row with characters that do not take exactly one cell is added to `resend` and sent whole,
        because terminals disagree about their width.
        """
        row = self._rows[y]
        before = row[x : x + len(cells)]
        if before == cells:
            return
        whole = y in resend or any(len(text) != 1 for text, _ in row)
        row[x : x + len(cells)] = cells
        if whole or any(len(text) != 1 for text, _ in cells):
            resend.add(y)
            return
        for start, end in _runs(before, cells):
            out.put(y, x + start, cells[start:end])


class ChangedCells(CompositorUpdate):
    """One of Textual's updates, reduced to the changed cells at the moment when Textual sends it."""

    def __init__(self, update: CompositorUpdate, cells: TerminalCells) -> None:
        self._update = update
        self._cells = cells

    def render_segments(self, console: Console) -> str:
        return self._cells.draw(self._update, console._color_system or ColorSystem.TRUECOLOR)


class _Output:
    """Escape sequences for the terminal, which set colours only where they change."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._codes: str | None = None

    def put(self, y: int, x: int, cells: list[Cell]) -> None:
        self._parts.append(f"\x1b[{y + 1};{x + 1}H")
        for codes, run in groupby(cells, itemgetter(1)):
            if codes != self._codes:
                self._parts.append(f"\x1b[0;{codes}m" if codes else "\x1b[0m")
                self._codes = codes
            # An unknown cell that was not drawn is blank.
            self._parts.append("".join(map(itemgetter(0), run)).replace("\0", " "))

    def sequence(self) -> str:
        return "".join(self._parts) + ("\x1b[0m" if self._codes else "")


def _placed(update: ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    """Yield (row, column, strip) for each strip of an update."""
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > x2 or end <= x1:
                continue
            whole = x1 <= x < x2 and end <= x2
            yield y, x, strip if whole else strip.crop(0, min(end, x2) - x)


def _cells(strip: Strip, system: ColorSystem) -> list[Cell]:
    cells: list[Cell] = []
    for text, style, _ in strip:
        # Textual adds metadata that gives each row of a log a style of its own.
        codes = Strip.render_ansi(style.clear_meta_and_links(), system) if style else ""
        if text.isascii() or all(map(_is_single, text)):
            cells += zip(text, repeat(codes), strict=False)
        else:
            for start, end, width in split_graphemes(text)[0]:
                if width:
                    cells.append((text[start:end], codes))
                    cells += repeat(("", codes), width - 1)
                elif cells:
                    # A combining mark at the start of a segment belongs to the character before it.
                    cells[-1] = (cells[-1][0] + text[start:end], cells[-1][1])
    return cells


@lru_cache(4096)
def _is_single(character: str) -> bool:
    return cell_len(character) == 1


def _runs(before: list[Cell], after: list[Cell]) -> Iterator[tuple[int, int]]:
    """Yield the ranges [start, end) that differ, with short gaps closed."""
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


def _without_halves(row: list[Cell]) -> list[Cell]:
    """Blank the remaining half of each wide character that was partly drawn over."""
    whole_cells: list[Cell] = []
    while len(whole_cells) < len(row):
        at = len(whole_cells)
        text, codes = row[at]
        width = cell_len(text)
        if width == len(row[at : at + width]) and not any(
            part for part, _ in row[at + 1 : at + width]
        ):
            whole_cells += row[at : at + max(1, width)] if width else [(" ", codes)]
        else:
            whole_cells.append((" ", codes))
    return whole_cells

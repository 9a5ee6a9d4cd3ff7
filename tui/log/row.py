"""One line of a log as it is drawn: its cells, its colours, and where it wraps.

A line becomes plain segments whose styles are colours and attributes; nothing in it is markup.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from rich.cells import cell_len, split_graphemes
from rich.color import Color
from rich.segment import Segment
from rich.style import Style

from stoke.logs.levels import level_of
from stoke.logs.search import Query
from stoke.logs.spool import NOTE
from stoke.text.ansi import Colour, Styled, TextStyle

TAB = 8
# No language stacks this many combining marks on a character; some terminals hang on thousands.
_MOST_COMBINED = 16

Span = tuple[int, int]


class LogRow:
    """`text` is drawn, with tabs as spaces. Positions count characters, columns count cells."""

    __slots__ = ("_columns", "_gained", "_plain", "_spans", "_starts", "_tabs", "_wrapped",
                 "level", "stream", "text", "time", "width")  # fmt: skip

    def __init__(self, stream: int, time: int, styled: Styled) -> None:
        self.stream = stream
        self.time = time
        self._plain, spans = styled
        graphemes = _graphemes(self._plain)
        if any(end - start > _MOST_COMBINED for start, end, _ in graphemes):
            self._plain = "".join(
                self._plain[start : min(end, start + _MOST_COMBINED)] for start, end, _ in graphemes
            )
            spans = ()
        self._expand()
        self._spans = [(self._drawn(start), self._drawn(end), style) for start, end, style in spans]
        self._measure()
        # A job that colours a line itself knows better.
        self.level = level_of(self.text) if not spans and stream != NOTE else None
        self._wrapped: tuple[int, list[Span]] = (0, [])

    def _expand(self) -> None:
        """Replace tabs by spaces; record their positions and the characters added up to each."""
        self._tabs, self._gained = array("I"), array("I", [0])
        self.text = self._plain
        if "\t" not in self._plain:
            return
        parts, column, at = [], 0, 0
        for part in self._plain.split("\t"):
            column += cell_len(part)
            blanks = TAB - column % TAB
            parts += [part, " " * blanks]
            column += blanks
            at += len(part)
            self._tabs.append(at)
            self._gained.append(self._gained[-1] + blanks - 1)
            at += 1
        self._tabs.pop()
        self._gained.pop()
        self.text = "".join(parts[:-1])

    def _measure(self) -> None:
        """Record where graphemes begin, and in which columns; nothing if each character is one cell."""
        self._starts, self._columns = array("I"), array("I")
        self.width = len(self.text)
        graphemes = _graphemes(self.text)
        if not graphemes or self.width == len(graphemes) == sum(cells for *_, cells in graphemes):
            return
        column = 0
        for start, _, cells in graphemes:
            self._starts.append(start)
            self._columns.append(column)
            column += cells
        self._starts.append(len(self.text))
        self._columns.append(column)
        self.width = column

    def _drawn(self, at: int) -> int:
        """Return the position in `text` of a position in the original line."""
        return at + self._gained[bisect_left(self._tabs, at)]

    def column(self, at: int) -> int:
        """Return the column of a position."""
        if not self._starts:
            return min(at, self.width)
        return self._columns[max(0, bisect_right(self._starts, at) - 1)]

    def window(self, left: int, width: int) -> tuple[int, int, int]:
        """Return the text that fits these columns: (start, end, blank cells in front)."""
        if not self._starts:
            return min(left, len(self.text)), min(left + width, len(self.text)), 0
        first = bisect_left(self._columns, left)
        if first >= len(self._columns):
            return len(self.text), len(self.text), 0
        last = bisect_right(self._columns, left + width) - 1
        blanks = min(width, self._columns[first] - left)
        return self._starts[first], self._starts[max(first, last)], blanks

    def parts(self, width: int) -> list[Span]:
        """Return the text in parts that fit `width` columns; one at least."""
        if self._wrapped[0] != width:
            edges = [0]
            while edges[-1] < len(self.text):
                if self._starts:
                    at = bisect_left(self._starts, edges[-1])
                    end = bisect_right(self._columns, self._columns[at] + width) - 1
                    # A character wider than the window is a part of its own.
                    edges.append(self._starts[max(end, at + 1)])
                else:
                    edges.append(min(edges[-1] + width, len(self.text)))
            self._wrapped = (width, list(pairwise(edges)) or [(0, 0)])
        return self._wrapped[1]

    def matches(self, query: Query, most: int) -> list[Span]:
        """Return the first `most` matches in the drawn text."""
        found = []
        for start, end in query.spans(self._plain):
            found.append((self._drawn(start), self._drawn(end)))
            if len(found) == most:
                break
        return found

    def segments(
        self, start: int, end: int, base: Style, over: Sequence[tuple[int, int, Style]] = ()
    ) -> Iterator[Segment]:
        """Yield the text [start, end) in its colours on `base`, with the styles of `over` on top."""
        first = bisect_right(self._spans, start, key=lambda span: span[1])
        last = bisect_left(self._spans, end, key=lambda span: span[0])
        layers = [(a, b, rich_style(style)) for a, b, style in self._spans[first:last]]
        layers += [(a, b, style) for a, b, style in over if a < end and b > start]
        edges = {start, end}
        for a, b, _ in layers:
            edges |= {max(a, start), min(b, end)}
        for a, b in pairwise(sorted(edges)):
            style = base
            for begin, stop, layer in layers:
                if begin <= a and b <= stop:
                    style += layer
            yield Segment(self.text[a:b], style)


def _graphemes(text: str) -> list[tuple[int, int, int]]:
    if text.isascii():
        return []
    return split_graphemes(text)[0]


@lru_cache(maxsize=1024)
def rich_style(style: TextStyle) -> Style:
    return Style(
        color=_colour(style.colour),
        bgcolor=_colour(style.background),
        bold=style.bold or None,
        dim=style.dim or None,
        italic=style.italic or None,
        underline=style.underline or None,
        reverse=style.reverse or None,
        strike=style.strike or None,
    )


def _colour(colour: Colour) -> Color | None:
    if colour is None:
        return None
    return Color.from_ansi(colour) if isinstance(colour, int) else Color.from_rgb(*colour)

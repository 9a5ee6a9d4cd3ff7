"""One line of a log as it is drawn: its cells, its colours, and where it breaks when it wraps.

Nothing here is markup: a line becomes plain segments whose styles are colours and attributes only.
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

from stoke.logs.search import Query
from stoke.text.ansi import Colour, Styled, TextStyle

TAB = 8
# Marks stacked on one character beyond this are an attack on the terminal, not a language.
_MOST_JOINED = 16

Span = tuple[int, int]


class LogRow:
    """`text` is what is drawn, tabs as blanks; positions in it are characters, columns are cells."""

    __slots__ = ("_columns", "_gained", "_plain", "_spans", "_starts", "_tabs", "_wrapped",
                 "stream", "text", "time", "width")  # fmt: skip

    def __init__(self, stream: int, time: int, styled: Styled) -> None:
        self.stream = stream
        self.time = time
        self._plain, spans = styled
        graphemes = _graphemes(self._plain)
        if any(end - start > _MOST_JOINED for start, end, _ in graphemes):
            self._plain = "".join(
                self._plain[start : min(end, start + _MOST_JOINED)] for start, end, _ in graphemes
            )
            spans = ()
        self._expand()
        self._spans = [(self._drawn(start), self._drawn(end), look) for start, end, look in spans]
        self._measure()
        self._wrapped: tuple[int, list[Span]] = (0, [])

    def _expand(self) -> None:
        """Tabs become blanks; `_tabs` and `_gained` say where, and how many characters that added."""
        self._tabs, self._gained = array("I"), array("I", [0])
        self.text = self._plain
        if "\t" not in self._plain:
            return
        pieces, column, at = [], 0, 0
        for piece in self._plain.split("\t"):
            column += cell_len(piece)
            blanks = TAB - column % TAB
            pieces += [piece, " " * blanks]
            column += blanks
            at += len(piece)
            self._tabs.append(at)
            self._gained.append(self._gained[-1] + blanks - 1)
            at += 1
        self._tabs.pop()
        self._gained.pop()
        self.text = "".join(pieces[:-1])

    def _measure(self) -> None:
        """Where graphemes begin, and in which columns: empty when each character is a cell."""
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
        """A position in the line as it is, as one in the text drawn."""
        return at + self._gained[bisect_left(self._tabs, at)]

    def column(self, at: int) -> int:
        """The column of a position."""
        if not self._starts:
            return min(at, self.width)
        return self._columns[max(0, bisect_right(self._starts, at) - 1)]

    def window(self, left: int, width: int) -> tuple[int, int, int]:
        """What of the text lies whole in these columns: (start, end, blank cells in front)."""
        if not self._starts:
            return min(left, len(self.text)), min(left + width, len(self.text)), 0
        first = bisect_left(self._columns, left)
        if first >= len(self._columns):
            return len(self.text), len(self.text), 0
        last = bisect_right(self._columns, left + width) - 1
        blanks = min(width, self._columns[first] - left)
        return self._starts[first], self._starts[max(first, last)], blanks

    def parts(self, width: int) -> list[Span]:
        """The text in pieces that fit `width` columns; one at least."""
        if self._wrapped[0] != width:
            edges = [0]
            while edges[-1] < len(self.text):
                if self._starts:
                    at = bisect_left(self._starts, edges[-1])
                    end = bisect_right(self._columns, self._columns[at] + width) - 1
                    # A character wider than the window is drawn all the same.
                    edges.append(self._starts[max(end, at + 1)])
                else:
                    edges.append(min(edges[-1] + width, len(self.text)))
            self._wrapped = (width, list(pairwise(edges)) or [(0, 0)])
        return self._wrapped[1]

    def marks(self, query: Query, most: int) -> list[Span]:
        """Where in the drawn text what is looked for stands, `most` times at most."""
        found = []
        for start, end in query.spans(self._plain):
            found.append((self._drawn(start), self._drawn(end)))
            if len(found) == most:
                break
        return found

    def segments(
        self, start: int, end: int, base: Style, over: Sequence[tuple[int, int, Style]] = ()
    ) -> Iterator[Segment]:
        """The text [start, end) in its colours on `base`, with further styles over parts of it."""
        first = bisect_right(self._spans, start, key=lambda span: span[1])
        last = bisect_left(self._spans, end, key=lambda span: span[0])
        layers = [(a, b, style_of(look)) for a, b, look in self._spans[first:last]]
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
def style_of(look: TextStyle) -> Style:
    return Style(
        color=_colour(look.colour),
        bgcolor=_colour(look.background),
        bold=look.bold or None,
        dim=look.dim or None,
        italic=look.italic or None,
        underline=look.underline or None,
        reverse=look.reverse or None,
        strike=look.strike or None,
    )


def _colour(colour: Colour) -> Color | None:
    if colour is None:
        return None
    return Color.from_ansi(colour) if isinstance(colour, int) else Color.from_rgb(*colour)

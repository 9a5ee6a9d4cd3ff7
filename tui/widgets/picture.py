"""A picture as coloured half blocks, two pixels a cell: every terminal with many colours shows them."""

from __future__ import annotations

from itertools import zip_longest

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from stoke.results.decoded import Picture

_UPPER_HALF = "\u2580"


class PictureView(Widget):
    """Shows a picture in its own size."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self._picture = picture

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002
        return self._picture.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        return (self._picture.height + 1) // 2

    def render_line(self, y: int) -> Strip:
        picture = self._picture
        if 2 * y >= picture.height:
            return Strip.blank(self.size.width)
        upper, lower = self._colours(2 * y), self._colours(2 * y + 1)
        pairs = zip_longest(upper, lower)
        cells = [Segment(_UPPER_HALF, Style(color=above, bgcolor=below)) for above, below in pairs]
        return Strip(cells, picture.width).simplify().adjust_cell_length(self.size.width)

    def _colours(self, row: int) -> list[Color]:
        """Return the colours of a row of pixels; none below the last."""
        start = 3 * self._picture.width * row
        line = self._picture.pixels[start : start + 3 * self._picture.width]
        return [Color.from_rgb(*line[at : at + 3]) for at in range(0, len(line), 3)]

"""The screen as an SVG file that loads no font from the network and depends on the screen only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape, unescape
from typing import Any

from rich.cells import cell_len
from textual.app import App

from tui.race import shapes

# Of the pictures of the exporter, and the top of a row above the text in it.
_CELL, _ROW, _ABOVE = 12.2, 24.4, 18.5
_TEXT = re.compile(
    r'<text class="([^"]*)" x="([\d.]+)" y="([\d.]+)" textLength="[\d.]+" '
    r'clip-path="([^"]*)">([^<]*)</text>'
)


def svg(app: App[Any]) -> str:
    picture = app.export_screenshot(title="stoke")
    picture = re.sub(r"@font-face\s*{[^}]*}", "", picture)
    picture = picture.replace("Fira Code", "monospace")
    # The exporter adds random numbers.
    return placed(re.sub(r"terminal-\d+", "terminal", picture))


def placed(picture: str) -> str:
    """Give each piece of text between blanks its own position, and draw lines and blocks as shapes.

    Some viewers drop blanks at the start of a text, and draw the rest of it too far to the left.
    """
    return _TEXT.sub(lambda match: "".join(_drawn(match)), picture)


def _drawn(match: re.Match[str]) -> Iterator[str]:
    style, x, y, clip, content = match.groups()
    text = unescape(content)
    for start, piece, is_shape in shapes.pieces(text):
        left = float(x) + cell_len(text[:start]) * _CELL
        if is_shape:
            data = shapes.path(piece, left, float(y) - _ABOVE, _CELL, _ROW)
            if data:
                yield f'<path class="{style}" d="{data}"/>'
            continue
        shown = escape(piece).replace("\xa0", "&#160;")
        length = cell_len(piece) * _CELL
        yield (
            f'<text class="{style}" x="{left:.1f}" y="{y}" textLength="{length:.1f}" '
            f'clip-path="{clip}">{shown}</text>'
        )

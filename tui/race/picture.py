"""The screen as an SVG file that loads no font from the network and depends on the screen only."""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Any

from rich.cells import cell_len
from textual.app import App

_CELL = 12.2
"""The width of a cell in the pictures of the exporter."""
_TEXT = re.compile(
    r'<text class="([^"]*)" x="([\d.]+)" y="([\d.]+)" textLength="[\d.]+" '
    r'clip-path="([^"]*)">([^<]*)</text>'
)
_WORDS = re.compile("[^\xa0]+(?:\xa0[^\xa0]+)*")


def svg(app: App[Any]) -> str:
    picture = app.export_screenshot(title="stoke")
    picture = re.sub(r"@font-face\s*{[^}]*}", "", picture)
    picture = picture.replace("Fira Code", "monospace")
    # The exporter adds random numbers.
    return placed(re.sub(r"terminal-\d+", "terminal", picture))


def placed(picture: str) -> str:
    """Give each piece of text between blanks its own position.

    Some viewers drop blanks at the start of a text, and draw the rest of it too far to the left.
    """
    return _TEXT.sub(_pieces, picture)


def _pieces(match: re.Match[str]) -> str:
    style, x, y, clip, content = match.groups()
    text = unescape(content)
    pieces = []
    for words in _WORDS.finditer(text):
        left = float(x) + cell_len(text[: words.start()]) * _CELL
        length = cell_len(words[0]) * _CELL
        shown = escape(words[0]).replace("\xa0", "&#160;")
        pieces.append(
            f'<text class="{style}" x="{left:.1f}" y="{y}" textLength="{length:.1f}" '
            f'clip-path="{clip}">{shown}</text>'
        )
    return "".join(pieces)

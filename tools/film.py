"""A recording of a screen as one animated SVG that plays in any page with pictures.

Each frame is drawn over the ones before it and has only the changed rows. Viewers without animations,
and users who turned them off, see the last frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

from rich.cells import cell_len
from rich.color import blend_rgb
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME as THEME

from tui.race import shapes

# The width of a character and the height of a row, in pixels.
CELL = 8.4
LINE = 17
BEZEL = 12
FONT = 14
HOLD_SECONDS = 4.0
"""Seconds for which the last frame is shown before the recording restarts."""

Row = tuple[Segment, ...]


@dataclass
class Film:
    """Frames of `width` x `height` cells."""

    width: int
    height: int
    _frames: list[tuple[float, dict[int, Row]]] = field(default_factory=list)
    _shown: dict[int, Row] = field(default_factory=dict)

    def add(self, seconds: float, rows: Iterable[Iterable[Segment]]) -> None:
        """Add the screen at `seconds` after the beginning."""
        changed = {}
        for y, row in enumerate(rows):
            segments = tuple(Segment.simplify(row))
            if self._shown.get(y) != segments:
                changed[y] = self._shown[y] = segments
        if changed:
            self._frames.append((seconds, changed))

    def svg(self) -> str:
        end = (self._frames[-1][0] if self._frames else 0.0) + HOLD_SECONDS
        looks: dict[str, str] = {}
        body, moments = [], []
        for number, (seconds, rows) in enumerate(self._frames):
            parts = [self._row(y, row, looks) for y, row in sorted(rows.items())]
            # The texts above all grounds, because blocks reach a little into the next row.
            drawn = "".join(ground for ground, _ in parts) + "".join(text for _, text in parts)
            body.append(f'<g class="f{number}">{drawn}</g>')
            if number:  # The first is shown from the beginning.
                moments.append(
                    f"@keyframes f{number}{{0%{{visibility:hidden}}"
                    f"{100 * seconds / end:.3f}%{{visibility:visible}}}}"
                    f".f{number}{{animation:f{number} {end:.2f}s step-end infinite}}"
                )
        styles = "".join(f".{name}{{{css}}}" for css, name in looks.items())
        width = self.width * CELL + 2 * BEZEL
        height = self.height * LINE + 2 * BEZEL
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">\n'
            f"<style>text{{font:{FONT}px ui-monospace,Menlo,Consolas,monospace;white-space:pre}}"
            f"{styles}@media (prefers-reduced-motion:no-preference){{{''.join(moments)}}}</style>\n"
            f'<rect width="100%" height="100%" rx="8" fill="{THEME.background_color.hex}"/>\n'
            f'<g transform="translate({BEZEL} {BEZEL})">\n' + "\n".join(body) + "\n</g>\n</svg>\n"
        )

    def _row(self, y: int, row: Row, looks: dict[str, str]) -> tuple[str, str]:
        """Return what is behind the text of a row, and the text."""
        ground, text, x = [], [], 0
        for words, style, _ in row:
            cells = cell_len(words)
            css, colour = _look(style or Style.null())
            left, width = f"{x * CELL:.5g}", f"{cells * CELL + 0.3:.5g}"
            # A hair larger than the text, or lines show between the grounds at some sizes.
            ground.append(
                f'<rect x="{left}" y="{y * LINE}" width="{width}" height="{LINE + 0.3}"'
                f' fill="{colour}"/>'
            )
            # Some viewers draw several blanks as one, so what is between them has its own position.
            for start, piece, is_shape in shapes.pieces(words):
                name = looks.setdefault(css, f"s{len(looks)}")
                before = (x + cell_len(words[:start])) * CELL
                if is_shape:
                    data = shapes.path(piece, before, y * LINE, CELL, LINE)
                    text.append(f'<path class="{name}" d="{data}"/>')
                    continue
                left, width = f"{before:.5g}", f"{cell_len(piece) * CELL:.5g}"
                # The length is given, so that every font keeps to the cells.
                text.append(
                    f'<text class="{name}" x="{left}" y="{y * LINE + FONT}" textLength="{width}"'
                    f' lengthAdjust="spacingAndGlyphs">{escape(piece)}</text>'
                )
            x += cells
        return "".join(ground), "".join(text)


def _look(style: Style) -> tuple[str, str]:
    """(CSS of the text, colour behind it)."""
    fore = style.color.get_truecolor(THEME) if style.color else THEME.foreground_color
    back = (
        style.bgcolor.get_truecolor(THEME, foreground=False)
        if style.bgcolor
        else THEME.background_color
    )
    if style.reverse:
        fore, back = back, fore
    if style.dim:
        fore = blend_rgb(fore, back, 0.4)
    css = [f"fill:{fore.hex}"]
    if style.bold:
        css.append("font-weight:bold")
    if style.italic:
        css.append("font-style:italic")
    if style.underline:
        css.append("text-decoration:underline")
    return ";".join(css), back.hex

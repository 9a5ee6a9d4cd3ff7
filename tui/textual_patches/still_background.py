"""Draw the screen behind a dialog once.

Textual 8.2.8 draws the screen behind a `ModalScreen` anew with each frame, through Rich
(`BackgroundScreen`): that takes longer than everything else that opening a dialog needs, and each
change back there crosses the link to the terminal.

Textual wants the background to be live: https://github.com/Textualize/textual/issues/3055 and
https://github.com/Textualize/textual/pull/6307.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

from rich.segment import Segment
from rich.style import Style
from textual import visual
from textual.color import Color
from textual.css.styles import RulesMap
from textual.geometry import Region, Size
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.strip import Strip
from textual.widget import Widget

REFRESH_SECONDS = 0.1


class StillBackgroundScreen(ModalScreen[ScreenResultType]):
    """A modal screen over a picture of the screen behind it.

    The picture is taken when the dialog opens, once more `REFRESH_SECONDS` later (keys pressed before
    the dialog opened may still change the screen), and whenever the size or the tint changes.
    """

    _background: _Background | None = None
    _background_changed = False

    def on_mount(self) -> None:
        self.set_timer(REFRESH_SECONDS, self._refresh_background)

    def _refresh_background(self) -> None:
        if self._background_changed:
            self._background = None
            self.refresh()

    def render(self) -> Any:
        rendered = super().render()
        if not isinstance(rendered, BackgroundScreen):
            return rendered
        background = self._background
        if background is None or background.tint != rendered.color or not self._is_drawn:
            self._background = _Background(rendered.screen, rendered.color)
        return self._background

    @property
    def _is_drawn(self) -> bool:
        """Whether the background was drawn in the present size."""
        background = self._background
        return background is not None and background.drawn_size == background.size == self.size

    def on_screen_suspend(self) -> None:
        # Free the drawn strips now instead of leaving them to the garbage collector.
        for widget in (self, *self.walk_children(Widget)):
            widget._styles_cache.clear()
        self._background = None

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        # Textual passes regions when the screen behind has changed there.
        if regions and self._is_drawn:
            self._background_changed = True
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class _Background(visual.Visual):
    def __init__(self, screen: Screen[object], tint: Color) -> None:
        self.screen = screen
        self.tint = tint
        self.drawn_size: Size | None = None
        self._strips: list[Strip] = []

    @property
    def size(self) -> Size:
        """The size that the screen behind was laid out for; it follows `Screen.size` later."""
        return self.screen._compositor.size

    def render_strips(self, *_: object) -> list[Strip]:
        if self.drawn_size != self.size:
            self.drawn_size = self.size
            self._strips = [self._dim(strip) for strip in self.screen._compositor.render_strips()]
        return self._strips

    def _dim(self, strip: Strip) -> Strip:
        tint = self.tint
        segments = [
            segment if segment.control else Segment(segment.text, _dimmed(segment.style, tint))
            for segment in strip
        ]
        return Strip(segments, strip.cell_length)

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:  # noqa: ARG002
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:  # noqa: ARG002
        return self.screen.size.height


@lru_cache(maxsize=2048)
def _dimmed(style: Style | None, tint: Color) -> Style:
    if style is None:
        return Style()
    plain = style.clear_meta_and_links()
    if tint.a == 0:
        return plain
    fore, back = (
        (Color.from_rich_color(colour) + tint).rich_color if colour is not None else None
        for colour in (plain.color, plain.bgcolor)
    )
    return plain + Style.from_color(fore, back)

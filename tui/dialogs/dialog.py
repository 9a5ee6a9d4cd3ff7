"""A screen over another one, which shows through, dimmed, as it was."""

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

from tui.base_screen import ThriftyScreen

SETTLED_SECONDS = 0.1


class Dialog(ModalScreen[ScreenResultType], ThriftyScreen[ScreenResultType]):
    """What is behind it stands still. Textual would draw it anew with each frame, by way of Rich, which
    takes longer than all else that opening a dialog needs; and what goes on there would go over the
    link, for nobody to look at."""

    _behind: _Behind | None = None
    _missed = False

    def on_mount(self) -> None:
        self.set_timer(SETTLED_SECONDS, self._look_again)

    def _look_again(self) -> None:
        """What the keys before this asked for has come by now."""
        if self._missed:
            self._behind = None
            self.refresh()

    def render(self) -> Any:
        shown = super().render()
        if not isinstance(shown, BackgroundScreen):
            return shown
        if self._behind is None or self._behind.tint != shown.color or not self._stands:
            self._behind = _Behind(shown.screen, shown.color)
        return self._behind

    @property
    def _stands(self) -> bool:
        """Whether what is behind is known, in this size."""
        behind = self._behind
        return behind is not None and behind.drawn_in == behind.now_in == self.size

    def on_screen_suspend(self) -> None:
        """What it drew goes at once, and is not left to whoever looks for garbage."""
        for widget in (self, *self.walk_children(Widget)):
            widget._styles_cache.clear()
        self._behind = None

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        # With regions it is what is behind that has changed there.
        if regions and self._stands:
            self._missed = True
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class _Behind(visual.Visual):
    def __init__(self, screen: Screen[object], tint: Color) -> None:
        self.screen = screen
        self.tint = tint
        self.drawn_in: Size | None = None
        self._strips: list[Strip] = []

    @property
    def now_in(self) -> Size:
        """Its size as far as it has been laid out, which comes after its size was set."""
        return self.screen._compositor.size

    def render_strips(self, *_: object) -> list[Strip]:
        if self.drawn_in != self.now_in:
            self.drawn_in = self.now_in
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

"""Show a screen again without styling and laying out all of it.

Textual 8.2.8 parses all style sheets twice when a screen is first shown, and styles every widget of a
screen each time it is shown: half of the time that changing screens takes. It also lays out a screen,
and the one behind it, because a screen of the same size was laid out.

The event flag that this module uses to skip the styling came with
https://github.com/Textualize/textual/pull/6314, which sets it for Textual's own cases only.
"""

from __future__ import annotations

from typing import Any

from textual import events
from textual.geometry import Size
from textual.screen import Screen, ScreenResultType


class CheapResumeScreen(Screen[ScreenResultType]):
    """Styled when it is made and when the theme changes; laid out when its size changes.

    Textual counts theme changes in `_css_update_count`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The app itself is styled together with its first screen.
        if self.app.screen_stack:
            self._css_update_count = self.app._css_update_count

    def _on_screen_resume(self, event: events.ScreenResume) -> None:
        event.refresh_styles = False
        self._css_update_count = self.app._css_update_count

    def _screen_resized(self, size: Size) -> None:
        if size != self._size:
            super()._screen_resized(size)

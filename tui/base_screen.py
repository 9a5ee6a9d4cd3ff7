"""What every screen of ours is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events
from textual.dom import DOMNode
from textual.geometry import Size
from textual.screen import Screen, ScreenResultType

if TYPE_CHECKING:
    from tui.app import StokeApp

WIDE = 110


def app_of(node: DOMNode) -> StokeApp:
    return cast("StokeApp", node.app)


class ThriftyScreen(Screen[ScreenResultType]):
    """Styled as it is made, and when a theme changes (Textual counts those); laid out when its size
    changes.

    Left to itself, Textual reads all style sheets again, twice, when a screen is first shown, and
    styles all of it again whenever it is shown: half of what changing screens takes. It lays a screen
    and the one behind it out again because the screen has been laid out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # With the first screen the program itself is styled.
        if self.app.screen_stack:
            self._css_update_count = self.app._css_update_count

    def _on_screen_resume(self, event: events.ScreenResume) -> None:
        event.refresh_styles = False
        self._css_update_count = self.app._css_update_count

    def _screen_resized(self, size: Size) -> None:
        if size != self._size:
            super()._screen_resized(size)


class StokeScreen(ThriftyScreen[None]):
    """A screen of the program: below 110 columns things stand below one another."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012
    CHANGES: ClassVar[frozenset[str]] = frozenset()
    """The actions that a read-only program does not offer."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (action in self.CHANGES and self.stoke.read_only)

    def leaving(self) -> None:
        """The program is about to end; what is not kept yet is kept now."""

    @property
    def stoke(self) -> StokeApp:
        return app_of(self)

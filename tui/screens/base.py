"""What every screen of ours is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.dom import DOMNode
from textual.screen import Screen

if TYPE_CHECKING:
    from tui.app import StokeApp

WIDE = 110


def app_of(node: DOMNode) -> StokeApp:
    return cast("StokeApp", node.app)


class StokeScreen(Screen[None]):
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

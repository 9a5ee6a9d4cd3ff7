"""What all screens of the program share."""

from __future__ import annotations

from typing import ClassVar

from textual.widget import Widget

from stoke.errors import StokeError
from tui.context import Context
from tui.notifications import show_error
from tui.textual_patches.cheap_resume import CheapResumeScreen

WIDE = 110
"""Columns from which on a screen puts its parts side by side."""
HIGH = 34
"""Rows from which on a screen shows what is useful beside its main part."""


class StokeScreen(CheapResumeScreen[None]):
    """A screen that fills the terminal; a narrow one stacks its parts."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (HIGH, "-high")]  # noqa: RUF012
    ALLOW_IN_MAXIMIZED_VIEW = "TopBar, KeyBar, .errors"
    PANES: ClassVar[str] = ""
    """Selects the widgets that can be zoomed."""
    CHANGES: ClassVar[frozenset[str]] = frozenset()
    """The actions that are not offered with `read_only`."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (action in self.CHANGES and self.context.read_only)

    def offers(self, action: str) -> bool:  # noqa: ARG002
        """Return whether to show a key that works; one that is not shown may explain itself."""
        return True

    @property
    def can_zoom(self) -> bool:
        return self.maximized is not None or self._focused_pane is not None

    @property
    def _focused_pane(self) -> Widget | None:
        focused = self.focused
        if focused is None or not self.PANES:
            return None
        panes = set(self.query(self.PANES))
        ancestors = (node for node in focused.ancestors_with_self if isinstance(node, Widget))
        return next((node for node in ancestors if node in panes), None)

    def zoom(self) -> None:
        """Show the focused pane on the whole screen, or all panes again."""
        self.maximized = None if self.maximized is not None else self._focused_pane

    def show_error(self, error: StokeError) -> None:
        show_error(self, error)

    def save_unsaved(self) -> None:
        """Save now what is usually saved later: the program is about to end."""

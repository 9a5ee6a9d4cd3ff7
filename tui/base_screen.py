"""What all screens of the program share."""

from __future__ import annotations

from typing import ClassVar

from stoke.errors import StokeError
from tui.context import Context
from tui.notifications import show_error
from tui.textual_patches.cheap_resume import CheapResumeScreen

WIDE = 110
"""Columns from which on a screen puts its parts side by side."""


class StokeScreen(CheapResumeScreen[None]):
    """A screen that fills the terminal; a narrow one stacks its parts."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012
    CHANGES: ClassVar[frozenset[str]] = frozenset()
    """The actions that are not offered with `read_only`."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (action in self.CHANGES and self.context.read_only)

    def show_error(self, error: StokeError) -> None:
        show_error(self, error)

    def save_unsaved(self) -> None:
        """Save now what is usually saved later: the program is about to end."""

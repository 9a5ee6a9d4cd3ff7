"""The line between the list and the details of Jobs, which keys move and the next start restores."""

from __future__ import annotations

from textual.geometry import Size
from textual.widget import Widget

from tui.base_screen import WIDE
from tui.ui_state import UiState

LEAST, MOST, STEP = 15, 85, 5
"""Percent of the screen that the list takes."""
_LIST_SHARE = 40
"""The most that the list takes of a narrow screen, unless its user moved the split."""
# The bars at the top and at the bottom of the screen.
_BARS = 2
_LEAST_ROWS = 4


class Split:
    def __init__(self, side: Widget, ui_state: UiState) -> None:
        """`side` holds the list."""
        self._side = side
        self._ui_state = ui_state
        stored = ui_state.get("split")
        self._shares = {
            name: share
            for name, share in (stored.items() if isinstance(stored, dict) else ())
            if isinstance(share, int) and LEAST <= share <= MOST
        }

    def place(self, screen: Size, rows: int, is_alone: bool) -> None:
        """Divide the screen as the user did, or give the list its `rows` and the log the rest."""
        share = self._shares.get(_arrangement(screen))
        width, height = "1fr", "1fr"
        if is_alone:
            pass
        elif _is_wide(screen):
            width = f"{share}%" if share is not None else ""
        else:
            most = _room(screen) * (_LIST_SHARE if share is None else share) // 100
            height = str(max(_LEAST_ROWS, min(most, rows) if share is None else most))
        # Without a width, the style sheet decides.
        self._side.styles.width = width or None
        self._side.styles.height = height

    def move(self, screen: Size, direction: int) -> None:
        """Enlarge the list by a step, or shrink it."""
        size = self._side.outer_size
        now = (size.width if _is_wide(screen) else size.height) * 100 / _room(screen)
        share = (round(now / STEP) + direction) * STEP
        self._shares[_arrangement(screen)] = max(LEAST, min(MOST, share))
        self._ui_state.set(split=self._shares)


def _is_wide(screen: Size) -> bool:
    return screen.width >= WIDE


def _arrangement(screen: Size) -> str:
    return "wide" if _is_wide(screen) else "narrow"


def _room(screen: Size) -> int:
    return screen.width if _is_wide(screen) else max(1, screen.height - _BARS)

"""What Textual's `App` has no public way to do.

- Textual 8.2.8 has no hook between a frame and the terminal; `changed_cells` says why one is needed.
- It prints the traceback of an unexpected error with local variables, which can hold secrets. No
  setting turns that off; other programs override the same method.
- After a call of `exit` it mounts no more widgets, and then fails on those whose children
  are missing for that reason.
- It cannot turn the mouse off and on while it runs. Without a mouse, the terminal selects text itself.
- It parses all styles a second time for each new screen, because it takes one for a screen that has
  missed a change of the styles. That takes 20 ms of a start.

No upstream issue is known for these.
"""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text
from textual._compositor import CompositorUpdate
from textual.app import App
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widget import AwaitMount, MountError

from stoke.text.sanitize import clean
from tui.textual_patches.changed_cells import ChangedCells, TerminalCells


class PatchedApp(App[None]):
    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._terminal_cells = TerminalCells()

    def _display(
        self, screen: Screen[object], renderable: RenderableType | CompositorUpdate | None
    ) -> None:
        if isinstance(renderable, CompositorUpdate):
            renderable = ChangedCells(renderable, self._terminal_cells)
        super()._display(screen, renderable)  # type: ignore[arg-type]

    def _get_screen(self, screen: Screen[Any] | str) -> tuple[Screen[Any], AwaitMount]:
        found, mounted = super()._get_screen(screen)
        # A screen that is new. `_init_mode` would call `refresh_css`, which parses before it updates.
        if not found.is_mounted:
            found._css_update_count = self._css_update_count
            self.stylesheet.update(self)
        return found, mounted

    def redraw(self) -> None:
        """Send the whole screen, over whatever another program has written to the terminal."""
        self._terminal_cells.forget()
        self.screen.refresh()

    def toggle_mouse(self) -> bool | None:
        """Return whether the mouse is on now; None without a terminal."""
        driver = self._driver
        if driver is None:
            return None
        on = not driver._mouse
        # A driver that was started without a mouse ignores both calls.
        driver._mouse = True
        (driver._enable_mouse_support if on else driver._disable_mouse_support)()  # type: ignore[attr-defined]
        driver._mouse = on
        return on

    def _handle_exception(self, error: Exception) -> None:
        is_ending = self._exit or self._closing or not self._running
        if is_ending and isinstance(error, (NoMatches, MountError)):
            return
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End the program after an unexpected error, with a report instead of a traceback."""
        from stoke.files.crash_report import report_crash

        error = self._exception
        if self._exit_renderables or error is None:
            return  # The first error is reported; the others follow from it.
        what, hint = report_crash(error)
        # Textual prints the first of these on stderr, after it has restored the terminal.
        self._exit_renderables.append(Text(f"error: {clean(what)}\nhint: {clean(hint)}"))
        self._close_messages_no_wait()

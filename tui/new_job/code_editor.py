"""The editor for the code."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.widgets.editing import SafeTextArea


class CodeEditor(SafeTextArea):
    """The code. Tab indents, so escape leaves the editor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", id="new.leave_editor"),
        Binding("ctrl+e", "screen.external_editor", "$EDITOR", id="new.editor_here"),
    ]

    def __init__(self, code: str) -> None:
        super().__init__(
            code,
            id="code",
            language="python",
            theme="css",
            tab_behavior="indent",
            soft_wrap=False,
            show_line_numbers=True,
            placeholder="Python code",
        )

    def put(self, code: str) -> None:
        """Replace the code; undo restores the old one."""
        if code != self.text:
            self.history.checkpoint()
            self.replace(code, (0, 0), self.document.end, maintain_selection_offset=False)
            self.history.checkpoint()
            self.move_cursor((0, 0))

    def action_leave(self) -> None:
        self.screen.focus_next()

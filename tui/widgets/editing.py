"""A text area that shows its text without letting it drive the terminal.

The text itself stays unchanged; a character that a terminal would act on is drawn as U+FFFD.
"""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.reactive import var

from tui.textual_patches.text_area import PatchedTextArea
from tui.widgets.line_input import shown


class SafeTextArea(PatchedTextArea, inherit_bindings=False):
    # Textual's own f6 and f7 select text, and would hide what the screens do with these keys.
    BINDINGS: ClassVar[list[BindingType]] = [
        binding
        for binding in PatchedTextArea.BINDINGS
        if not (isinstance(binding, Binding) and binding.key in ("f6", "f7"))
    ]
    # A blinking cursor would write to an idle terminal for ever.
    cursor_blink = var(False)

    def get_line(self, line_index: int) -> Text:
        return Text(shown(self.document.get_line(line_index)), end="", no_wrap=True)

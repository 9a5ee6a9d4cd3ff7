"""A text area that shows its text without letting it drive the terminal.

The text itself stays unchanged; a character that a terminal would act on is drawn as U+FFFD.
"""

from __future__ import annotations

from rich.text import Text
from textual.reactive import var

from tui.textual_patches.text_area import PatchedTextArea
from tui.widgets.line_input import shown


class SafeTextArea(PatchedTextArea):
    # A blinking cursor would write to an idle terminal for ever.
    cursor_blink = var(False)

    def get_line(self, line_index: int) -> Text:
        return Text(shown(self.document.get_line(line_index)), end="", no_wrap=True)

"""Text fields that show what they hold without letting it drive the terminal.

What is edited stays as it is; a character that a terminal would act on is drawn as U+FFFD.
"""

from __future__ import annotations

from rich.text import Text
from textual.reactive import var
from textual.widgets import TextArea

from tui.widgets.line_input import SafeInput as SafeInput
from tui.widgets.line_input import shown as shown


class SafeTextArea(TextArea):
    # A blinking cursor would write to an idle terminal for ever.
    cursor_blink = var(False)

    def get_line(self, line_index: int) -> Text:
        return Text(shown(self.document.get_line(line_index)), end="", no_wrap=True)

"""Text fields that show what they hold without letting it drive the terminal.

What is edited stays as it is; a character that a terminal would act on is drawn as U+FFFD.
"""

from __future__ import annotations

import re

from rich.text import Text
from textual.reactive import var
from textual.widgets import Input, TextArea

# C0 but the tab, DEL, C1, and what reverses the reading direction. One character for one, so that
# the cursor and the highlighting stay in place.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def shown(text: str) -> str:
    return _UNSAFE.sub("\ufffd", text)


class SafeTextArea(TextArea):
    # A blinking cursor would write to an idle terminal for ever.
    cursor_blink = var(False)

    def get_line(self, line_index: int) -> Text:
        return Text(shown(self.document.get_line(line_index)), end="", no_wrap=True)


class SafeInput(Input):
    cursor_blink = var(False)

    @property
    def _value(self) -> Text:
        return Text(shown(self.value), no_wrap=True, overflow="ignore", end="")

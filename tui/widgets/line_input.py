"""An input line that shows its text without letting it drive the terminal.

Separate from `editing`, which is slow to import: the first frame has such a line.
"""

from __future__ import annotations

import re

from rich.text import Text
from textual.reactive import var
from textual.widgets import Input

# C0 without the tab, DEL, C1, and characters that change the text direction. Each is replaced by one
# character, so that the cursor and the highlighting stay in place.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\U00100000-\U0010fffd]"
)


def shown(text: str) -> str:
    """Return the text to draw, with U+FFFD for characters that a terminal would act on."""
    return _UNSAFE.sub("\ufffd", text)


class SafeInput(Input):
    cursor_blink = var(False)

    @property
    def _value(self) -> Text:
        return Text(shown(self.value), no_wrap=True, overflow="ignore", end="")

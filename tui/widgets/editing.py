"""Text fields that show what they hold without letting it drive the terminal.

What is edited stays as it is; a character that a terminal would act on is drawn as U+FFFD.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from rich.text import Text
from textual.document._document import DocumentBase, EditResult, Location
from textual.document._document_navigator import DocumentNavigator
from textual.document._edit import Edit
from textual.document._wrapped_document import WrappedDocument
from textual.reactive import var
from textual.widgets import TextArea

from tui.widgets.line_input import shown

# Textual ends a line at each of these, and cannot hold half a surrogate pair: inside its document they
# are stood for by characters that nobody uses (plane 16). What comes out again is what went in.
_NOT_HELD = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
_STANDS_IN = re.compile(
    "[\U0010000b\U0010000c\U0010001c-\U0010001e\U00100085\U00102028\U00102029\U0010d800-\U0010dfff]"
)
_PLANE = 0x100000


def _held(text: str) -> str:
    return _NOT_HELD.sub(lambda found: chr(ord(found[0]) + _PLANE), text)


def _as_it_was(text: str) -> str:
    return _STANDS_IN.sub(lambda found: chr(ord(found[0]) - _PLANE), text)


_Highlight = tuple[int, int | None, str]


class _Highlights(defaultdict[int, list[_Highlight]]):
    """What to highlight in each line, asked for a block of lines at a time as they are drawn.

    Textual asks for the whole document after every key: 0.1 s for 30 kB, 7 s for 1 MB.
    """

    BLOCK = 64

    def __init__(self, document: DocumentBase, query: Any) -> None:
        super().__init__(list)
        self._document = document
        self._query = query

    def __bool__(self) -> bool:
        return bool(self._query)  # There is something to highlight, though nobody asked for it yet.

    def __missing__(self, line: int) -> list[_Highlight]:
        first = line - line % self.BLOCK
        last = first + self.BLOCK - 1
        for row in range(first, last + 1):
            self[row] = []
        captures = self._document.query_syntax_tree(self._query, (first, 0), (last + 1, 0))
        for name, nodes in captures.items():
            for node in nodes:
                (top, start), (bottom, end) = node.start_point, node.end_point
                for row in range(max(top, first), min(bottom, last) + 1):
                    begins = start if row == top else 0
                    self[row].append((begins, end if row == bottom else None, name))
        return self[line]


class _Wrapped(WrappedDocument):
    @property
    def height(self) -> int:
        # Asked for with every line that is drawn; Textual's own adds all of them up each time.
        return len(self._offset_to_line_info)


class SafeTextArea(TextArea):
    # A blinking cursor would write to an idle terminal for ever.
    cursor_blink = var(False)

    def get_line(self, line_index: int) -> Text:
        return Text(shown(self.document.get_line(line_index)), end="", no_wrap=True)

    @property
    def text(self) -> str:
        return _as_it_was(super().text)

    @text.setter
    def text(self, text: str) -> None:
        self.load_text(text)

    def get_text_range(self, start: Location, end: Location) -> str:
        return _as_it_was(super().get_text_range(start, end))

    def edit(self, edit: Edit) -> EditResult:
        edit.text = _held(edit.text)
        return super().edit(edit)

    def _build_highlight_map(self) -> None:
        self._line_cache.clear()
        self._highlights = _Highlights(self.document, self._highlight_query)

    def _set_document(self, text: str, language: str | None) -> None:
        super()._set_document(_held(text), language)
        self.wrapped_document = _Wrapped(self.document, tab_width=self.indent_width)
        self.navigator = DocumentNavigator(self.wrapped_document)
        self._rewrap_and_refresh_virtual_size()

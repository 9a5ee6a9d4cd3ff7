"""Three workarounds for `TextArea`.

- Textual 8.2.8 asks tree-sitter for the highlights of the whole document after each key: 0.1 s for
  30 kB, 7 s for 1 MB. https://github.com/Textualize/textual/pull/5642 proposes what `_Highlights` does.
- `WrappedDocument.height` sums up all lines, and is asked for with each line that is drawn.
- A document ends a line at each character of `str.splitlines`, and cannot hold half a surrogate pair.
  Code that contains one of these characters would come out changed.

No upstream issue is known for the last two.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from textual.document._document import DocumentBase, EditResult, Location
from textual.document._document_navigator import DocumentNavigator
from textual.document._edit import Edit
from textual.document._wrapped_document import WrappedDocument
from textual.widgets import TextArea

# Inside the document these characters are replaced by private ones of plane 16.
_UNSUPPORTED = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
_REPLACEMENTS = re.compile(
    "[\U0010000b\U0010000c\U0010001c-\U0010001e\U00100085\U00102028\U00102029\U0010d800-\U0010dfff]"
)
_PLANE = 0x100000


def _encode(text: str) -> str:
    return _UNSUPPORTED.sub(lambda found: chr(ord(found[0]) + _PLANE), text)


def _decode(text: str) -> str:
    return _REPLACEMENTS.sub(lambda found: chr(ord(found[0]) - _PLANE), text)


_Highlight = tuple[int, int | None, str]


class _Highlights(defaultdict[int, list[_Highlight]]):
    """The highlights of each line, read for a block of lines when one of them is drawn."""

    BLOCK = 64

    def __init__(self, document: DocumentBase, query: Any) -> None:
        super().__init__(list)
        self._document = document
        self._query = query

    def __bool__(self) -> bool:
        # True before the first line is read: Textual skips highlighting when this is empty.
        return bool(self._query)

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


class _WrappedDocument(WrappedDocument):
    @property
    def height(self) -> int:
        return len(self._offset_to_line_info)


class PatchedTextArea(TextArea):
    @property
    def text(self) -> str:
        return _decode(super().text)

    @text.setter
    def text(self, text: str) -> None:
        self.load_text(text)

    def get_text_range(self, start: Location, end: Location) -> str:
        return _decode(super().get_text_range(start, end))

    def edit(self, edit: Edit) -> EditResult:
        edit.text = _encode(edit.text)
        return super().edit(edit)

    def _build_highlight_map(self) -> None:
        self._line_cache.clear()
        self._highlights = _Highlights(self.document, self._highlight_query)

    def _set_document(self, text: str, language: str | None) -> None:
        super()._set_document(_encode(text), language)
        self.wrapped_document = _WrappedDocument(self.document, tab_width=self.indent_width)
        self.navigator = DocumentNavigator(self.wrapped_document)
        self._rewrap_and_refresh_virtual_size()

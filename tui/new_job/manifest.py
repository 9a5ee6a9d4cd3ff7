"""View of what would be submitted, to read and to copy."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from tui import format as fmt
from tui.terminal import clipboard
from tui.widgets.editing import SafeTextArea

LONGEST = 300
"""Characters shown of a line; the packed job is one long line."""


class ManifestText(SafeTextArea):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy_all", "Copy all of it", id="manifest.copy"),
    ]

    def __init__(self) -> None:
        super().__init__(id="manifest-text", read_only=True, soft_wrap=False, theme="css")
        self._whole = ""

    def show(self, text: str) -> None:
        if text == self._whole:
            return
        self._whole = text
        at = self.scroll_offset
        self.load_text("\n".join(_shortened(line) for line in text.splitlines()))
        self.scroll_to(at.x, at.y, animate=False)

    def action_copy_all(self) -> None:
        self.notify(clipboard.copy(self.app, self._whole), markup=False, timeout=3)


class ManifestView(Vertical):
    """What would be submitted. Hidden at first."""

    def __init__(self) -> None:
        super().__init__(id="manifest")
        self.display = False

    def compose(self) -> ComposeResult:
        yield Static(id="manifest-title")
        yield ManifestText()

    def focus_text(self) -> None:
        self.query_one(ManifestText).focus()

    def show(self, title: str, text: str | None) -> None:
        """Show a title and a text; with None the previous text stays."""
        self.query_one("#manifest-title", Static).update(fmt.plain(title, "bold"))
        if text is not None:
            self.query_one(ManifestText).show(text)


def _shortened(line: str) -> str:
    more = len(line) - LONGEST
    return line if more <= 0 else f"{line[:LONGEST]}\u2026 {more:,} characters more"

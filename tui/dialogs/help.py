"""The list of keys: searchable, in columns, ours before those of Textual's editors."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Input, Static, TextArea

from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.widgets.line_input import SafeInput

COLUMN_WIDTH = 36
KEYS_WIDTH = 10
_GROUPS = ("Here", "On this screen", "Everywhere", "Editing text")


class _Line(NamedTuple):
    group: str
    keys: str
    description: str


class Help(Dialog[None]):
    """Lists the keys that work where the focus was, or those that match what is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1", "close", "Close", id="help.close"),
        Binding("down", "scroll_by('down')", "Down", show=False, id="help.down"),
        Binding("up", "scroll_by('up')", "Up", show=False, id="help.up"),
        Binding("pagedown", "scroll_by('page_down')", "Page down", show=False, id="help.page_down"),
        Binding("pageup", "scroll_by('page_up')", "Page up", show=False, id="help.page_up"),
    ]

    def __init__(self, where: str, bindings: list[ActiveBinding], words: str = "") -> None:
        super().__init__()
        self._where = where
        self._active = bindings
        self._words = words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(f"Keys: {self._where}"), classes="dialog-title")
            yield SafeInput(
                self._words, placeholder="search; esc closes", compact=True, id="help-search"
            )
            with VerticalScroll(classes="help-keys", can_focus=False):
                yield Static(id="help-list")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._lines = self._listed()
        self.call_after_refresh(self._show)

    def _listed(self) -> list[_Line]:
        keys_of: dict[tuple[str, str, str], list[str]] = {}
        for node, binding, enabled, _ in self._active:
            is_editor = isinstance(node, Input | TextArea) and not binding.id
            # Leave out the arrows of Textual's tables.
            if not enabled or not binding.description or not (binding.id or is_editor):
                continue
            if is_editor:
                group = "Editing text"
            elif node is self.app:
                group = "Everywhere"
            else:
                group = "On this screen" if isinstance(node, Screen) else "Here"
            what = (group, binding.action, binding.description)
            keys_of.setdefault(what, []).append(self.app.get_key_display(binding))
        lines = [
            _Line(group, " ".join(dict.fromkeys(keys)), description)
            for (group, _, description), keys in keys_of.items()
        ]
        return sorted(lines, key=lambda line: _GROUPS.index(line.group))

    @on(Input.Changed)
    def _show(self) -> None:
        words = self.query_one(Input).value.casefold().split()
        found = [
            line
            for line in self._lines
            if all(word in f"{line.keys} {line.description}".casefold() for word in words)
        ]
        area = self.query_one(VerticalScroll)
        width = area.scrollable_content_region.width
        text = Text("\n").join(_group(name, found, width) for name in _GROUPS if _has(name, found))
        self.query_one("#help-list", Static).update(text if found else Text("No key matches."))
        area.scroll_home(animate=False)

    def on_resize(self, _: events.Resize) -> None:
        self.call_after_refresh(self._show)

    def action_scroll_by(self, step: str) -> None:
        area = self.query_one(VerticalScroll)
        getattr(area, f"scroll_{step}")(animate=False)

    def action_close(self) -> None:
        self.dismiss(None)


def _has(group: str, lines: list[_Line]) -> bool:
    return any(line.group == group for line in lines)


def _group(name: str, found: list[_Line], width: int) -> Text:
    """Return a heading and the lines of a group in columns, to be read from top to bottom."""
    lines = [line for line in found if line.group == name]
    columns = max(1, width // COLUMN_WIDTH)
    rows = -(-len(lines) // columns)
    text = Text(f"{name}\n")
    text.stylize("bold")
    for row in range(rows):
        for line in lines[row::rows]:
            keys = fmt.fit(line.keys, max(KEYS_WIDTH, cell_len(line.keys)))
            left = max(1, width // columns - cell_len(keys) - 2)
            text.append(keys, style="$busy")
            text.append(f" {fmt.fit(line.description, left)} ")
        text.append("\n")
    return text

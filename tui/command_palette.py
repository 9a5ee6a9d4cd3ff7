"""The command palette: one line to type into, and what it finds below."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static
from textual.widgets.option_list import Option

from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.palette_entries import Entries, Entry, shown
from tui.widgets.choice_list import ChoiceList
from tui.widgets.line_input import SafeInput

KIND_WIDTH = 8
TITLE_WIDTH = 28
_HINT = "Enter opens, esc closes. A colon lists the commands."


class CommandPalette(Dialog[Entry | None]):
    """Returns the chosen entry. Textual's own palette may run what an earlier text had found, because
    it searches while the user goes on typing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="palette.close"),
        Binding("down", "step('cursor_down')", "Next", show=False, id="palette.down"),
        Binding("up", "step('cursor_up')", "Previous", show=False, id="palette.up"),
        Binding("pagedown", "step('page_down')", "Next page", show=False, id="palette.page_down"),
        Binding("pageup", "step('page_up')", "Previous page", show=False, id="palette.page_up"),
    ]

    def __init__(self, entries: Entries, text: str = "") -> None:
        super().__init__()
        self._entries = entries
        self._text = text
        self._found: list[Entry] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide"):
            yield SafeInput(
                self._text,
                placeholder="a job, preset, theme, screen, setting or key; :jobs failed",
                compact=True,
                id="palette-input",
                select_on_focus=False,
            )
            yield ChoiceList(id="palette-list")
            yield Static(Text(_HINT), id="palette-note", classes="hint")

    def on_mount(self) -> None:
        self.query_one(ChoiceList).can_focus = False
        box = self.query_one(Input)
        box.focus()
        box.cursor_position = len(box.value)
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        self._found = self._entries.find(self.query_one(Input).value)
        options = self.query_one(ChoiceList)
        options.clear_options()
        if self._found:
            options.add_options([Option(_line(entry)) for entry in self._found])
            options.highlighted = 0
        else:
            options.add_option(Option(Text("Nothing found", "$quiet"), disabled=True))

    def action_step(self, step: str) -> None:
        getattr(self.query_one(ChoiceList), f"action_{step}")()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        at = self.query_one(ChoiceList).highlighted
        if at is None or at >= len(self._found):
            self.app.bell()
        else:
            self.dismiss(self._found[at])

    @on(ChoiceList.OptionSelected)
    def _clicked(self, event: ChoiceList.OptionSelected) -> None:
        if event.option_index < len(self._found):
            self.dismiss(self._found[event.option_index])

    def action_close(self) -> None:
        self.dismiss(None)


def _line(entry: Entry) -> Text:
    text = Text(f"{entry.kind:<{KIND_WIDTH}} ", "$quiet")
    text.append(fmt.fit(shown(entry), max(TITLE_WIDTH, cell_len(shown(entry)))), "bold")
    text.append("  ")
    text.append_text(fmt.plain(entry.detail, "$quiet"))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text

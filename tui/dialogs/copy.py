"""Choose which part of a job's request to copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static

from tui.dialogs.dialog import Dialog


class Copy(Dialog[str | None]):
    """Returns one of `parts`, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Close", id="copy.close"),
        Binding("j", "step(1)", "Next", show=False, id="copy.down"),
        Binding("k", "step(-1)", "Previous", show=False, id="copy.up"),
        Binding("y", "pick", "Copy", id="copy.pick"),
    ]

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__()
        self._parts = parts

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("Copy"), classes="dialog-title")
            yield OptionList(*(Text(one) for one in self._parts), id="copy-list")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._parts[event.option_index])

    def action_pick(self) -> None:
        self.query_one(OptionList).action_select()

    def action_step(self, step: int) -> None:
        options = self.query_one(OptionList)
        (options.action_cursor_down if step > 0 else options.action_cursor_up)()

    def action_close(self) -> None:
        self.dismiss(None)

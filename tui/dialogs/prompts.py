"""The confirmation before a change, and the list of keys."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, Input, Static, TextArea

from tui.dialogs.dialog import Dialog


class Confirm(Dialog[bool]):
    """Returns whether the user agreed. Cancel has the focus, so that a stray key does not agree."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "cancel", "Cancel", id="confirm.cancel"),
        Binding("n", "cancel", "No", show=False, id="confirm.no"),
        Binding("y", "agree", "Yes", show=False, id="confirm.yes"),
        Binding("left,right", "app.focus_next", "Other button", show=False, id="confirm.other"),
    ]

    def __init__(self, title: str, body: Text, verb: str) -> None:
        super().__init__()
        self._title = title
        self._body = body
        self._verb = verb

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._title), classes="dialog-title")
            yield Static(self._body, classes="dialog-body")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel (n)", id="cancel")
                yield Button(Content(f"{self._verb} (y)"), id="go", variant="error")

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "go")

    def action_cancel(self) -> None:
        self.dismiss(False)

    def action_agree(self) -> None:
        self.dismiss(True)


class Help(Dialog[None]):
    """Lists the keys that work where the focus was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "close", "Close", id="help.close"),
    ]

    def __init__(self, where: str, bindings: list[ActiveBinding]) -> None:
        super().__init__()
        self._where = where
        self._active = bindings

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(f"Keys: {self._where}"), classes="dialog-title")
            with VerticalScroll(classes="help-keys"):
                yield Static(self._keys())

    def _keys(self) -> Text:
        text = Text()
        group = ""
        by_action: dict[tuple[str, str, str], list[str]] = {}
        for node, binding, enabled, _ in self._active:
            # Also list the keys of Textual's editors, but not the arrows of its tables.
            listed = bool(binding.id) or isinstance(node, Input | TextArea)
            if enabled and binding.description and listed:
                where = "Everywhere" if node is self.app else "On this screen"
                if node is not self.app and not isinstance(node, Screen):
                    where = "Here"
                what = (where, binding.action, binding.description)
                by_action.setdefault(what, []).append(self.app.get_key_display(binding))
        for (where, _, description), keys in by_action.items():
            if where != group:
                text.append(f"{chr(10) if group else ''}{where}\n", style="bold")
                group = where
            text.append(f"  {' '.join(dict.fromkeys(keys)):<18}", style="$busy")
            text.append(f" {description}\n")
        return text

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_close(self) -> None:
        self.dismiss(None)

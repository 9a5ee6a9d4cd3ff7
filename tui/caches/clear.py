"""Asking before a cache goes: what, how much, who holds it; the scope's name has to be typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Static

from stoke.backend.api import Volume
from stoke.cache.volumes import Progress
from stoke.errors import StokeError
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.threads import Work, answer, on_thread
from tui.widgets.line_input import SafeInput

_KINDS = {
    "python": "every Python environment, lock and downloaded package in it",
    "system": "every system package in it",
}


class ClearCache(Dialog[bool]):
    """`measure` is called on a thread, so that the figures are those of now; leaving ends it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="clear.cancel"),
    ]

    def __init__(self, volume: Volume, measure: Callable[[Progress], Volume]) -> None:
        super().__init__()
        self._volume = volume
        self._measure = measure
        self._work = Work("measuring", lambda: answer(self, self._show))
        self._known = False
        self._trouble: StokeError | None = None

    def compose(self) -> ComposeResult:
        scope = clean(self._volume.scope)
        with Vertical(classes="dialog"):
            yield Static(Text("Clear this cache?"), classes="dialog-title")
            yield Static(id="clear-what", classes="dialog-body")
            yield Static(fmt.plain(f"Type the scope's name, {scope}, to clear it:"))
            yield SafeInput(id="clear-scope", compact=True)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("Clear", id="go", variant="error", disabled=True)

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()
        self._show()
        on_thread(self, lambda: self._measure(self._work.progress), self._measured, self._failed)

    def on_unmount(self) -> None:
        self._work.give_up()

    def _measured(self, volume: Volume) -> None:
        self._volume = volume
        self._known = True
        self._show()

    def _failed(self, error: StokeError) -> None:
        self._trouble = error
        self._show()

    def _show(self) -> None:
        volume = self._volume
        what = _KINDS.get(volume.kind, "everything in it")
        where = f"{volume.node} ({volume.backend})" if volume.node else volume.backend
        text = Text.assemble(
            fmt.plain(fmt.place(volume.name), "bold"),
            f" on {clean(where)}\n\nWhat goes: {clean(what)}. Jobs that need it again "
            "build and download it again.\n",
        )
        if self._trouble is not None:
            text.append("\nIts size could not be measured: ")
            text.append_text(fmt.error_text(self._trouble))
        elif not self._known:
            text.append(f"\nmeasuring: {clean(self._work.step or 'beginning')}", style="dim")
        else:
            count = fmt.UNKNOWN if volume.entries is None else f"{volume.entries:,}"
            entries = "entry" if volume.entries == 1 else "entries"
            text.append(f"\n{fmt.size(volume.bytes)} in {count} {entries}", style="bold")
        if volume.in_use_by:
            text.append("\nHeld by ", style="red")
            text.append_text(fmt.plain(", ".join(volume.in_use_by), "red"))
            text.append(": it cannot be cleared before they end.", style="red")
        elif self._known:
            text.append("\nNo running job holds it.")
        self.query_one("#clear-what", Static).update(text)
        self._allow()

    @on(Input.Changed)
    def _allow(self) -> None:
        typed = self.query_one("#clear-scope", Input).value
        free = not self._volume.in_use_by and (self._known or self._trouble is not None)
        self.query_one("#go", Button).disabled = not (free and typed == self._volume.scope)

    @on(Input.Submitted)
    def _typed(self) -> None:
        go = self.query_one("#go", Button)
        (self.query_one("#cancel") if go.disabled else go).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "go")

    def action_cancel(self) -> None:
        self.dismiss(False)

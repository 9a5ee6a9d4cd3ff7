"""The confirmation before clearing a cache: shows size and users, asks for the name of the scope."""

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
from tui.threads import Work, call_in, on_thread
from tui.widgets.line_input import SafeInput

_KINDS = {
    "python": "all Python environments, lockfiles and downloaded packages",
    "system": "all system packages",
}


class ClearCache(Dialog[bool]):
    """Returns whether to clear. `measure` runs on a thread, and is cancelled when the dialog closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="clear.cancel"),
    ]

    def __init__(self, volume: Volume, measure: Callable[[Progress], Volume]) -> None:
        super().__init__()
        self._volume = volume
        self._measure = measure
        self._work = Work("measuring", lambda: call_in(self, self._show))
        self._measured_now = False
        self._error: StokeError | None = None

    def compose(self) -> ComposeResult:
        scope = clean(self._volume.scope)
        with Vertical(classes="dialog"):
            yield Static(Text("Clear this cache?"), classes="dialog-title")
            yield Static(id="clear-what", classes="dialog-body")
            yield Static(fmt.plain(f"Type the name of the scope, {scope}, to confirm:"))
            yield SafeInput(id="clear-scope", compact=True)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("Clear", id="go", variant="error", disabled=True)

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()
        self._show()
        on_thread(self, lambda: self._measure(self._work.progress), self._measured, self._failed)

    def on_unmount(self) -> None:
        self._work.cancel()

    def _measured(self, volume: Volume) -> None:
        self._volume = volume
        self._measured_now = True
        self._show()

    def _failed(self, error: StokeError) -> None:
        self._error = error
        self._show()

    def _show(self) -> None:
        volume = self._volume
        what = _KINDS.get(volume.kind, "everything in it")
        where = f"{volume.node} ({volume.backend})" if volume.node else volume.backend
        text = Text.assemble(
            fmt.plain(fmt.place(volume.name), "bold"),
            f" on {clean(where)}\n\nDeletes {clean(what)}. Jobs that need them build and "
            "download them again.\n",
        )
        if self._error is not None:
            text.append("\nCannot measure its size: ")
            text.append_text(fmt.error_text(self._error))
        elif not self._measured_now:
            text.append(f"\nmeasuring: {clean(self._work.step or 'starting')}", style="$quiet")
        else:
            count = fmt.UNKNOWN if volume.entries is None else f"{volume.entries:,}"
            entries = "entry" if volume.entries == 1 else "entries"
            text.append(f"\n{fmt.size(volume.bytes)} in {count} {entries}", style="bold")
        if volume.in_use_by:
            text.append("\nIn use by ", style="$bad")
            text.append_text(fmt.plain(", ".join(volume.in_use_by), "$bad"))
            text.append(". Stop them before clearing it.", style="$bad")
        elif self._measured_now:
            text.append("\nNot in use.")
        self.query_one("#clear-what", Static).update(text)
        self._allow()

    @on(Input.Changed)
    def _allow(self) -> None:
        typed = self.query_one("#clear-scope", Input).value
        free = not self._volume.in_use_by and (self._measured_now or self._error is not None)
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

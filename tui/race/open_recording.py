"""The dialog that asks for the file of a recorded race."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Static

from stoke.errors import StokeError
from stoke.race.recording import Recording, read_recording
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.widgets.path_input import PathInput, path_of


class OpenRecording(Dialog[Recording | None]):
    """Returns the recording. `suggested` is the initial text of the field."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="recording.cancel"),
    ]

    def __init__(self, suggested: str) -> None:
        super().__init__()
        self._suggested = suggested

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("Open a recorded race"), classes="dialog-title")
            yield PathInput(
                self._suggested, placeholder="race.json", id="recording-file", compact=True
            )
            yield Static(id="recording-error", classes="field-error")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("Open", id="go", variant="primary")

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    @on(Button.Pressed, "#go")
    def _open(self) -> None:
        try:
            # Not on a thread: a recording has one megabyte at most.
            recording = read_recording(path_of(self.query_one(Input).value))
        except StokeError as error:
            self.query_one("#recording-error", Static).update(fmt.error_text(error))
        else:
            self.dismiss(recording)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)

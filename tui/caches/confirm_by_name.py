"""The confirmation before everything in a volume is removed: shows size and users, asks for a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Static

from stoke.errors import StokeError
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.threads import Work, call_in, on_thread
from tui.widgets.line_input import SafeInput

Progress = Callable[[str], None]


class HasUsers(Protocol):
    @property
    def in_use_by(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=HasUsers)


class ConfirmByName(Dialog[bool], Generic[T]):
    """Returns whether the name was typed. `measure` runs on a thread, and ends with the dialog.

    A subclass says what is removed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="clear.cancel"),
    ]
    TITLE_TEXT: ClassVar[str]
    VERB: ClassVar[str]
    NAME_OF: ClassVar[str]
    """Whose name is asked for, as in "the scope"."""
    STILL_USED: ClassVar[str]
    """What to do about the jobs that use it."""

    def __init__(self, thing: T, name: str, measure: Callable[[Progress], T]) -> None:
        super().__init__()
        self._thing = thing
        self._name_to_type = name
        self._measure = measure
        self._work = Work("measuring", lambda: call_in(self, self._show))
        self._measured_now = False
        self._error: StokeError | None = None

    def describe(self, thing: T) -> Text:
        raise NotImplementedError

    def figures(self, thing: T) -> str:
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        name = clean(self._name_to_type)
        with Vertical(classes="dialog"):
            yield Static(Text(self.TITLE_TEXT), classes="dialog-title")
            yield Static(id="confirm-what", classes="dialog-body")
            yield Static(fmt.plain(f"Type the name of {self.NAME_OF}, {name}, to confirm:"))
            yield SafeInput(id="confirm-name", compact=True)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button(self.VERB, id="go", variant="error", disabled=True)

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()
        self._show()
        on_thread(self, lambda: self._measure(self._work.progress), self._measured, self._failed)

    def on_unmount(self) -> None:
        self._work.cancel()

    def _measured(self, thing: T) -> None:
        self._thing = thing
        self._measured_now = True
        self._show()

    def _failed(self, error: StokeError) -> None:
        self._error = error
        self._show()

    def _show(self) -> None:
        thing = self._thing
        text = self.describe(thing)
        if self._error is not None:
            text.append("\nCannot measure its size: ")
            text.append_text(fmt.error_text(self._error))
        elif not self._measured_now:
            text.append(f"\nmeasuring: {clean(self._work.step or 'starting')}", style="$quiet")
        else:
            text.append(f"\n{self.figures(thing)}", style="bold")
        if thing.in_use_by:
            text.append("\nIn use by ", style="$bad")
            text.append_text(fmt.plain(", ".join(thing.in_use_by), "$bad"))
            text.append(f". {self.STILL_USED}", style="$bad")
        elif self._measured_now:
            text.append("\nNot in use.")
        self.query_one("#confirm-what", Static).update(text)
        self._allow()

    @on(Input.Changed)
    def _allow(self) -> None:
        typed = self.query_one("#confirm-name", Input).value
        free = not self._thing.in_use_by and (self._measured_now or self._error is not None)
        self.query_one("#go", Button).disabled = not (free and typed == self._name_to_type)

    @on(Input.Submitted)
    def _typed(self) -> None:
        go = self.query_one("#go", Button)
        (self.query_one("#cancel") if go.disabled else go).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "go")

    def action_cancel(self) -> None:
        self.dismiss(False)

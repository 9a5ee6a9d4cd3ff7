"""The questions before a workspace is cloned, renamed, copied into or out of, or removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, Static

from stoke.backend.capabilities import Workspace
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.caches.confirm_by_name import ConfirmByName, Progress
from tui.dialogs.dialog import Dialog
from tui.widgets.line_input import SafeInput
from tui.widgets.path_input import PathInput


class Line(NamedTuple):
    """A line to fill in. `is_path` is true for a path of this machine."""

    label: str
    value: str = ""
    is_path: bool = False


class WorkspaceForm(Dialog[tuple[str, ...] | None]):
    """Returns what was filled in, or None. The form cannot be sent while a line is empty."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="workspace.cancel"),
    ]

    def __init__(self, title: str, body: str, verb: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._title, self._body, self._verb = title, body, verb
        self._lines = lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(fmt.plain(self._title), classes="dialog-title")
            yield Static(fmt.plain(self._body), classes="dialog-body")
            for number, line in enumerate(self._lines):
                kind = PathInput if line.is_path else SafeInput
                with Horizontal(classes="dialog-line"):
                    yield Static(Text(line.label), classes="dialog-label")
                    yield kind(line.value, id=f"line-{number}", compact=True)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button(Content(self._verb), id="go", variant="primary")

    def on_mount(self) -> None:
        self._inputs[0].focus()
        self._allow()

    @property
    def _inputs(self) -> list[Input]:
        return list(self.query(Input))

    @on(Input.Changed)
    def _allow(self) -> None:
        self.query_one("#go", Button).disabled = not all(one.value.strip() for one in self._inputs)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        inputs = self._inputs
        if event.input is not inputs[-1]:
            inputs[inputs.index(event.input) + 1].focus()
        elif not self.query_one("#go", Button).disabled:
            self._send()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self._send() if event.button.id == "go" else self.dismiss(None)

    def _send(self) -> None:
        self.dismiss(tuple(one.value.strip() for one in self._inputs))

    def action_cancel(self) -> None:
        self.dismiss(None)


class RemoveWorkspace(ConfirmByName[Workspace]):
    TITLE_TEXT = "Remove this workspace?"
    VERB = "Remove"
    NAME_OF = "the workspace"
    STILL_USED = "Stop them before removing it."

    def __init__(self, workspace: Workspace, measure: Callable[[Progress], Workspace]) -> None:
        super().__init__(workspace, workspace.name, measure)

    def describe(self, thing: Workspace) -> Text:
        where = f"{thing.node} ({thing.backend})" if thing.node else thing.backend
        return Text.assemble(
            fmt.plain(thing.name, "bold"),
            f" on {clean(where)}\n\nDeletes everything in it. Nothing brings that back.\n",
        )

    def figures(self, thing: Workspace) -> str:
        return f"{fmt.size(thing.bytes)} in {files_text(thing)}"


def files_text(workspace: Workspace) -> str:
    return fmt.UNKNOWN if workspace.files is None else fmt.count(workspace.files, "file")

"""The introduction at the first start."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from tui import format as fmt
from tui.dialogs.dialog import Dialog

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.request.spec import JobSpec

INTRODUCTION = (
    "Write Python and name its packages. stoke runs it on this machine, in a container or on a "
    "cluster, and caches the environment: the next job with the same packages starts in milliseconds."
)
EXAMPLE = """\
# /// script
# dependencies = ["cowsay"]
# ///
import platform

import cowsay

cowsay.cow(f"Python {platform.python_version()} on {platform.node()}")
"""


def example(config: Config) -> JobSpec:
    """Return the request that "Run the example" submits."""
    # Imported here: checking requests takes longer to import than the first frame to draw.
    from stoke.config.defaults import with_defaults
    from stoke.request.sources import request_from_options

    return with_defaults(request_from_options(code=EXAMPLE), config)


class Welcome(Dialog[str | None]):
    """Returns "example", "help", the mode of a screen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "choose", "Close", id="welcome.close"),
        Binding("r", "choose('example')", "Run an example", id="welcome.example"),
        Binding("2", "choose('new')", "New job", id="welcome.new"),
        Binding("question_mark,f1", "choose('help')", "Help", id="welcome.help"),
        Binding("1", "choose('jobs')", "Jobs", show=False, id="welcome.jobs"),
        Binding("3", "choose('caches')", "Caches", show=False, id="welcome.caches"),
        Binding("4", "choose('metrics')", "Metrics", show=False, id="welcome.metrics"),
        Binding("left,up", "app.focus_previous", "Previous button", show=False, id="welcome.back"),
        Binding("right,down", "app.focus_next", "Next button", show=False, id="welcome.on"),
    ]

    def __init__(self, backend: str, read_only: bool) -> None:
        super().__init__()
        self._backend = backend
        self._read_only = read_only

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action == "choose" and parameters == ("example",) and self._read_only)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("stoke runs Python somewhere else"), classes="dialog-title")
            yield Static(Text(INTRODUCTION), classes="dialog-body")
            yield Static(self._keys(self._backend), classes="dialog-body")
            yield Static(Text("f2 shows this again."), classes="hint")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Close", id="close")
                yield Button("New job", id="new")
                yield Button("Run the example", id="example", variant="primary")

    def _keys(self, backend: str) -> Text:
        text = Text()
        keys = [
            ("r", f"run an example on {backend}; then r runs it again, cached"),
            ("2", "write a job; ctrl+r submits it"),
            ("?", "list the keys of this screen; : lists all actions"),
        ]
        for key, what in keys[self._read_only :]:
            text.append(f"{key}  ", style="bold $busy")
            text.append_text(fmt.plain(what))
            text.append("\n")
        text.rstrip()
        return text

    def on_mount(self) -> None:
        self.query_one("#example").display = not self._read_only
        self.query_one("#new" if self._read_only else "#example").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.action_choose(event.button.id)

    def action_choose(self, what: str | None = None) -> None:
        self.dismiss(None if what == "close" else what)

"""Asking what to warm: packages, a requirements file, system packages, or what was used most."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Static

from stoke.config.defaults import with_defaults
from stoke.errors import RequestError, StokeError
from stoke.jobs import prepare
from stoke.jobs.request import Request
from stoke.jobs.warm import CODE, most_used, warm_request
from stoke.request.requirements_files import read_requirements
from stoke.request.sources import request_from_options, split_dependencies
from tui import format as fmt
from tui.base_screen import app_of
from tui.dialogs.dialog import Dialog
from tui.threads import on_thread
from tui.widgets.line_input import SafeInput
from tui.widgets.path_input import path_of

MOST = 20
"""Jobs that one dialog begins at the most."""
_FIELDS = (
    ("packages", "numpy, pandas>=2,<3"),
    ("requirements file", "requirements.txt"),
    ("system packages", "gcc ffmpeg"),
    ("image", "the configured one"),
    ("or the most used", f"how many, up to {MOST}"),
)


class WarmCache(Dialog[list[Request] | None]):
    """Gives the requests to submit, checked: each becomes a job that does nothing when it is built."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="warm.cancel"),
    ]

    def __init__(self, backend: str, scope: str) -> None:
        super().__init__()
        self._backend = backend
        self._scope = scope

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(
                fmt.plain(f"Warm {self._scope} on {self._backend}"), classes="dialog-title"
            )
            for number, (label, hint) in enumerate(_FIELDS):
                with Horizontal(classes="dialog-line"):
                    yield Static(Text(label), classes="dialog-label")
                    yield SafeInput(id=f"warm-{number}", placeholder=hint, compact=True)
            yield Static(id="warm-error", classes="dialog-body")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("Warm", id="go", variant="primary")

    def on_mount(self) -> None:
        self._say(Text("Built as jobs, bytecode compiled; the Jobs screen lists them.", "dim"))
        self.query_one("#warm-0").focus()

    def _say(self, text: Text) -> None:
        self.query_one("#warm-error", Static).update(text)

    @on(Input.Submitted)
    def _begin(self) -> None:
        go = self.query_one("#go", Button)
        if go.disabled:
            return
        values = [self.query_one(f"#warm-{number}", Input).value.strip() for number in range(5)]
        go.disabled = True

        def checked(requests: list[Request]) -> None:
            if self.is_current:
                self.dismiss(requests)

        def failed(error: StokeError) -> None:
            go.disabled = False
            self._say(fmt.error_text(error))

        on_thread(self, lambda: self._requests(*values), checked, failed)

    def _requests(
        self, packages: str, requirements: str, system: str, image: str, count: str
    ) -> list[Request]:
        app = app_of(self)
        backend = app.service.backends.get(self._backend)
        named = packages or requirements or system
        if count:
            if named or image:
                raise RequestError("most used", "they name their packages and images already")
            if not count.isdecimal() or not 1 <= int(count) <= MOST:
                raise RequestError("most used", f"{count!r} is not a number from 1 to {MOST}")
            return most_used(app.history, app.config, self._backend, self._scope, int(count))
        if not named:
            raise RequestError(
                "packages", "nothing to warm: name some, or how many of the most used"
            )
        texts = read_requirements([str(path_of(requirements))] if requirements else [])
        spec = request_from_options(
            code=CODE,
            dependencies=split_dependencies(packages),
            requirements=texts.requirements,
            constraints=texts.constraints,
            system=system.replace(",", " ").split(),
            image=image or None,
            scope=self._scope,
        )
        spec = with_defaults(spec, app.config)
        prepare.check_request(spec, backend)
        return [warm_request(spec, app.config)]

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "go":
            self._begin()
        else:
            self.dismiss(None)

    def action_cancel(self) -> None:
        self.dismiss(None)

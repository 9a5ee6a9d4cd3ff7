"""The dialog for warming: packages, a requirements file, system packages, or the most used ones."""

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
from stoke.jobs.prepare import check_request
from stoke.jobs.request import Request
from stoke.jobs.warm import CODE, most_used, warm_request
from stoke.request.requirements_files import read_requirements
from stoke.request.sources import request_from_options
from stoke.request.values import split_requirements
from tui import format as fmt
from tui.context import Context
from tui.dialogs.dialog import Dialog
from tui.threads import on_thread
from tui.widgets.line_input import SafeInput
from tui.widgets.path_input import path_of

MOST = 20
"""The most jobs that one dialog starts."""
_FIELDS = (
    ("packages", "numpy, pandas>=2,<3"),
    ("requirements file", "requirements.txt"),
    ("system packages", "gcc ffmpeg"),
    ("image", "from the configuration"),
    ("or the most used", f"number of them, up to {MOST}"),
)


class WarmCache(Dialog[list[Request] | None]):
    """Returns checked requests to submit. Each becomes a job that only builds its environment."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="warm.cancel"),
    ]

    def __init__(self, context: Context, backend: str, scope: str) -> None:
        super().__init__()
        self.context = context
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
        self._show_text(Text("Runs as jobs, which Jobs lists. Bytecode is compiled.", "$quiet"))
        self.query_one("#warm-0").focus()

    def _show_text(self, text: Text) -> None:
        self.query_one("#warm-error", Static).update(text)

    @on(Input.Submitted)
    def _start_check(self) -> None:
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
            self._show_text(fmt.error_text(error))

        on_thread(self, lambda: self._requests(*values), checked, failed)

    def _requests(
        self, packages: str, requirements: str, system: str, image: str, count: str
    ) -> list[Request]:
        context = self.context
        backend = context.backends.get(self._backend)
        named = packages or requirements or system
        if count:
            if named or image:
                raise RequestError("most used", "cannot be combined with packages or an image")
            if not count.isdecimal() or not 1 <= int(count) <= MOST:
                raise RequestError("most used", f"{count!r} is not a number from 1 to {MOST}")
            return most_used(
                context.history, context.config, self._backend, self._scope, int(count)
            )
        if not named:
            raise RequestError(
                "packages", "nothing to warm; name packages, or a number of the most used ones"
            )
        texts = read_requirements([str(path_of(requirements))] if requirements else [])
        spec = request_from_options(
            code=CODE,
            dependencies=split_requirements(packages),
            requirements=texts.requirements,
            constraints=texts.constraints,
            system=system.replace(",", " ").split(),
            image=image or None,
            scope=self._scope,
        )
        spec = with_defaults(spec, context.config)
        check_request(spec, backend)
        return [warm_request(spec, context.config)]

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "go":
            self._start_check()
        else:
            self.dismiss(None)

    def action_cancel(self) -> None:
        self.dismiss(None)

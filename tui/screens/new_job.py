"""New job: the code, what it needs, where it runs, and what the caches will make of it."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Button, Checkbox, Collapsible, Footer, Select, Static, TextArea

from stoke import lifecycle
from stoke.backend import backend_names
from stoke.defaults import with_defaults
from stoke.errors import RequestError, StokeError
from stoke.job import Prediction
from stoke.logs.sanitise import clean
from stoke.prediction import predict
from stoke.race import check_race
from stoke.spec import JobSpec
from tui import draft as drafts
from tui import external_editor, form
from tui import format as fmt
from tui.screens.base import StokeScreen
from tui.screens.dialogs import Confirm
from tui.threads import on_thread
from tui.widgets.editing import SafeTextArea
from tui.widgets.form_field import FormField
from tui.widgets.top_bar import TopBar

CHECK_SECONDS = 0.2
SAVE_SECONDS = 0.5


class CodeEditor(SafeTextArea):
    """The code. Tab indents, so escape is the way out."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave the editor", id="new.leave_editor"),
        Binding("ctrl+e", "screen.external_editor", "$EDITOR", id="new.editor_here"),
    ]

    def action_leave(self) -> None:
        self.screen.focus_next()


class NewJobScreen(StokeScreen):
    CHANGES = frozenset({"submit", "race"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "submit", "Submit", id="new.submit"),
        Binding("ctrl+t", "race", "Race", id="new.race"),
        Binding("ctrl+e", "external_editor", "$EDITOR", id="new.external_editor"),
        Binding("escape", "back", "Back to the jobs", show=False, id="new.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._draft = drafts.load()
        self._saved = self._draft
        self._pending: dict[str, Timer] = {}
        self._checks = 0
        self._submitting = False

    def compose(self) -> ComposeResult:
        yield TopBar("new")
        with Container(id="new-body"):
            with Vertical(id="new-code-side"):
                yield CodeEditor(
                    self._draft.code,
                    id="code",
                    language="python",
                    theme="css",
                    tab_behavior="indent",
                    soft_wrap=False,
                    show_line_numbers=True,
                    placeholder="Python code",
                )
                yield Static(id="code-error", classes="field-error")
            with VerticalScroll(id="new-fields", can_focus=False):
                yield Static(id="prediction")
                yield from (FormField(field) for field in form.FIELDS[:4])
                yield Static(Text("backend"), classes="field-label")
                yield self._backend_select()
                yield Static(id="backend-error", classes="field-error")
                yield Static(id="backend-isolation", classes="hint")
                yield from (FormField(field) for field in form.FIELDS[4:] if not field.folded)
                with Collapsible(title="More: environment, secrets, limits", id="more"):
                    yield from (FormField(field) for field in form.FIELDS if field.folded)
                    yield Checkbox("use the cache", True, id="use-cache", compact=True)
                yield Static(id="request-error", classes="field-error")
                yield Button("Submit", id="submit", variant="primary", compact=True)
        yield Footer(show_command_palette=False, compact=True)

    def _backend_select(self) -> Select[str]:
        chosen = self._draft.backend or self.stoke.config.backend
        names = sorted({*backend_names(), self.stoke.config.backend, chosen})
        options = [(Content(clean(name)), name) for name in names]
        return Select(options, value=chosen, allow_blank=False, id="backend", compact=True)

    def on_mount(self) -> None:
        self._fill(self._draft)
        self._show_errors({})
        self.query_one("#code").focus()
        self._check()

    def on_screen_resume(self) -> None:
        # A job that ran meanwhile has changed what the caches hold.
        if self.query("#submit"):
            self._check()

    def on_unmount(self) -> None:
        self._save()

    # --- what the form holds ----------------------------------------------------------------------

    @property
    def _code(self) -> CodeEditor:
        return self.query_one(CodeEditor)

    @property
    def _backend(self) -> str:
        value = self.query_one("#backend", Select).value
        return value if isinstance(value, str) else self.stoke.config.backend

    def _now(self) -> drafts.Draft:
        return drafts.Draft(
            self._code.text,
            self._backend,
            self.query_one("#use-cache", Checkbox).value,
            {field.field.name: field.text for field in self.query(FormField)},
        )

    def _fill(self, draft: drafts.Draft) -> None:
        if self._code.text != draft.code:
            self._code.load_text(draft.code)
        self.query_one("#use-cache", Checkbox).value = draft.use_cache
        for field in self.query(FormField):
            preset = self.stoke.config.scope if field.field.name == "scope" else ""
            field.text = draft.values.get(field.field.name, preset)
        if any(draft.values.get(field.name) for field in form.FIELDS if field.folded):
            self.query_one("#more", Collapsible).collapsed = False

    def offer(self, spec: JobSpec, name: str, backend: str) -> None:
        """Puts a request into the form; asks first where that would lose other code."""
        new = drafts.Draft(spec.code, backend, spec.use_cache, form.filled(spec, name))

        def answered(yes: bool | None) -> None:
            if yes:
                self._fill(new)
                self.query_one("#backend", Select).value = backend
                self._code.focus()

        if self._code.text.strip() in ("", spec.code.strip()):
            answered(True)
            return
        body = Text("The code that stands here goes; the job it came from, if any, keeps its own.")
        self.app.push_screen(Confirm("Replace what is in New job?", body, "Replace"), answered)

    # --- as it is typed ---------------------------------------------------------------------------

    @on(FormField.Changed)
    @on(TextArea.Changed, "#code")
    @on(Select.Changed)
    @on(Checkbox.Changed)
    def _changed(self) -> None:
        for name, delay, do in (
            ("check", CHECK_SECONDS, self._check),
            ("save", SAVE_SECONDS, self._save),
        ):
            if name in self._pending:
                self._pending[name].stop()
            self._pending[name] = self.set_timer(delay, do)

    def _save(self) -> None:
        if not self.query("#submit"):
            return
        draft = self._now()
        if draft == self._saved:
            return
        try:
            drafts.save(draft)
            self._saved = draft
        except StokeError as error:
            self.stoke.show_error(error)

    def _check(self) -> None:
        """Shows what is wrong field by field and, where nothing is, what to expect."""
        draft = self._now()
        found = form.errors(draft.code, draft.values)
        self._checks += 1
        number = self._checks
        spec: JobSpec | None = None
        if not found:
            try:
                spec = self._spec(draft, draft.code if draft.code.strip() else "pass")
            except RequestError as error:
                found[form.field_of(error) or "request"] = error
        self._show_errors(found)
        backend = self._backend
        # What is right already is held against the backend, whatever else is wrong.
        names = ("system", "image", "cpu", "memory")
        values = {name: draft.values[name] for name in names if name not in found}
        right = self._spec(drafts.Draft(values=values), "pass")

        def look() -> tuple[str, RequestError | None, Prediction | None]:
            engine = self.stoke.service.backends.get(backend)
            refused = None
            try:
                lifecycle.check_request(spec or right, engine)
            except RequestError as error:
                refused = error
            expected = predict(spec, backend, self.stoke.history) if spec else None
            return engine.capabilities.isolation, refused, expected

        def done(seen: tuple[str, RequestError | None, Prediction | None]) -> None:
            if number != self._checks:
                return
            isolation, refused, expected = seen
            self.query_one("#backend-isolation", Static).update(fmt.plain(isolation))
            if refused is not None:
                found[form.field_of(refused) or "request"] = refused
                self._show_errors(found)
            self._show_prediction(spec, None if found else expected)

        def failed(error: StokeError) -> None:
            if number == self._checks:
                found["backend"] = _at_backend(error)
                self._show_errors(found)
                self._show_prediction(spec, None)

        on_thread(self, look, done, failed)

    def _spec(self, draft: drafts.Draft, code: str) -> JobSpec:
        config = self.stoke.config
        spec = form.build(code, draft.values, draft.use_cache, config.index)
        return with_defaults(spec, config)

    def _show_prediction(self, spec: JobSpec | None, expected: Prediction | None) -> None:
        text = Text()
        if spec is None or expected is None:
            text.append("prediction: -", style="dim")
        elif expected.python is None and expected.system is None:
            text.append("prediction: no packages, nothing to build")
        else:
            text.append("prediction:")
            for kind, word in (("python", expected.python), ("system", expected.system)):
                if word is not None:
                    text.append(f" {kind} ")
                    text.append(clean(word).upper(), style="green" if word == "hit" else "yellow")
                    if counts := expected.counts.get(kind):
                        named = " named" if counts.named else ""
                        text.append(f" {counts.cached} of {counts.packages}{named}")
            if expected.seconds is not None:
                text.append(f", about {fmt.duration(expected.seconds)}")
            elif not spec.use_cache:
                text.append(", the cache is not used")
        self.query_one("#prediction", Static).update(text)

    def _show_errors(self, found: dict[str, RequestError]) -> None:
        for field in self.query(FormField):
            field.show_error(found.get(field.field.name))
        for name in ("code", "backend", "request"):
            line = self.query_one(f"#{name}-error", Static)
            error = found.get(name)
            line.display = error is not None
            mend = f"; {error.mend}" if error and error.mend else ""
            line.update(fmt.plain(f"{error.why}{mend}" if error else ""))

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        return not self._submitting if action == "submit" else True

    @on(Button.Pressed, "#submit")
    def action_submit(self) -> None:
        if self._submitting:
            return
        draft = self._now()
        self._save()
        try:
            spec = self._spec(draft, draft.code)
        except RequestError as error:
            self._refuse(error)
            return
        self._set_submitting(True)
        name = draft.values["name"].strip() or "job"
        self.stoke.submit(
            self._backend, spec, name, self._refuse, lambda: self._set_submitting(False)
        )

    def action_race(self) -> None:
        """Runs the request cold and warm, on the Race screen."""
        draft = self._now()
        self._save()
        try:
            spec = self._spec(draft, draft.code)
            check_race(spec, self.stoke.service.backends.get(self._backend))
        except RequestError as error:
            self._refuse(error)
            return
        self.stoke.race(self._backend, spec, draft.values["name"].strip() or "job")

    def _set_submitting(self, submitting: bool) -> None:
        self._submitting = submitting
        button = self.query_one("#submit", Button)
        button.label = Content("Submitting ..." if submitting else "Submit")
        button.disabled = submitting
        self.refresh_bindings()

    def _refuse(self, error: StokeError) -> None:
        """Shows the error where it belongs and puts the cursor there."""
        self._set_submitting(False)
        # A check that is still under way knows nothing of this error and would wipe it out.
        self._checks += 1
        if "check" in self._pending:
            self._pending["check"].stop()
        if not isinstance(error, RequestError):
            error = _at_backend(error)
        name = form.field_of(error) or "request"
        self._show_errors({name: error})
        if name in form.NAMES:
            field = self.query_one(f"#field-{name}", FormField)
            if field.field.folded:
                self.query_one("#more", Collapsible).collapsed = False
            field.control.focus()
        elif name != "request":
            self.query_one(f"#{name}").focus()
        self.stoke.show_error(error)

    def action_external_editor(self) -> None:
        try:
            with self.app.suspend():
                code = external_editor.edit(self._code.text)
        except SuspendNotSupported:
            self.stoke.show_error(StokeError("there is no terminal to open an editor in"))
        except StokeError as error:
            self.stoke.show_error(error)
        else:
            if code != self._code.text:
                self._code.load_text(code)

    def action_back(self) -> None:
        self.app.switch_mode("jobs")


def _at_backend(error: StokeError) -> RequestError:
    if isinstance(error, RequestError):
        return error
    return RequestError("backend", error.what, error.mend)

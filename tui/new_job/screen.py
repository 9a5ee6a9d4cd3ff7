"""The New job screen: code, packages, where to run, and what the caches are expected to save."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Button, Collapsible, Select, Static, TextArea
from textual.widgets._collapsible import CollapsibleTitle

from stoke.backend.capabilities import ChoosesCluster, ClusterContext
from stoke.backend.registry import backend_names
from stoke.errors import RequestError, StokeError
from stoke.files.paths import current_folder
from stoke.history.job import Prediction
from stoke.jobs.request import Request
from stoke.project.fresh_request import request_to_save
from stoke.race.race import check_race
from stoke.request import presets
from stoke.request.presets import Preset
from stoke.request.spec import JobSpec
from stoke.request.undeclared_packages import Package
from stoke.text.sanitize import clean, clean_block
from tui import format as fmt
from tui.context import Context
from tui.dialogs.prompts import Confirm
from tui.messages import ShowScreen, StartRace
from tui.new_job import draft as drafts
from tui.new_job import external_editor, form
from tui.new_job import project as projects
from tui.new_job.chips import Chips
from tui.new_job.cluster_choice import ClusterChoice
from tui.new_job.code_editor import CodeEditor
from tui.new_job.files_dialog import FilesDialog
from tui.new_job.form_field import FormField
from tui.new_job.manifest import ManifestView
from tui.new_job.pick import ChoosePreset, SavePreset
from tui.new_job.project_files import FilesLine
from tui.new_job.shell import OpensShell
from tui.new_job.validation import FormResult, FormValidation, at_backend
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar

CHECK_SECONDS = 0.2
SAVE_SECONDS = 0.5


class Fold(Collapsible):
    """A fold that scrolls into view only when its user opened it."""

    def scroll_visible(self, *arguments: Any, **options: Any) -> None:
        if self.has_focus_within:
            super().scroll_visible(*arguments, **options)


class NewJobScreen(OpensShell):
    CHANGES = frozenset({"submit", "race", "shell"})
    PANES = "#new-code-side, #new-fields"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "submit", "Submit", id="new.submit"),
        Binding("ctrl+n", "submit(False)", "Submit and keep editing", id="new.submit_and_stay"),
        Binding("ctrl+g", "manifest", "Manifest", id="new.manifest"),
        Binding("ctrl+o", "open", "Open", id="new.open"),
        Binding("f7", "files", "Files that travel", id="new.files"),
        Binding("f4", "presets", "Presets", id="new.presets"),
        Binding("f10", "drafts", "Drafts", show=False, id="new.drafts"),
        Binding("ctrl+s", "save_preset", "Save as a preset", show=False, id="new.save_preset"),
        Binding("f6", "add_packages", "Add packages", id="new.add_packages"),
        Binding("ctrl+t", "race", "Race", id="new.race"),
        Binding("ctrl+e", "external_editor", "$EDITOR", id="new.external_editor"),
        Binding("escape", "back", "Back to the jobs", show=False, id="new.back"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._rest = self._draft.rest
        self._validation = FormValidation(
            context.config, context.backends, context.history, context.request
        )
        self._pending: dict[str, Timer] = {}
        self._checks = 0
        self._submitting = False
        self._script, self._last_code = self._draft.script, self._draft.code
        self._undeclared: tuple[Package, ...] = ()
        self._result = FormResult({})

    def compose(self) -> ComposeResult:
        yield TopBar("new", self.context.read_only)
        with Container(id="new-body"):
            with Vertical(id="new-code-side") as code_side:
                code_side.border_title = self._code_title()
                yield CodeEditor(self._draft.code)
                yield Static(id="code-error", classes="field-error")
                yield ManifestView()
            with VerticalScroll(id="new-fields", can_focus=False) as fields:
                fields.border_title = "Request"
                yield Static(id="prediction")
                yield Static(id="undeclared")
                for one in form.widgets():
                    if not one[1].folded:
                        yield FormField(*one)
                    if one[0] is projects.RECORDED:
                        yield FilesLine(
                            lambda: self.context.config.project.max_size, self._files_changed
                        )
                with Fold(title="Where and how", id="more"):
                    with Horizontal(classes="field-line"):
                        yield Static(Text("backend"), classes="field-label")
                        yield self._backend_select()
                    yield Static(id="backend-error", classes="field-error field-below")
                    yield Static(id="backend-isolation", classes="hint field-below")
                    yield ClusterChoice()
                    yield from (FormField(*one) for one in form.widgets() if one[1].folded)
                    yield Static(id="rest", classes="hint")
                yield Static(id="request-error", classes="field-error")
                yield Button("Submit", id="submit", variant="primary", compact=True)
        yield KeyBar()

    def _backend_select(self) -> Select[str]:
        chosen = self._draft.backend or self.context.config.backend
        options = self._backend_options(chosen)
        return Select(options, value=chosen, allow_blank=False, id="backend", compact=True)

    def _backend_options(self, chosen: str) -> list[tuple[Content, str]]:
        """Return the installed backends and the chosen one, which a draft or an earlier job may name
        although it is not installed."""
        names = sorted({*backend_names(), self.context.config.backend, chosen})
        return [(Content(clean(name)), name) for name in names]

    def _choose_backend(self, name: str) -> None:
        select = self.query_one("#backend", Select)
        if name != self._backend:
            with self.prevent(Select.Changed):
                select.set_options(self._backend_options(name))
                select.value = name
            self._backend_changed()
            self._changed()

    def on_mount(self) -> None:
        self._fill(self._draft)
        self._show_errors({})
        self.query_one("#undeclared").display = False
        self.query_one("#code").focus()
        self._check()

    def on_screen_resume(self) -> None:
        # A job may have changed the caches meanwhile.
        if self.query("#submit"):
            self._files.forget()
            self._check()
            self._learn_names()

    def _learn_names(self) -> None:
        """Load the package names for completion: those that jobs have requested."""
        history = self.context.history

        def look() -> dict[str, list[str]]:
            return {
                "dependencies": history.known_packages("python"),
                "system": history.known_packages("system"),
            }

        def done(known: dict[str, list[str]]) -> None:
            for name, names in known.items():
                if chips := self._field(name).chips:
                    chips.known = names

        # Completion is optional, and the job list reports faults of the history.
        on_thread(self, look, done, lambda _: None)

    # --- the contents of the form -----------------------------------------------------------------

    @property
    def _backend(self) -> str:
        value = self.query_one("#backend", Select).value
        return value if isinstance(value, str) else self.context.config.backend

    def _now(self) -> drafts.Draft:
        return drafts.Draft(
            self._code.text,
            self._backend,
            {field.field.name: field.text for field in self.query(FormField)},
            self._rest,
            self._script,
        )

    # --- the cluster ------------------------------------------------------------------------------

    def _learn_clusters(self) -> None:
        """Load the clusters of the chosen backend, if it has several."""
        backend = self._backend

        def look() -> list[ClusterContext] | None:
            engine = self.context.backends.get(backend)
            return engine.contexts() if isinstance(engine, ChoosesCluster) else None

        def done(contexts: list[ClusterContext] | None) -> None:
            choice = self.query_one(ClusterChoice)
            if backend != self._backend:
                return
            choice.display = contexts is not None
            if contexts is not None:
                choice.show(contexts, *self.context.cluster(backend))

        def failed(error: StokeError) -> None:
            if backend == self._backend and not isinstance(error, RequestError):
                self.query_one(ClusterChoice).refuse(error)

        on_thread(self, look, done, failed)

    def on_cluster_choice_changed(self, event: ClusterChoice.Changed) -> None:
        self.context.choose_cluster(self._backend, *event.place)
        self._changed()

    def on_cluster_choice_allow(self, event: ClusterChoice.Allow) -> None:
        """Show the program that a kubeconfig runs on this machine, and ask once whether it may run."""
        backend = self._backend

        def allow() -> None:
            engine = self.context.backends.get(backend)
            if isinstance(engine, ChoosesCluster):
                engine.allow_plugin()

        def answered(yes: bool | None) -> None:
            if yes:
                on_thread(self, allow, lambda _: self._learn_clusters(), self.show_error)

        body = fmt.plain(event.plugin)
        body.append("\n\nIt runs on this machine, as your user, whenever credentials are needed.")
        self.app.push_screen(Confirm("Let this program run?", body, "Allow"), answered)

    def _fill(self, draft: drafts.Draft) -> None:
        self._put_code(draft.code, draft.script)
        self._rest = draft.rest
        rest = self.query_one("#rest", Static)
        described = form.describe_rest(draft.rest)
        rest.display = bool(described)
        rest.update(fmt.plain(f"From the opened request: {described}"))
        for one in self.query(FormField):
            default = form.default_text(one.field, self.context.config)
            one.text = draft.values.get(one.field.name, default)

    def offer(self, spec: JobSpec, name: str, backend: str) -> None:
        """Put a request into the form; ask first if that replaces other work."""
        rest = form.rest_of(spec, self.context.config)
        filled = form.filled(spec, name)
        new = drafts.Draft(spec.code, backend, filled, rest, projects.script_of(spec))

        def answered(yes: bool | None) -> None:
            if yes:
                self._fill(new)
                self._choose_backend(backend)
                self._code.focus()

        if not self._would_lose(new):
            answered(True)
            return
        body = Text("This replaces the current form. Ctrl+z restores the code.")
        self.app.push_screen(Confirm("Replace the form?", body, "Replace"), answered)

    def _would_lose(self, new: drafts.Draft) -> bool:
        """Whether the form has work that the new draft does not have."""
        now = self._now()
        if now.code.strip() not in ("", new.code.strip()):
            return True
        for one in form.request_fields():
            text = now.values[one.name].strip()
            # Fields with a default are no work, and are quickly set again.
            has_default = form.default_text(one, self.context.config) != ""
            if not has_default and text not in ("", new.values.get(one.name, "").strip()):
                return True
        return False

    # --- while the user types ---------------------------------------------------------------------

    @on(FormField.Changed)
    @on(TextArea.Changed, "#code")
    @on(Select.Changed, "#backend")
    def _changed(self) -> None:
        for name, delay, do in (
            ("check", CHECK_SECONDS, self._check),
            ("save", SAVE_SECONDS, self._save),
        ):
            if name in self._pending:
                self._pending[name].stop()
            self._pending[name] = self.set_timer(delay, do)

    @on(Select.Changed, "#backend")
    def _backend_changed(self) -> None:
        self._learn_clusters()

    def _check(self) -> None:
        """Show what is wrong field by field and, where nothing is, the prediction."""
        draft = self._now()
        self._checks += 1
        number = self._checks
        rendering = self.query_one(ManifestView).display

        def done(result: FormResult) -> None:
            if number == self._checks:
                self._show(result)

        def failed(error: StokeError) -> None:
            done(FormResult({"backend": at_backend(error)}))

        self._show_summary(draft)
        self._field(projects.RECORDED.name).display = projects.has_snapshot(draft)
        folder = Path(draft.script).parent if draft.script else current_folder()
        on_thread(self, lambda: self._validation.validate(draft, rendering, folder), done, failed)

    def _show(self, result: FormResult) -> None:
        if chips := self._field("dependencies").chips:
            chips.give(result.code_packages)
        for field in self.query(FormField):
            field.show_unsupported(result.unsupported.get(field.field.name))
        self.query_one("#backend-isolation", Static).update(fmt.plain(result.isolation))
        self._files.look(result.project, self._code.text, result.project_files)
        self._files.show_notes(result.notes)
        self._result = result
        self._show_result()
        self._show_undeclared(result.undeclared)
        manifest = self.query_one(ManifestView)
        if manifest.display:
            title, text = result.manifest
            manifest.show(title or "Fix the errors in the form first.", text)

    def _show_result(self) -> None:
        """Show the errors of the form and of its project's files, or the prediction."""
        result, files = self._result, self._files
        errors = dict(result.errors)
        if files.error is not None:
            errors.setdefault(projects.FOLDER.name, files.error)
        self._show_errors(errors)
        self._show_prediction(result.spec, None if errors else result.expected)
        if errors:
            # On a small terminal a field may be scrolled out.
            labels = {field.name: field.label for field, _ in form.widgets()}
            where = ", ".join(labels.get(name, name) for name in sorted(errors))
            said = Text("prediction: -", style="$quiet").append(f"  fix first: {where}")
            self.query_one("#prediction", Static).update(said)

    @property
    def _files(self) -> FilesLine:
        return self.query_one(FilesLine)

    def _files_changed(self) -> None:
        self._show_result()
        self.refresh_bindings()

    def action_files(self) -> None:
        """List what would travel with the code."""
        if (files := self._files.files) is not None:
            self.app.push_screen(FilesDialog(files))

    def _show_summary(self, draft: drafts.Draft) -> None:
        """Show what the folded fields hold, in the title of the fold."""
        backend = draft.backend or self.context.config.backend
        place = [backend, *(one for one in self.context.cluster(backend) if one)]
        parts = [*place, *form.summary(draft.values)]
        title = Content(clean(f"Where and how: {', '.join(parts)}"))
        self.query_one("#more CollapsibleTitle", CollapsibleTitle).label = title

    def _show_prediction(self, spec: JobSpec | None, expected: Prediction | None) -> None:
        text = Text()
        if spec is None or expected is None:
            text.append("prediction: -", style="$quiet")
        elif expected.python is None and expected.system is None:
            text.append("prediction: no packages, nothing to build")
        else:
            text.append("prediction:")
            for kind, word in (("python", expected.python), ("system", expected.system)):
                if word is not None:
                    text.append(f" {kind} ")
                    text.append(clean(word).upper(), style="$good" if word == "hit" else "$warn")
                    if counts := expected.counts.get(kind):
                        named = " named" if counts.named else ""
                        text.append(f" {counts.cached} of {counts.packages}{named}")
            if expected.seconds is not None:
                text.append(f", about {fmt.duration(expected.seconds)}")
            elif not spec.use_cache:
                text.append(", the cache is not used")
        self.query_one("#prediction", Static).update(text)

    def _show_undeclared(self, packages: tuple[Package, ...]) -> None:
        """Show what the code imports while the form has no packages, and the key that adds them."""
        line = self.query_one("#undeclared", Static)
        line.display = bool(packages)
        if packages != self._undeclared:
            self._undeclared = packages
            names = ", ".join(package.name + package.doubt for package in packages)
            line.update(fmt.plain(f"f6 adds {names}, which the code imports"))
            self.refresh_bindings()

    def action_add_packages(self) -> None:
        field = self._field("dependencies")
        field.text = "\n".join([field.text, *(package.name for package in self._undeclared)])

    def _show_errors(self, found: dict[str, RequestError]) -> None:
        folded = {"backend"}
        for field in self.query(FormField):
            field.show_error(found.get(field.field.name))
            if field.widget.folded:
                folded.add(field.field.name)
        for name in ("code", "backend", "request"):
            line = self.query_one(f"#{name}-error", Static)
            error = found.get(name)
            line.display = error is not None
            hint = f"; {projects.form_hint(error.hint)}" if error and error.hint else ""
            line.update(fmt.plain(f"{error.why}{hint}" if error else ""))
        wrong = self._result.syntax_error
        if wrong and "code" not in found:
            line = self.query_one("#code-error", Static)
            line.display = True
            line.update(fmt.plain(f"syntax error in {wrong}"))
        if found.keys() & folded:
            self.query_one("#more", Collapsible).collapsed = False

    def on_chips_file_pasted(self, event: Chips.FilePasted) -> None:
        """Move a requirements file that was pasted among the packages to its own field."""
        event.stop()
        field = self._field("requirements")
        before = field.text.rstrip()
        field.text = f"{before}\n{event.text}" if before else event.text
        self.notify("Requirements file detected and moved to the requirements field.", markup=False)

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if action == "add_packages":
            return bool(self._undeclared)
        if action == "files":
            return self.is_mounted and bool(self.query(FilesLine)) and self._files.files is not None
        return not self._submitting if action == "submit" else True

    @on(Button.Pressed, "#submit")
    def _submit_pressed(self) -> None:
        self.action_submit()

    def action_submit(self, watch: bool = True) -> None:
        """Submit and show the job; without `watch` the form stays open."""
        if self._submitting:
            return
        draft = self._now()
        self._save()
        self._set_submitting(True)
        self.set_focus(None if watch else self.focused)  # A key is not for the code any more.

        def answered(yes: bool | None) -> None:
            if yes:
                self._submit(draft, watch)
            else:
                self._set_submitting(False)
                self._code.focus()

        def checked(wrong: str | None) -> None:
            if wrong is None:
                answered(True)
                return
            body = fmt.plain(f"In {wrong}\n\nPython of this machine cannot parse the code.")
            self.app.push_screen(
                Confirm("Submit code with a syntax error?", body, "Submit"), answered
            )

        on_thread(self, lambda: self._validation.syntax_error(draft), checked, self._refuse)

    def _submit(self, draft: drafts.Draft, watch: bool) -> None:
        self.context.submissions.submit_request(
            self,
            self._backend,
            lambda: self._validation.request(draft),
            self._refuse,
            lambda: self._set_submitting(False),
            watch,
        )

    def action_race(self) -> None:
        """Run the request cold and warm on the Race screen."""
        draft, backend = self._now(), self._backend
        self._save()

        def make() -> Request:
            request = self._validation.request(draft)
            check_race(request.spec, self.context.backends.get(backend))
            return request

        def made(request: Request) -> None:
            self.post_message(StartRace(request.spec, request.name, backend))

        on_thread(self, make, made, self._refuse)

    def _set_submitting(self, submitting: bool) -> None:
        button = self.query_one("#submit", Button)
        button.label = Content("Submitting ..." if submitting else "Submit")
        button.disabled = self._submitting = submitting
        if not submitting and self.focused is None:
            self._code.focus()
        self.refresh_bindings()

    def _refuse(self, error: StokeError) -> None:
        """Show the error at its field and focus that field."""
        self._set_submitting(False)
        # A check that still runs does not have this error and would remove it.
        self._checks += 1
        if "check" in self._pending:
            self._pending["check"].stop()
        if not isinstance(error, RequestError):
            error = at_backend(error)
        name = form.field_of(error) or "request"
        # The other fields stay marked until they are fixed.
        self._show_errors({**self._result.errors, name: error})
        if name in form.field_names():
            self._field(name).control.focus()
        elif name != "request":
            self.query_one(f"#{name}").focus()
        self.show_error(error)

    def action_external_editor(self) -> None:
        try:
            with self.app.suspend():
                code = external_editor.edit(self._code.text)
        except SuspendNotSupported:
            self.show_error(StokeError("there is no terminal to open an editor in"))
        except StokeError as error:
            self.show_error(error)
        else:
            self._code.put(code)

    def action_manifest(self) -> None:
        """Show what would be submitted, below the code or, on a small terminal, instead of it."""
        manifest = self.query_one(ManifestView)
        manifest.display = not manifest.display
        self.query_one("#new-code-side").set_class(manifest.display, "-manifest")
        if manifest.display:
            manifest.show("...", None)
            manifest.focus_text()
            self._check()
        else:
            self._code.focus()

    # --- files ------------------------------------------------------------------------------------

    def action_presets(self) -> None:
        def show(found: list[Preset]) -> None:
            self.app.push_screen(ChoosePreset(found), self._take)

        on_thread(self, presets.found, show, self.show_error)

    def action_save_preset(self) -> None:
        """Save the form as a preset, unless something in it is wrong."""
        draft = self._now()

        def read() -> tuple[str, list[str]]:
            return presets.as_json(request_to_save(self._validation.as_asked(draft)))

        def name(preset: tuple[str, list[str]]) -> None:
            self._name_preset(draft.values["name"].strip(), *preset)

        on_thread(self, read, name, self._refuse)

    def _name_preset(self, wanted: str, text: str, hidden: list[str]) -> None:
        """Ask for the name of a preset and save it. `hidden` are the variables without their values."""

        def save(path: Path) -> None:
            try:
                presets.save(path, text)
            except StokeError as error:
                self.show_error(error)
                return
            said = f"Saved. Run it: stoke submit {fmt.place(str(path))} -b {self._backend}"
            if hidden:
                said += f"\n{', '.join(hidden)}: saved by reference, without the value"
            self.notify(clean_block(said), markup=False, timeout=10)

        def named(path: Path | None) -> None:
            if path is None:
                return
            if not path.exists():
                save(path)
                return
            body = fmt.plain(f"{fmt.place(str(path))} holds another request.")
            asked = Confirm("Replace this preset?", body, "Replace")
            self.app.push_screen(asked, lambda yes: save(path) if yes else None)

        self.app.push_screen(SavePreset(wanted), named)

    def action_back(self) -> None:
        self.post_message(ShowScreen("jobs"))

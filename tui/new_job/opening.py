"""Opening files and folders in the form: their code, and the project that travels with it."""

from __future__ import annotations

import os
from pathlib import Path

from textual import on
from textual.content import Content
from textual.widgets import TextArea

from stoke.errors import RequestError, StokeError
from stoke.files.paths import current_folder
from stoke.project.choices import ProjectEnvironment
from stoke.project.folder_program import find_program
from stoke.project.fresh_request import request_to_submit
from stoke.project.root import project_of
from stoke.request import presets
from stoke.request.presets import Preset
from stoke.request.sources import read_code_or_notebook
from stoke.request.spec import JobSpec
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.dialogs.prompts import Confirm
from tui.new_job import form
from tui.new_job import project as projects
from tui.new_job.code_editor import CodeEditor
from tui.new_job.draft import Draft
from tui.new_job.form_field import FormField
from tui.new_job.pick import OpenFile
from tui.threads import on_thread

MOST_SHOWN = 200
_PACKAGES = ("dependencies", "system", "requirements", "constraints")


class OpensFiles(StokeScreen):
    """The part of the New job screen that knows which file its code is from."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._opened_last: Path | None = None
        self._script = ""
        # The file that a text of the editor is from, for texts that undo may bring back.
        self._scripts: dict[str, str] = {}
        self._last_code = ""

    @property
    def _code(self) -> CodeEditor:
        return self.query_one(CodeEditor)

    def _field(self, name: str) -> FormField:
        return self.query_one(f"#field-{name}", FormField)

    def _now(self) -> Draft:
        """Return what the form has."""
        raise NotImplementedError

    @property
    def _backend(self) -> str:
        raise NotImplementedError

    def offer(self, spec: JobSpec, name: str, backend: str) -> None:
        """Put a request into the form."""
        raise NotImplementedError

    def _take(self, preset: Preset | None) -> None:
        """Put a preset into the form, with the packages that its project has now."""
        if preset is None or preset.spec is None:
            return
        spec, name = preset.spec, preset.name

        def show(taken: tuple[JobSpec, ProjectEnvironment]) -> None:
            self.offer(taken[0], name, self._backend)

        on_thread(self, lambda: request_to_submit(spec), show, self.show_error)

    # --- the code and its file --------------------------------------------------------------------

    def _put_code(self, code: str, script: str) -> None:
        """Replace the code; undo restores the old code and the file that it was from."""
        self._scripts = {self._code.text: self._script, code: script}
        self._script = script
        self._code.put(code)
        self._show_script()

    @on(TextArea.Changed, "#code")
    def _code_changed(self) -> None:
        code, before = self._code.text, self._last_code
        self._last_code = code
        if not code.strip() and before.strip():
            self._scripts.setdefault(before, self._script)
            self._scripts.setdefault(code, "")  # What is typed next is another code.
        script = self._scripts.get(code, self._script)
        if script != self._script:
            self._script = script
            self._show_script()

    def _code_title(self) -> str:
        if not self._script:
            return "Code"
        return f"Code: a copy of {clean(fmt.place(self._script))}, which stays as it is"

    def _show_script(self) -> None:
        self.query_one("#new-code-side").border_title = Content(self._code_title())

    # --- opening ----------------------------------------------------------------------------------

    def action_open(self) -> None:
        def picked(path: Path | None) -> None:
            if path is not None:
                self._opened_last = path if path.is_dir() else path.parent
                (self._open_folder if path.is_dir() else self._open)(path)

        self.app.push_screen(OpenFile(self._opened_last or current_folder()), picked)

    def _open_folder(self, folder: Path) -> None:
        """Have a folder travel, and run its own program if the form names no code."""

        def find() -> dict[str, str]:
            return find_program(str(folder))[0]

        def found(entry: dict[str, str]) -> None:
            if "file" in entry:
                self._open(Path(entry["file"]), str(folder))
            for name in form.STARTS:
                if name in entry:
                    self._field(name).text = entry[name]
                    self.notify(f"Runs {name} {clean(entry[name])}", markup=False)

        def unclear(error: StokeError) -> None:
            why = error.why if isinstance(error, RequestError) else error.what
            hint = "Open one of its files (ctrl+o), or name a module or a program."
            self.show_error(StokeError(f"{fmt.place(str(folder))} {why}", hint))

        self._set_folder(str(folder))
        draft = self._now()
        if not draft.code.strip() and not form.has_start(draft.values):
            on_thread(self, find, found, unclear)

    def _set_folder(self, folder: str) -> None:
        """Put a folder into its field. Patterns for the files of another one are removed."""
        field = self._field(projects.FOLDER.name)
        if field.text != folder:
            field.text = folder
            for other in (projects.INCLUDE, projects.EXCLUDE):
                self._field(other.name).text = ""

    def _open(self, path: Path, folder: str | None = None) -> None:
        """Open a file. Code has the folder of its project travel, or this one."""

        def read() -> Preset | tuple[str, str]:
            if path.suffix == ".json":
                return Preset(path, presets.read(path))
            code = read_code_or_notebook(path)
            found = project_of(str(path), code) if folder is None else None
            root = found["root"] if found and not found["imports_only"] else ""
            return code, folder or root

        def done(what: Preset | tuple[str, str]) -> None:
            if isinstance(what, Preset):
                self._take(what)
                return
            code, root = what
            is_other = os.path.abspath(path) != self._script
            self._put_code(code, "" if path.suffix == ".ipynb" else os.path.abspath(path))
            self._set_folder(root)
            self._code.focus()
            if is_other or not self._field("name").text:
                self._field("name").text = path.stem
            if is_other:
                self._offer_to_remove_packages()
            if path.suffix == ".ipynb":
                self.notify("Notebook opened as a script: its code cells, without their outputs.")

        on_thread(self, read, done, self.show_error)

    def _offer_to_remove_packages(self) -> None:
        """Ask whether to remove the packages in the form, which were for other code."""
        fields = [self._field(name) for name in _PACKAGES if self._field(name).text.strip()]
        if not fields:
            return

        def answered(yes: bool | None) -> None:
            for field in fields if yes else ():
                field.text = ""

        body = fmt.block("\n".join(f"{one.field.label}: {_shortened(one.text)}" for one in fields))
        body.append("\n\nThe form had them before the file was opened.")
        self.app.push_screen(
            Confirm("Remove the packages from the form?", body, "Remove"), answered
        )


def _shortened(text: str) -> str:
    line = ", ".join(text.split("\n"))
    return line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]} ..."

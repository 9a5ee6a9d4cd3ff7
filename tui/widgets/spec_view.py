"""What was asked for: the fields, the command that asks for the same, and the code."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static, TextArea

from stoke.errors import RequestError
from stoke.job import Job
from stoke.logs.sanitise import MASK, clean, clean_block, looks_secret
from stoke.spec import JobSpec
from tui import format as fmt
from tui.equivalent import run_command
from tui.widgets.editing import SafeTextArea


class SpecView(VerticalScroll):
    def compose(self) -> ComposeResult:
        yield Static(id="spec-fields")
        yield SafeTextArea(
            id="spec-code",
            read_only=True,
            show_line_numbers=True,
            soft_wrap=False,
        )

    def show(self, job: Job, spec: JobSpec | RequestError) -> None:
        """`spec` is an error where the history has none that can be read."""
        code = self.query_one("#spec-code", TextArea)
        code.display = isinstance(spec, JobSpec)
        fields = self.query_one("#spec-fields", Static)
        if not isinstance(spec, JobSpec):
            fields.update(fmt.plain(spec.what, "yellow"))
            return
        fields.update(self._fields(job, spec))
        text = clean_block(spec.code)
        # Not before it is looked at: the parser costs a tenth of a second.
        code.language = "python"
        if code.text != text:
            code.load_text(text)

    def _fields(self, job: Job, spec: JobSpec) -> Text:
        env = [
            f"{name}={MASK if looks_secret(name) else value}" for name, value in spec.env.items()
        ]
        secrets = [f"{name}={reference}" for name, reference in spec.secrets.items()]
        rows = [
            ("packages", ", ".join(spec.dependencies)),
            ("file", ", ".join(entry.text for entry in spec.parsed_requirements().requirements)),
            ("system", ", ".join(spec.system)),
            ("python", spec.python or ""),
            ("image", spec.image or ""),
            ("arguments", " ".join(spec.args)),
            ("environment", ", ".join(env)),
            ("secrets", ", ".join(secrets)),
            ("timeout", "" if spec.timeout is None else fmt.duration(spec.timeout)),
            ("cpu", "" if spec.cpu is None else f"{spec.cpu:g}"),
            ("memory", "" if spec.memory is None else fmt.size(spec.memory)),
            ("cache", "" if spec.use_cache else "not used"),
            ("scope", spec.scope),
            ("again", f"stoke rerun {job.id}"),
            ("or", run_command(spec, job.backend, job.name)),
        ]
        text = Text(overflow="fold")
        for name, value in rows:
            if value:
                text.append(f"{name:<12}", style="dim")
                text.append(f"{clean(value)}\n")
        return text

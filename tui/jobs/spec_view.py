"""The request of a job: its fields, the equivalent command, the code, packages and manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static, TextArea

from stoke.backend.api import CACHE_KINDS
from stoke.cache.volumes import Housekeeper
from stoke.errors import RequestError, StokeError
from stoke.history.job import SWEEP, Job
from stoke.jobs.compare import packages_of
from stoke.jobs.rendering import render_job
from stoke.jobs.request import Request
from stoke.request.command_line import CONSTRAINTS, REQUIREMENTS, command_line
from stoke.request.fields import masked_fields
from stoke.request.fields import rows as request_rows
from stoke.request.spec import JobSpec
from stoke.text.sanitize import clean, clean_block
from tui import format as fmt
from tui.context import Context
from tui.threads import on_thread
from tui.widgets.editing import SafeTextArea

Copies = dict[str, Callable[[], str]]
"""What can be copied: labels, and functions that return the text. They block: call them on a thread."""
_LONGEST_LINE = 200
"""Characters of a line of the manifest; the line of the payload has thousands."""


class SpecView(VerticalScroll):
    def __init__(self, context: Context, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.context = context
        self._job: Job | None = None
        self._spec: JobSpec | RequestError | None = None
        self._packages: dict[str, list[str]] = {}
        self._manifest: str | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="spec-fields")
        yield SafeTextArea(
            id="spec-code",
            read_only=True,
            show_line_numbers=True,
            soft_wrap=False,
        )
        yield Static(id="spec-packages")
        yield Static(id="spec-manifest")

    def show(self, job: Job, spec: JobSpec | RequestError) -> None:
        """Show a request, or the error that prevents it."""
        self._job, self._spec, self._manifest = job, spec, None
        code = self.query_one("#spec-code", TextArea)
        code.display = isinstance(spec, JobSpec) and spec.code != ""
        fields = self.query_one("#spec-fields", Static)
        self._show_packages(job)
        manifest = self.query_one("#spec-manifest", Static)
        manifest.update("")
        if not isinstance(spec, JobSpec):
            fields.update(fmt.plain(spec.what, "$warn"))
            return
        fields.update(self._fields(job, spec))
        text = clean_block(spec.code)
        # Only now: loading the parser takes a tenth of a second.
        code.language = "python"
        if code.text != text:
            code.load_text(text)

        def rendered(text: str) -> None:
            if self._job is job:
                self._manifest = text
                manifest.update(_shown(text))

        def refused(error: StokeError) -> None:
            if self._job is job:
                what = error.why if isinstance(error, RequestError) else error.what
                manifest.update(_heading("manifest").append_text(fmt.plain(what, "$quiet")))

        on_thread(self, lambda: self._render_job(job, spec), rendered, refused)

    def _render_job(self, job: Job, spec: JobSpec) -> str:
        backend = self.context.backends.get(job.backend)
        return render_job(Request(spec, name=job.name), backend)

    def _show_packages(self, job: Job) -> None:
        text = Text(overflow="fold")
        self._packages = {}
        for kind in CACHE_KINDS:
            try:
                found = packages_of(job, kind, self.context.reading)
            except StokeError:
                return  # The screen shows errors of the history.
            if found:
                self._packages[kind] = found
                text.append_text(_heading(f"{kind} packages in use ({len(found):,})"))
                text.append_text(fmt.plain("  ".join(found)))
        self.query_one("#spec-packages", Static).update(text)

    def copies(self) -> Copies:
        """Return what `y` offers."""
        job, spec = self._job, self._spec
        if job is None:
            return {}
        copies: Copies = {}
        if isinstance(spec, JobSpec):
            request = masked_fields(spec.model_dump(mode="json"))
            command = command_line(spec, job.backend, job.name)
            copies |= {
                # The command of a sweep would be that of one task.
                **({"command": lambda: command.text} if job.kind != SWEEP else {}),
                **({"code": lambda: spec.code} if spec.code else {}),
                "request, as JSON for stoke submit": lambda: json.dumps(request, indent=2) + "\n",
            }
            for file, text in command.inputs.items():
                if file in (REQUIREMENTS, CONSTRAINTS):
                    copies[f"{file}, which the command reads"] = partial(str, text)
        if manifest := self._manifest:
            copies["manifest"] = lambda: manifest
        if self._packages:
            lines = [package for found in self._packages.values() for package in found]
            copies["packages in use"] = lambda: "\n".join(lines) + "\n"
        if any(phase.name == "python" and phase.key for phase in job.phases):
            copies["lockfile with hashes, read from the cache"] = lambda: self._lockfile(job)
        return {**copies, "job id": lambda: job.id}

    def _lockfile(self, job: Job) -> str:
        context = self.context
        housekeeper = Housekeeper(context.history, context.config.lock_ttl)
        return housekeeper.lock_of(context.backends.get(job.backend), job)

    def _fields(self, job: Job, spec: JobSpec) -> Text:
        rows = [*_rows(spec), ("run again", f"stoke rerun {job.id}")]
        if job.kind != SWEEP:
            rows.append(("or", command_line(spec, job.backend, job.name).text))
        text = Text(overflow="fold")
        for name, value in rows:
            text.append(f"{name:<12}", style="$quiet")
            text.append(f" {clean(value)}\n")
        return text


def _rows(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield labels and values. A project takes several lines."""
    for label, lines in request_rows(spec.model_dump(mode="json")):
        shown = [fmt.place(line) for line in lines] if label == "project" else [", ".join(lines)]
        yield from zip([label, *[""] * (len(shown) - 1)], shown, strict=True)


def _heading(text: str) -> Text:
    return Text(f"\n{text}\n", style="bold", overflow="fold")


def _shown(text: str) -> Text:
    lines = [
        line
        if len(line) <= _LONGEST_LINE
        else f"{line[:_LONGEST_LINE]} ... {len(line):,} characters"
        for line in text.split("\n")
    ]
    text = "\n".join(clean(line) for line in lines)
    return Text.assemble(_heading("manifest (y copies it)"), text)

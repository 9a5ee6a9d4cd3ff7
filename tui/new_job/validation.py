"""Validation of the New job form: what is wrong with it, and what the request would find cached.

It runs on threads, because 10,000 packages take a quarter of a second and a backend may have to be
loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stoke.backend.api import Backend
from stoke.backend.capabilities import RendersJobs
from stoke.backend.pool import Backends
from stoke.cache.keys import request_keys
from stoke.cache.prediction import predict
from stoke.config.defaults import with_defaults
from stoke.config.model import Config
from stoke.errors import RequestError, StokeError
from stoke.history.database import History
from stoke.history.job import Prediction, new_job_id
from stoke.jobs.prepare import check_request
from stoke.jobs.rendering import left_out, render_job
from stoke.jobs.request import Request
from stoke.request import fields, presets
from stoke.request.source_code import syntax_error
from stoke.request.spec import JobSpec, Project, make_spec
from stoke.request.undeclared_packages import Package, undeclared
from tui.new_job import form
from tui.new_job.draft import Draft
from tui.new_job.project import project_fields


@dataclass(frozen=True)
class FormResult:
    """What is wrong with a form, by field, and what to expect where nothing is."""

    errors: dict[str, RequestError]
    spec: JobSpec | None = None
    isolation: str = ""
    unsupported: dict[str, str] = field(default_factory=dict)
    """The fields that the backend cannot honour, each with the reason."""
    expected: Prediction | None = None
    code_packages: tuple[str, ...] = ()
    """The packages that the code's metadata names."""
    undeclared: tuple[Package, ...] = ()
    """The packages that the code imports while the form declares none."""
    manifest: tuple[str, str | None] = ("", None)
    project: Project | None = None
    """The project whose files travel."""
    project_files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents that its snapshot has besides its files, by path."""
    syntax_error: str | None = None
    """What Python of this machine cannot parse."""
    notes: tuple[str, ...] = ()
    """What the user should know about the project."""


class FormValidation:
    """Validates forms against a configuration, its backends and the history."""

    def __init__(
        self,
        config: Config,
        backends: Backends,
        history: History,
        make_request: Callable[[JobSpec, str], Request],
    ) -> None:
        self._config = config
        self._backends = backends
        self._history = history
        self._make_request = make_request
        # A job's name, and the id of the job that is rendered as long as the name stays.
        self._rendered_as = ("", "")

    def request(self, draft: Draft) -> Request:
        """Return the request, or raise a `RequestError` that names the field. May read files of the
        project and start uv: call it on a thread."""
        spec, environment = form.build(draft)
        name = draft.values["name"].strip() or "job"
        return replace(
            self._make_request(with_defaults(spec, self._config, environment.settings), name),
            notes=environment.notes,
            project_files=environment.extra_files,
        )

    def syntax_error(self, draft: Draft) -> str | None:
        """Return what of the code cannot be parsed, on a thread.

        `RequestError` for a wrong field, which comes first: such a request cannot be submitted.
        """
        wrong = syntax_error(draft.code)
        if wrong is not None:
            self.request(draft)
        return wrong

    def as_asked(self, draft: Draft) -> JobSpec:
        """Return the request without what the configuration adds. `RequestError` names the field."""
        values = draft.values
        if values["scope"].strip() == self._config.scope:
            values = {**values, "scope": ""}
        return form.as_asked(replace(draft, values=values))

    def validate(self, draft: Draft, rendering: bool, folder: Path) -> FormResult:
        """Check a draft, also one without code. With `rendering` the result has the manifest.

        `folder` is where the code's own modules are.
        `StokeError` for a fault of the history.
        """
        found = form.errors(draft.code, draft.values)
        code_packages = tuple(form.code_packages(draft.code))
        if not draft.code.strip() and not form.has_start(draft.values):
            draft = replace(draft, code="pass")
        request: Request | None = None
        project = None
        try:
            project = _project(draft)
            if not found:
                request = self.request(draft)
        except RequestError as error:
            found[form.field_of(error) or "request"] = error
        spec = None if request is None else request.spec
        name = draft.backend or self._config.backend
        isolation, unsupported = "", {}
        try:
            backend = self._backends.get(name)
            isolation = backend.capabilities.isolation
            unsupported = fields.unsupported(name, backend.capabilities)
            # The right fields are held against the backend also when another one is wrong.
            right = form.parse_fields(form.field_names() - found.keys(), draft.values)
            for refusal in fields.refusals(right, name, backend.capabilities):
                found.setdefault(form.field_of(refusal) or "request", refusal)
            if spec is not None and not found:
                check_request(spec, backend)
        except RequestError as error:
            found[form.field_of(error) or "request"] = error
        except StokeError as error:
            found["backend"] = at_backend(error)
        result = FormResult(
            found,
            spec,
            isolation,
            unsupported,
            code_packages=code_packages,
            project=project,
            syntax_error=syntax_error(draft.code),
        )
        if found or request is None or spec is None:
            return result
        result = replace(result, project_files=request.project_files, notes=request.notes)
        expected = predict(spec, request_keys(spec), name, self._history)
        manifest = self._render(draft, request, backend) if rendering else ("", None)
        imported = tuple(undeclared(spec, folder))
        return replace(result, expected=expected, undeclared=imported, manifest=manifest)

    def _render(self, draft: Draft, request: Request, backend: Backend) -> tuple[str, str | None]:
        """Return a title and what would be submitted, as `stoke render` prints it for the backend."""
        if not isinstance(backend, RendersJobs):
            asked = presets.as_json(self.as_asked(draft))[0]
            return "the request, as stoke submit reads it", asked
        if self._rendered_as[0] != request.name:
            self._rendered_as = (request.name, new_job_id(request.name))
        title = f"stoke render {backend.name}"
        if missing := left_out(request.spec):
            title += f", without {', '.join(missing)}"
        try:
            return title, render_job(request, backend, self._rendered_as[1])
        except StokeError as error:
            return error.what, None


def _project(draft: Draft) -> Project | None:
    fields = project_fields(draft)
    return None if fields is None else make_spec({"code": "pass", "project": fields}).project


def at_backend(error: StokeError) -> RequestError:
    """Return the error as one of the backend field, unless it names a field already."""
    if isinstance(error, RequestError):
        return error
    return RequestError("backend", error.what, error.hint)

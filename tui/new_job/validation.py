"""What a look at New job's form finds. Looks are for threads: one at 10,000 packages takes a quarter of
a second, and a backend may have to be loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stoke.backend.api import Backend
from stoke.backend.capabilities import RendersJobs
from stoke.cache.keys import request_keys
from stoke.cache.prediction import predict
from stoke.config.defaults import with_defaults
from stoke.errors import RequestError, StokeError
from stoke.history.job import Prediction, new_job_id
from stoke.jobs import prepare
from stoke.jobs.rendering import left_out, render_job
from stoke.request import presets
from stoke.request.spec import JobSpec
from tui.context import Context
from tui.new_job import form
from tui.new_job.draft import Draft


@dataclass(frozen=True)
class Seen:
    """What a look at the form found: errors by field, and where there are none, what to expect."""

    errors: dict[str, RequestError]
    spec: JobSpec | None
    isolation: str = ""
    expected: Prediction | None = None
    given: tuple[str, ...] = ()
    """The packages that the code itself names."""
    manifest: tuple[str, str | None] = ("", None)


class FormLooks:
    def __init__(self, context: Context) -> None:
        self._context = context
        # (a name, the id that its rendered job has for as long as it is called so).
        self._rendered_as = ("", "")

    def spec(self, draft: Draft) -> JobSpec:
        """The request, or a `RequestError` that names the field."""
        return with_defaults(form.build(draft, draft.code), self._context.config)

    def as_asked(self, draft: Draft) -> JobSpec:
        """What the form says and the configuration does not; else as `spec`."""
        values = draft.values
        if values["scope"].strip() == self._context.config.scope:
            values = {**values, "scope": ""}
        return form.as_asked(replace(draft, values=values), draft.code)

    def look(self, draft: Draft, rendering: bool) -> Seen:
        """Without code there is something to expect all the same. With `rendering` what would be
        submitted is part of the answer. `StokeError` for a fault of the history."""
        found = form.errors(draft.code, draft.values)
        given = tuple(form.given_by(draft.code))
        if not draft.code.strip():
            draft = replace(draft, code="pass")
        spec: JobSpec | None = None
        if not found:
            try:
                spec = self.spec(draft)
            except RequestError as error:
                found[form.field_of(error) or "request"] = error
        # What is right already is held against the backend, whatever else is wrong.
        names = ("system", "image", "cpu", "memory", "shm_size")
        values = {name: draft.values[name] for name in names if name not in found}
        right = spec or self.spec(Draft("pass", values=values))
        backend = draft.backend or self._context.config.backend
        isolation = ""
        try:
            engine = self._context.backends.get(backend)
            isolation = engine.capabilities.isolation
            prepare.check_request(right, engine)
        except RequestError as error:
            found[form.field_of(error) or "request"] = error
        except StokeError as error:
            found["backend"] = at_backend(error)
        if found or spec is None:
            return Seen(found, spec, isolation, given=given)
        expected = predict(spec, request_keys(spec), backend, self._context.history)
        manifest = self._render(draft, spec, engine) if rendering else ("", None)
        return Seen({}, spec, isolation, expected, given, manifest)

    def _render(self, draft: Draft, spec: JobSpec, engine: Backend) -> tuple[str, str | None]:
        """(what it is, what would be submitted): what `stoke render` prints for the backend."""
        if not isinstance(engine, RendersJobs):
            asked = presets.as_json(self.as_asked(draft))[0]
            return "the request, as stoke submit reads it", asked
        name = draft.values["name"].strip() or "job"
        if self._rendered_as[0] != name:
            self._rendered_as = (name, new_job_id(name))
        title = f"stoke render {engine.name}"
        if missing := left_out(spec):
            title += f", without {', '.join(missing)}"
        try:
            return title, render_job(
                self._context.request(spec, name), engine, self._rendered_as[1]
            )
        except StokeError as error:
            return error.what, None


def at_backend(error: StokeError) -> RequestError:
    if isinstance(error, RequestError):
        return error
    return RequestError("backend", error.what, error.hint)

"""The fields of the New job screen: their texts, and the request that these make.

The fields are those of `stoke.request.fields` that have a widget, the name of the job, and those of
the project.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.project.choices import ProjectEnvironment
from stoke.request import fields
from stoke.request.fields import Field, Widget, get_value, put_value
from stoke.request.pep723 import read_script_metadata
from stoke.request.requirement import RequirementError, check_requirement
from stoke.request.sources import request_from_options
from stoke.request.spec import JobSpec, make_spec
from stoke.request.values import FileText, Flag, Value, Variables
from tui import format as fmt
from tui.new_job import project
from tui.new_job.draft import Draft

NAME = Field("name", "name", "Name of the job.", Value(), widget=Widget("job", folded=False))


STARTS = ("module", "exec")
"""The fields that say what to run in place of code."""


def has_start(values: Mapping[str, str]) -> bool:
    """Whether the fields say what to run, so that the editor may be empty."""
    return any(values.get(name, "").strip() for name in STARTS)


def widgets() -> list[tuple[Field, Widget]]:
    """Return every field of the form in its order."""
    request = ((field, field.widget) for field in fields.FIELDS)
    own = ((field, field.widget or Widget()) for field in (NAME, *project.FIELDS))
    return [*own, *((field, one) for field, one in request if one)]


def request_fields() -> list[Field]:
    """Return the fields of the form that are part of the request."""
    return [field for field in fields.FIELDS if field.widget]


def field_names() -> set[str]:
    return {field.name for field, _ in widgets()}


def default_text(field: Field, config: Config) -> str:
    """Return what a field of an empty form holds."""
    if field.name == "scope":
        return config.scope
    return field.value.to_text(field.value.default) if isinstance(field.value, Flag) else ""


def item_error(field: Field, item: str) -> str | None:
    """Return what is wrong with one item of a field that shows its items as chips."""
    try:
        if field.name == "dependencies":
            check_requirement(item, field.name)
        else:
            make_spec({"code": "pass", field.name: [item]})
    except RequirementError as error:
        return f"{error.text!r} {error.why}"
    except RequestError as error:
        return error.why
    return None


def parse_fields(names: Collection[str], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON of a request with what the form sets of these fields."""
    found: dict[str, Any] = {}
    for field in request_fields():
        text = values.get(field.name, "")
        if field.name in names and text.strip():
            value = field.value.from_text(field.name, text)
            if field.value.is_set(value):
                put_value(found, field.name, value)
    return found


def _parsed(draft: Draft) -> dict[str, Any]:
    """Return the JSON of the request, without its code. `RequestError` names the wrong field."""
    return {**draft.rest, **parse_fields(field_names(), draft.values)}


def build(draft: Draft) -> tuple[JobSpec, ProjectEnvironment]:
    """Return the request and what its project adds to it, or raise a `RequestError` that names the
    field."""
    given, environment = project.add_project({**_code(draft), **_parsed(draft)}, draft)
    return request_from_options(**given), environment


def as_asked(draft: Draft) -> JobSpec:
    """Return the request as the form and its project have it, without what the code's metadata or the
    configuration add. `RequestError` names the field."""
    given, _ = project.add_project({**_code(draft), **_parsed(draft)}, draft)
    return make_spec(given)


def _code(draft: Draft) -> dict[str, str]:
    """Return the code as the JSON of a request has it; blank text in the editor is no code."""
    return {"code": draft.code if draft.code.strip() else ""}


def rest_of(spec: JobSpec, config: Config) -> dict[str, Any]:
    """Return the JSON of what a request sets and the form has no field for.

    Settings that are the configured ones are left out. uv's recorded settings are kept also when there
    are none, so that an edited job does not take this machine's.
    """
    rest: dict[str, Any] = {}
    keys = {field.name.partition(".")[0] for field in fields.FIELDS if not field.widget} - {"code"}
    for key in sorted(keys):
        value = getattr(spec, key)
        default = type(spec).model_fields[key].default
        if value not in (default, getattr(config, key, default)):
            rest |= spec.model_dump(mode="json", include={key}, exclude_none=True)
    return rest


def describe_rest(rest: Mapping[str, Any]) -> str:
    """Return `rest` for people, without the project, which has fields; empty where it sets nothing."""
    others = {name: value for name, value in rest.items() if name != "project"}
    return "; ".join(f"{label} {', '.join(lines)}" for label, lines in fields.rows(others))


def code_packages(code: str) -> list[str]:
    """Return the packages that the code's metadata names; none where the metadata is wrong."""
    try:
        metadata = read_script_metadata(code)
    except RequirementError:
        return []
    return metadata.dependencies if metadata else []


def errors(code: str, values: Mapping[str, str]) -> dict[str, RequestError]:
    """Return what is wrong with each field on its own. Empty code is no error before submitting."""
    found: dict[str, RequestError] = {}
    for field in request_fields():
        if isinstance(field.value, Flag):
            continue  # It is right or wrong together with others only.
        try:
            start = {} if field.name in STARTS else {"code": "pass"}
            alone = parse_fields([field.name], values)
            if start or alone:
                make_spec({**start, **alone})
        except RequestError as error:
            found[field.name] = error
    if code.strip():
        try:
            request_from_options(code=code)
        except RequestError as error:
            found["code"] = error
    return found


def field_of(error: RequestError) -> str | None:
    """Return the field that an error belongs to; None for the whole request."""
    name = re.split(r"[.\[ ]", error.field)[0]
    if name in ("script", "project"):
        return {"script": "code", "project": project.FOLDER.name}[name]
    return name if name in field_names() | {"code", "backend"} else None


def filled(spec: JobSpec, name: str) -> dict[str, str]:
    """Return the texts that make `spec` again. Packages that the code names are not repeated."""
    texts = {NAME.name: name, **project.filled(spec.project)}
    for field in request_fields():
        value = get_value(spec, field.name)
        if field.name == "dependencies":
            named = code_packages(spec.code)
            value = [text for text in value if text not in named]
        texts[field.name] = "" if value is None else field.value.to_text(value)
    return texts


def summary(values: Mapping[str, str]) -> list[str]:
    """Return what the folded fields hold, in a few words each."""
    parts = []
    for field, widget in widgets():
        text = values.get(field.name, "").strip()
        if not widget.folded or not text or (field.name, text) == ("scope", "default"):
            continue
        if isinstance(field.value, Flag):
            if field.value.is_set(field.value.from_text(field.name, text)):
                parts.append(f"{field.label} {field.value.shown}")
        elif isinstance(field.value, Variables):
            count = sum(bool(line.strip()) for line in text.splitlines())
            parts.append(fmt.count(count, "secret" if field.name == "secrets" else "variable"))
        elif isinstance(field.value, FileText) or field.name == "args":
            parts.append(field.label)
        else:
            parts.append(f"{field.label} {text}")
    return parts

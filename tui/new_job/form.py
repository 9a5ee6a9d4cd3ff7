"""New job's fields: text as typed, and what it means for a request."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.request.pep723 import read_script_metadata
from stoke.request.requirements import RequirementError, check_requirement
from stoke.request.sources import request_from_options, split_dependencies
from stoke.request.spec import IndexSettings, JobSpec, make_spec
from tui.new_job.draft import Draft

TRUST = "Jobs that share a scope can change each other's packages."


@dataclass(frozen=True)
class Field:
    """One field of the form. `hint` stands in it while it is empty, `note` below it always. `lines`
    above 1 makes it a box, `chips` a list of packages; `folded` ones start out of sight."""

    name: str
    label: str
    hint: str = ""
    note: str = ""
    lines: int = 1
    chips: bool = False
    folded: bool = False


FIELDS = (
    Field("name", "name", "job"),
    Field("dependencies", "packages", "numpy, pandas>=2,<3", chips=True),
    Field("requirements", "file", "or requirements.txt, as text", lines=4),
    Field("system", "system", "gcc ffmpeg", chips=True),
    Field("constraints", "constraints", "urllib3<2, a line each", lines=3, folded=True),
    Field("scope", "cache scope", note=TRUST, folded=True),
    Field("python", "python", "3.12 or >=3.11,<3.14", folded=True),
    Field("image", "image", folded=True),
    Field("args", "arguments", folded=True),
    Field("env", "environment", "NAME=value, a line each", lines=3, folded=True),
    Field(
        "secrets",
        "secrets",
        "NAME=env:OTHER or file:/path",
        lines=3,
        folded=True,
    ),
    Field("timeout", "timeout", "90s, 5m, 1h30m", folded=True),
    Field("cpu", "cpu", "0.5", folded=True),
    Field("memory", "memory", "512m, 2g", folded=True),
    Field("shm_size", "shm size", "2g", folded=True),
)
NAMES = frozenset(field.name for field in FIELDS)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _arguments(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise RequestError("args", f"cannot be split into words: {error}") from None


def _variables(name: str) -> Callable[[str], dict[str, str]]:
    def parse(text: str) -> dict[str, str]:
        out = {}
        for number, line in enumerate(text.splitlines(), 1):
            variable, equals, value = line.partition("=")
            if not line.strip():
                continue
            if not equals:
                raise RequestError(name, f"line {number} has no =; write NAME=value")
            out[variable.strip()] = value
        return out

    return parse


_PARSERS: dict[str, Callable[[str], Any]] = {
    "dependencies": split_dependencies,
    "requirements": str,
    "constraints": str,
    "system": _words,
    "args": _arguments,
    "env": _variables("env"),
    "secrets": _variables("secrets"),
}


def parse_pieces(name: str) -> Callable[[str], list[str]]:
    """What cuts the text of a field with chips."""
    return _PARSERS[name]


def wrong_with(name: str, piece: str) -> str | None:
    """What is wrong with one chip of that field."""
    try:
        if name == "dependencies":
            check_requirement(piece, name)
        else:
            make_spec({"code": "pass", name: [piece]})
    except RequirementError as error:
        return f"{error.text!r} {error.why}"
    except RequestError as error:
        return error.why
    return None


def _parsed(values: Mapping[str, str]) -> dict[str, Any]:
    """The request's fields; blank ones are left out."""
    out: dict[str, Any] = {}
    for name in NAMES - {"name"}:
        text = values.get(name, "")
        if text.strip():
            out[name] = _PARSERS.get(name, str.strip)(text)
    return out


def build(draft: Draft, code: str) -> JobSpec:
    """The request with this code, or a `RequestError` that names the field."""
    fields = {**draft.rest, **_parsed(draft.values)}
    return request_from_options(code=code, use_cache=draft.use_cache, locked=draft.locked, **fields)


def as_asked(draft: Draft, code: str) -> JobSpec:
    """The request as it stands in the form and no more: neither what the code brings along nor what the
    configuration adds. `RequestError` names the field."""
    fields = {**draft.rest, **_parsed(draft.values)}
    if draft.locked:
        fields["locked"] = True
    return make_spec({"code": code, **fields, **({} if draft.use_cache else {"use_cache": False})})


def rest_of(spec: JobSpec, config: Config) -> dict[str, Any]:
    """What a request says that the form has no field for, as JSON, where the configuration does not
    say it already."""
    rest: dict[str, Any] = {}
    if spec.index not in (IndexSettings(), config.index):
        rest["index"] = spec.index.model_dump(mode="json", exclude_defaults=True)
    if spec.nix is not None and spec.nix != config.nix:
        rest["nix"] = spec.nix.model_dump(mode="json", exclude_none=True)
    return rest


def given_by(code: str) -> list[str]:
    """The packages that the code itself names; none where it says so in a wrong way."""
    try:
        metadata = read_script_metadata(code)
    except RequirementError:
        return []
    return metadata.dependencies if metadata else []


def errors(code: str, values: Mapping[str, str]) -> dict[str, RequestError]:
    """What is wrong, by field, each looked at alone. An empty code is not wrong before submitting."""
    found: dict[str, RequestError] = {}
    for name in NAMES - {"name"}:
        try:
            fields = _parsed({name: values.get(name, "")})
            make_spec({"code": "pass", **fields})
        except RequestError as error:
            found[name] = error
    if code.strip():
        try:
            request_from_options(code=code)
        except RequestError as error:
            found["code"] = error
    return found


def field_of(error: RequestError) -> str | None:
    """Which field an error belongs to; None for the whole request."""
    name = re.split(r"[.\[ ]", error.field)[0]
    if name == "script":
        return "code"
    return name if name in NAMES | {"code", "backend"} else None


def filled(spec: JobSpec, name: str) -> dict[str, str]:
    """The texts that ask for `spec` again. What the code brings along is not repeated."""
    given = given_by(spec.code)
    return {
        "name": name,
        "dependencies": "\n".join(text for text in spec.dependencies if text not in given),
        "requirements": spec.requirements,
        "constraints": spec.constraints,
        "system": " ".join(spec.system),
        "scope": spec.scope,
        "python": spec.python or "",
        "image": spec.image or "",
        "args": shlex.join(spec.args),
        "env": "\n".join(f"{name}={value}" for name, value in spec.env.items()),
        "secrets": "\n".join(f"{name}={value}" for name, value in spec.secrets.items()),
        "timeout": "" if spec.timeout is None else f"{spec.timeout:g}",
        "cpu": "" if spec.cpu is None else f"{spec.cpu:g}",
        "memory": "" if spec.memory is None else str(spec.memory),
        "shm_size": "" if spec.shm_size is None else str(spec.shm_size),
    }

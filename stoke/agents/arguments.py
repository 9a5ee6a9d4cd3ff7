"""The arguments of the tools, and their JSON schemas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stoke.errors import RequestError
from stoke.request.schema import request_schema
from stoke.request.spec import explain

DEFAULT_BYTES = 16_000
MOST_BYTES = 100_000
MOST_WAIT = 600.0
REQUEST_FIELDS = (
    "code", "module", "exec", "args", "dependencies", "requirements", "system", "python", "env",
    "secrets", "mounts", "results", "workspace", "image", "timeout", "cpu", "memory", "gpu",
    "use_cache", "scope",
)  # fmt: skip
"""The fields of a request that are arguments of their own; `fields` takes the others."""

_JOB = Field(description="A job's id, or a beginning of it that no other job has.")
_LIMIT = Field(
    DEFAULT_BYTES,
    ge=1_000,
    le=MOST_BYTES,
    description="Most bytes of output or text in the answer.",
)


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Submission(Arguments):
    """What `submit` takes. Fields of a request are checked when the request is made."""

    model_config = ConfigDict(extra="allow")

    file: str | None = Field(
        None, description="Python file to run, in place of code; relative to the server's folder."
    )
    backend: str | None = Field(None, description="local, docker or argo; default: the configured.")
    name: str | None = Field(None, description="Name of the job.")
    send_project: bool = Field(
        True,
        description="Send the files and packages of the project around the code, as stoke run.",
    )
    fields: dict[str, Any] = Field(
        {}, description="Further fields of a request; the command stoke schema lists them."
    )

    def request_fields(self) -> dict[str, Any]:
        """Return the fields of the request; null means that one was not given."""
        own = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        for name in own:
            if name not in REQUEST_FIELDS:
                raise RequestError(
                    name, "is not an argument", "pass other fields of a request in fields"
                )
        twice = next((name for name in self.fields if name in REQUEST_FIELDS), None)
        if twice is not None:
            raise RequestError(
                f"fields.{twice}", "has an argument of its own", f"pass it as {twice}"
            )
        return {**own, **self.fields}


class Run(Submission):
    wait: float = Field(
        60,
        ge=0,
        le=MOST_WAIT,
        description="Most seconds to wait for the end; the job runs on then.",
    )
    max_bytes: int = _LIMIT


class Status(Arguments):
    job: str | None = Field(
        None, description="A job's id, or a beginning of it. Without it: list the newest jobs."
    )
    wait: float = Field(
        0, ge=0, le=MOST_WAIT, description="Most seconds to wait until the job is over."
    )
    limit: int = Field(10, ge=1, le=50, description="Most jobs in a list.")


class Logs(Arguments):
    job: str = _JOB
    cursor: str | None = Field(
        None,
        description="Where to begin: next_cursor of an earlier answer. Default: the beginning.",
    )
    tail: int | None = Field(
        None, ge=1, description="Begin this many lines before the end; not with cursor."
    )
    stream: Literal["stdout", "stderr"] | None = Field(
        None, description="Only lines of this stream."
    )
    grep: str | None = Field(
        None,
        description="Only lines that match this regular expression; in lower case it matches any case.",
    )
    max_bytes: int = _LIMIT


class Results(Arguments):
    job: str = _JOB
    file: str | None = Field(
        None, description="Path of a text file to read. Without it: list the files."
    )
    offset: int = Field(
        0, ge=0, description="next_offset of an earlier answer: a file in a list, a byte in a text."
    )
    max_bytes: int = _LIMIT


class Caches(Arguments):
    backend: str | None = Field(None, description="Only this backend; default: all that answer.")
    dependencies: list[str] = Field(
        [],
        description="Predict whether a job with these packages finds its environment in the cache.",
    )
    python: str | None = Field(None, description="Python version of that job.")
    scope: str | None = Field(None, description="Only this cache scope; default: all.")


class Stop(Arguments):
    job: str = _JOB
    now: bool = Field(False, description="End it at once, without time to clean up.")


def read_arguments(model: type[Arguments], given: dict[str, Any]) -> Arguments:
    """Return the checked arguments. Raises `RequestError` for the first that is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        name, why = explain(error)
        if why == "is not a field of a request":
            why = "is not an argument"
        names = ", ".join(input_schema(model)["properties"])
        raise RequestError(name, why, f"the arguments are: {names}") from None


def input_schema(model: type[Arguments]) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments, without what a client does not need."""
    schema = model.model_json_schema()
    properties = {name: _short(one) for name, one in schema["properties"].items()}
    if issubclass(model, Submission):
        of_request = request_schema()["properties"]
        own = {name: _short(of_request[name]) for name in REQUEST_FIELDS}
        for one in own.values():
            one.pop("default", None)  # The configuration may have another.
        properties = own | properties
    return {
        "type": "object",
        "properties": properties,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _short(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a property's schema without its title, and without null for one that may be left out."""
    short = {key: value for key, value in schema.items() if key != "title"}
    if short.get("default", 0) in (None, "", [], {}):
        del short["default"]
    kinds = [one for one in short.pop("anyOf", []) if one != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **short}
    return {"anyOf": kinds, **short} if kinds else short

"""Turn the JSON of a client into a request, without what would reach into the server.

A client chooses no path of the server's file system, and no variable or secret of its environment that
the configuration does not list (`api.secrets`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stoke.api.errors import ProblemError
from stoke.api.tokens import Token
from stoke.config.defaults import with_defaults
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.jobs.request import Request
from stoke.request.pep723 import read_script_metadata
from stoke.request.requirement import RequirementError
from stoke.request.sources import (
    EARLIER_FIELDS,
    from_earlier_service,
    read_fields,
    request_from_fields,
)
from stoke.request.spec import JobSpec
from stoke.request.variables import VARIABLE
from stoke.text.sanitize import clean

EARLIER_CODE = "print('Processing task in Kind...')"
"""What the earlier service ran for a request without code."""
BODY = "body"
_OF_SERVER = {
    "project": "the server takes no project from its own folders; send the code",
    "shell": "a shell needs a terminal",
    "uv": "settings of uv are those of the server",
}
# Settings of uv in a script's metadata that name no place and no login.
_HARMLESS = frozenset(
    {
        "exclude-newer", "fork-strategy", "prerelease", "resolution", "no-binary",
        "no-binary-package", "no-build", "no-build-package", "no-build-isolation",
        "required-version",
    }
)  # fmt: skip
_TEXTS = ("dependencies", "requirements", "constraints", "index")


def is_earlier(fields: Mapping[str, Any]) -> bool:
    """Return whether a request is one of the earlier service: all of its fields had defaults, and an
    empty one ran the default code."""
    if "pythonCode" in fields or not fields:
        return True
    # Both kinds have `dependencies`: a text there, a list here.
    return all(
        name in EARLIER_FIELDS and not (name == "dependencies" and isinstance(value, list))
        for name, value in fields.items()
    )


def read_request(data: bytes) -> tuple[JobSpec, bool]:
    """Return the spec for a body, and whether it was one of the earlier service.

    Raises `ProblemError` 400 for a body that is no JSON object, and `RequestError` for a wrong field.
    """
    fields = read_body_fields(data)
    if is_earlier(fields):
        fields = from_earlier_service({"pythonCode": EARLIER_CODE, **fields})
        return request_from_fields(fields), True
    return request_from_fields(fields), False


def read_body_fields(data: bytes) -> dict[str, Any]:
    """Return the fields of a body; an empty one has none."""
    try:
        return read_fields(data, BODY) if data.strip() else {}
    except RequestError as error:
        raise ProblemError(400, error.why, field=BODY) from None


def make_request(
    spec: JobSpec, config: Config, token: Token, name: str | None, upgrade: bool = False
) -> Request:
    """Return the request that a client may make. Raises `RequestError`, and `ProblemError` 403."""
    listed = config.api.secrets
    for error in refusals(spec, listed):
        raise error
    if "scope" not in spec.model_fields_set and not token.sees(config.scope):
        spec = spec.model_copy(update={"scope": token.scopes[0]})
        spec.model_fields_set.add("scope")
    filled = with_defaults(spec, config)
    parsed = spec.parsed_requirements()
    if spec.index.credentials is None and (parsed.index or parsed.extra_indexes):
        # The configured login must not reach an index that a client's text names.
        index = filled.index.model_copy(update={"credentials": None})
        filled = filled.model_copy(update={"index": index})
    check_scope_right(filled, token)
    return Request.configured(
        filled,
        config,
        name=clean(name or "").strip()[:200] or "job",
        upgrade=upgrade,
    )


def check_scope_right(spec: JobSpec, token: Token) -> None:
    """Raise `ProblemError` 403 for a request outside of the token's scopes."""
    if not token.sees(spec.scope):
        raise ProblemError(
            403, f"the token {token.name} has no right to the scope {spec.scope}", field="scope"
        )
    if token.scopes and spec.workspace is not None:
        # Workspaces belong to no scope.
        raise ProblemError(403, f"the token {token.name} is limited to scopes", field="workspace")


def refusals(spec: JobSpec, listed: Collection[str]) -> Iterator[RequestError]:
    """Yield an error for each field that no client may set. `listed` are the references that it may
    name."""
    for name, why in _OF_SERVER.items():
        if getattr(spec, name) not in (None, False):
            yield RequestError(name, f"cannot be set over HTTP: {why}")
    for number, mount in enumerate(spec.mounts):
        if not mount.startswith("claim:"):
            yield RequestError(
                f"mounts[{number}]", "names a path of the server; only claims may be"
            )
    for name, reference in spec.secrets.items():
        if reference not in listed:
            yield _unlisted(f"secrets.{name}")
    if spec.index.credentials is not None and spec.index.credentials not in listed:
        yield _unlisted("index.credentials")
    if spec.index.ca_bundle is not None:
        yield RequestError("index.ca_bundle", "names a file of the server")
    for field in _TEXTS:
        for variable in VARIABLE.findall(str(getattr(spec, field))):
            if f"env:{variable}" not in listed:
                yield _unlisted(field)
    yield from _script_refusals(spec.code)


def _script_refusals(code: str) -> Iterator[RequestError]:
    try:
        metadata = read_script_metadata(code)
    except RequirementError as error:
        yield RequestError(error.field, f"{error.text!r} {error.why}")
        return
    for name in metadata.uv if metadata is not None else ():
        if name not in _HARMLESS:
            yield RequestError(
                "code", f"its [tool.uv] sets {name[:80]}, which cannot be set over HTTP"
            )


def _unlisted(field: str) -> RequestError:
    return RequestError(
        field,
        "names a secret or variable of the server that is not listed for clients",
        'have the server\'s owner list it, for example: api.secrets = ["env:HF_TOKEN"]',
    )

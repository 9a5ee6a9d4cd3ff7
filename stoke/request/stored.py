"""Requests as the history stores them: JSON without secrets, perhaps by another version of stoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stoke.errors import RequestError
from stoke.files.untrusted import parse_json

if TYPE_CHECKING:
    from stoke.request.spec import JobSpec


def read_stored_fields(text: str | None) -> dict[str, Any]:
    """Return the JSON of a stored request, unchecked except for its code and its env.

    `RequestError` where there is none (a job that was found on its engine has none) and where it is
    damaged.
    """
    if text is None:
        raise RequestError("request", "was not recorded on this machine")
    try:
        fields = parse_json(text)
    except ValueError:
        fields = None
    if (
        not isinstance(fields, dict)
        or not isinstance(fields.get("env", {}), dict)
        or not isinstance(fields.get("code", ""), str)
    ):
        raise RequestError("request", "cannot be read: its record in the history is damaged")
    return fields


def read_stored_spec(text: str | None) -> JobSpec:
    """Return a stored request, checked. `RequestError` as above, and where a field is wrong."""
    from stoke.request.spec import make_spec

    return make_spec(read_stored_fields(text))

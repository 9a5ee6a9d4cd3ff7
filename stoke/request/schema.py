"""The JSON schema of a request, for editors and for programs that make requests."""

from __future__ import annotations

from typing import Any

from stoke.request import fields, spec


def request_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of what `stoke submit` reads.

    It states types and ranges. Rules between fields, and what a requirement or an address may be, are
    checked on submitting alone.
    """
    schema = spec.JobSpec.model_json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "stoke request",
        "description": "A request that `stoke submit` runs.",
        "anyOf": [{"required": [start]} for start in ("code", "module", "exec", "shell")],
    }
    for field in fields.FIELDS:
        properties = _properties_of(schema, field.name)
        key = field.name.rpartition(".")[2]
        properties[key] = {**properties[key], "title": field.label, "description": field.help}
    return schema


def _properties_of(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the properties among which the field is: the request's, or those of an object in it."""
    properties: dict[str, Any] = schema["properties"]
    for key in name.split(".")[:-1]:
        reference: str = properties[key]["$ref"]
        properties = schema["$defs"][reference.rpartition("/")[2]]["properties"]
    return properties

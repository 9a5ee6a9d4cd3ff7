"""The OpenAPI document of the server, from the operations that it serves."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import Any

from stoke.api.operation import Answer, Operation, Parameter
from stoke.api.schemas import EARLIER, JOB_SCHEMA, PROBLEM
from stoke.request.schema import request_schema

# Every operation may answer with these.
_ALWAYS = {
    "400": "The request cannot be read, or its address holds a token.",
    "403": "A foreign Origin, or not a right of the token.",
    "421": "The Host is not one of the server's names.",
    "422": "A parameter, header or field is wrong; `field` names it.",
    "429": "Too many requests; Retry-After says when the next one may come.",
    "503": "The history or an engine cannot be used now, or a limit is reached.",
}
_WITH_TOKEN = {"401": "The token is missing or unknown."}
_WITH_JOB = {"404": "There is no such job.", "409": "The job is in another state."}
_WITH_BODY = {
    "408": "The body came too slowly.",
    "409": "The job or cache is in use, or a request with the same key is under way.",
    "413": "The body is too long.",
    "415": "The body is not JSON.",
}


def openapi(operations: tuple[Operation, ...]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    request, more = _request_schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stoke",
            "version": version("stoke-tui"),
            "description": "Run Python on the server's machine, in containers or on a cluster. Jobs "
            "share the history of the commands and screens of the user who runs the server.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `stoke api token add`. Each has a right, read, submit "
                    "or admin, which includes those before it, and may be limited to cache scopes.",
                }
            },
            "schemas": {
                "Job": JOB_SCHEMA,
                "EarlierRequest": EARLIER,
                "Request": request,
                "Problem": PROBLEM,
                **more,
            },
        },
    }


def _operation(one: Operation) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", one.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in in_path
    ]
    parameters += [_parameter(parameter, "query") for parameter in one.query]
    parameters += [_parameter(parameter, "header") for parameter in one.headers]
    found: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.about.split(": ")[0].split(". ")[0].rstrip("."),
        "description": one.about + (f" Needs the right {one.right}." if one.right else ""),
        "security": [{"token": []}] if one.right else [],
        "responses": _responses(one, bool(in_path)),
    }
    if parameters:
        found["parameters"] = parameters
    if one.body is not None:
        examples = {name: {"value": value} for name, value in one.body.examples.items()}
        found["requestBody"] = {
            "required": one.body.required,
            "content": {"application/json": {"schema": one.body.schema, "examples": examples}},
        }
    return found


def _parameter(one: Parameter, place: str) -> dict[str, Any]:
    return {"name": one.name, "in": place, "description": one.help, "schema": dict(one.schema)}


def _responses(one: Operation, has_job: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for answer in one.answers:
        known = found.setdefault(str(answer.status), {"description": answer.about})
        if answer.media_type:
            known.setdefault("content", {})[answer.media_type] = _content(answer)
    problems = dict(_ALWAYS)
    problems |= _WITH_TOKEN if one.right else {}
    problems |= _WITH_BODY if one.body else {}
    problems |= _WITH_JOB if has_job else {}
    for status, about in sorted(problems.items()):
        found[status] = {
            "description": about,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
    return found


def _content(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": dict(answer.schema or {})}
    if answer.example is not None:
        content["example"] = answer.example
    return content


def _request_schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of stoke's own request, and those that it refers to."""
    schema = json.loads(json.dumps(request_schema()).replace("#/$defs/", "#/components/schemas/"))
    schema.pop("$schema", None)
    return schema, schema.pop("$defs", {})

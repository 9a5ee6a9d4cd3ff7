"""All operations of the server."""

from __future__ import annotations

from functools import cache
from typing import Any

from starlette.responses import Response

from stoke.api import caches, logs, results, service, tasks
from stoke.api.json_answer import JsonAnswer
from stoke.api.openapi import openapi
from stoke.api.operation import Answer, Call, Operation


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document of the server."""
    return openapi(OPERATIONS)


async def _document(_: Call) -> Response:
    return JsonAnswer(document())


OPERATIONS = (
    *service.OPERATIONS,
    *tasks.OPERATIONS,
    *logs.OPERATIONS,
    *results.OPERATIONS,
    *caches.OPERATIONS,
    Operation(
        "GET",
        "/api/v1/openapi.json",
        "openapi",
        "This document.",
        None,
        _document,
        (Answer(200, "OpenAPI 3.1.", schema={"type": "object"}),),
    ),
)

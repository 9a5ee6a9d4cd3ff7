"""The server itself over HTTP: its health and its figures."""

from __future__ import annotations

import time

from starlette.responses import PlainTextResponse, Response

from stoke.api.errors import ProblemError
from stoke.api.json_answer import JsonAnswer
from stoke.api.operation import Answer, Call, Operation
from stoke.cache.metrics import read_metrics
from stoke.cache.prometheus import exposition
from stoke.errors import EngineError

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
FIGURES_SECONDS = 5.0
"""For how long the figures of the history count: computing them reads every job."""


async def health(call: Call) -> Response:
    if call.api.stopping.is_set():
        raise ProblemError(503, "the server is stopping")
    try:
        await call.api.read(lambda: call.api.reading.list(limit=1))
    except EngineError as error:
        # The text names paths of the server, and this operation needs no token.
        raise ProblemError(503, "the history cannot be read") from error
    return JsonAnswer({"status": "ok"})


async def metrics(call: Call) -> Response:
    api = call.api
    if call.caller.scopes:
        raise ProblemError(403, f"the token {call.caller.name} is limited to scopes")
    if time.monotonic() - api.figures[0] > FIGURES_SECONDS:
        text = await api.read(lambda: exposition(read_metrics(api.reading)))
        api.figures = (time.monotonic(), text)
    own = api.counters.exposition(api.streams.open, api.submissions.queued)
    return PlainTextResponse(api.figures[1] + own, headers={"Content-Type": PROMETHEUS})


OPERATIONS = (
    Operation(
        "GET",
        "/healthz",
        "health",
        "Tell whether the server can read the history.",
        None,
        health,
        (Answer(200, "It can.", schema={"type": "object"}, example={"status": "ok"}),),
    ),
    Operation(
        "GET",
        "/metrics",
        "metrics",
        "The figures of the caches and of this server, for Prometheus. Those that end in _total only "
        "rise; the figures of the caches come from the history.",
        "read",
        metrics,
        (Answer(200, "Prometheus' text format.", "text/plain", {"type": "string"}),),
    ),
)

"""The log of a job over HTTP: whole as bytes, or followed as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.responses import Response

from stoke.api.errors import ProblemError
from stoke.api.log_cursor import NAMES, LogCursor
from stoke.api.operation import Answer, Call, Operation, Parameter
from stoke.api.sse import KEEP_ALIVE, MEDIA_TYPE, json_event, log_event, read_position
from stoke.api.streaming import BYTES, stream
from stoke.files.paths import job_dir
from stoke.jobs.document import job_document
from stoke.logs.spool import NOTE

if TYPE_CHECKING:
    from stoke.api.server_state import Api
    from stoke.errors import StokeError
    from stoke.history.job import Job

KEEP_ALIVE_SECONDS = 15.0
"""Between two comments of a stream that has nothing to send, which keep proxies from closing it."""


async def logs(call: Call) -> Response:
    accepted = call.request.headers.get("accept", "")
    follow = call.query.get("follow", MEDIA_TYPE in accepted)
    position, at_end = read_position(call.request.headers.get("last-event-id"))
    job = await call.api.job(call.job_id, call.caller)
    if follow:
        if "stream" in call.query:
            raise ProblemError(422, "is for a log as bytes, not for events", field="query.stream")
        if at_end:
            # The one answer after which a browser does not reconnect.
            return Response(status_code=204)
        return await _followed(call, job, position)
    await call.api.fresh([job])
    wanted = call.query.get("stream")
    cursor = LogCursor(job_dir(job.id))
    return stream(call.api, _bytes(call.api, cursor, wanted), {"Content-Type": BYTES})


async def _bytes(api: Api, cursor: LogCursor, wanted: str | None) -> AsyncIterator[bytes]:
    """Yield the bytes of the log as it is now, without the notes of stoke."""
    try:
        end = await api.read(cursor.size)
        while cursor.position < end and (piece := await api.read(cursor.next)):
            if piece.stream != NOTE and wanted in (None, NAMES[piece.stream]):
                # The log may have grown in the meantime; a later request gets the rest.
                data = piece.data[: len(piece.data) - max(0, piece.end - end)]
                api.counters.log_bytes(len(data))
                yield data
    finally:
        cursor.close()


async def _followed(call: Call, job: Job, position: int) -> Response:
    api = call.api
    cursor = LogCursor(job_dir(job.id), position)
    headers = {"Content-Type": MEDIA_TYPE, "X-Accel-Buffering": "no"}
    return stream(api, _events(api, job, cursor), headers)


async def _events(api: Api, job: Job, cursor: LogCursor) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def listener() -> None:
        loop.call_soon_threadsafe(news.set)

    watch = api.watches.listen(job.id, listener)
    told: str | None = None
    try:
        yield b": log of " + job.id.encode("ascii", "replace") + b"\n\n"
        sent_at = loop.time()
        while True:
            news.clear()
            is_over = watch.is_over  # Before the log is read: what comes later is read again.
            while (piece := await api.read(cursor.next)) is not None:
                api.counters.log_bytes(len(piece.data))
                yield log_event(piece)
                sent_at = loop.time()
            if is_over:
                break
            if api.stopping.is_set():
                return  # The client resumes at another server, or when this one is back.
            trouble = watch.trouble
            if trouble is not None and trouble.what != told:
                told = trouble.what
                yield _reason_event("trouble", trouble)
                sent_at = loop.time()
            try:
                # News need not be news of the log, so the time counts from what was sent last.
                async with asyncio.timeout_at(sent_at + KEEP_ALIVE_SECONDS):
                    await news.wait()
            except TimeoutError:
                yield KEEP_ALIVE
                sent_at = loop.time()
        if watch.failure is not None:
            yield _reason_event("error", watch.failure)
            return
        ended = await api.read(lambda: api.reading.get(job.id))
        if ended is not None and ended.state.finished:
            document = await api.read(lambda: job_document(ended, api.reading))
            yield json_event("end", document, f"{cursor.position}.end")
    finally:
        api.watches.leave(watch, listener)
        cursor.close()


def _reason_event(name: str, error: StokeError) -> bytes:
    return json_event(name, {"detail": error.what, "hint": error.hint})


FOLLOW = Parameter("follow", "Follow it as server-sent events.", {"type": "boolean"})
STREAM = Parameter(
    "stream",
    "Only this stream, for a log as bytes.",
    {"type": "string", "enum": ["stdout", "stderr"]},
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "The id of the last event that was received: the log goes on after it.",
    {"type": "string", "pattern": r"^(\d{1,18}(\.end)?)?$"},
)
_EVENT = {
    "type": "object",
    "description": "One of the events.",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "For Last-Event-ID."},
        "event": {
            "type": "string",
            "enum": ["stdout", "stderr", "note", "trouble", "error", "end"],
        },
        "data": {"type": "string"},
    },
}

OPERATIONS = (
    Operation(
        "GET",
        "/api/v1/tasks/{id}/logs",
        "readLog",
        "Read a job's log: its exact bytes so far, or with follow=true (or Accept: text/event-stream) "
        "as events until the job is over. The events stdout, stderr and note have bytes in base64; "
        "the id of one is where the log goes on, for Last-Event-ID. The event end has the job, "
        "trouble says why there is no more of the log for now, and error why it cannot be followed.",
        "read",
        logs,
        (
            Answer(200, "The bytes of the log.", BYTES, {"type": "string", "format": "binary"}),
            Answer(
                200,
                "The events.",
                MEDIA_TYPE,
                _EVENT,
                {"id": "12", "event": "stdout", "data": "aGVsbG8gd29ybGQK"},
            ),
            Answer(204, "Last-Event-ID is that of the end: there is nothing more.", ""),
        ),
        query=(FOLLOW, STREAM),
        headers=(LAST_EVENT_ID,),
    ),
)

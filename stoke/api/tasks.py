"""Jobs over HTTP: submit, list, show, stop, run again."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from starlette.responses import Response

from stoke.api.client_request import (
    check_scope_right,
    make_request,
    read_body_fields,
    read_request,
    refusals,
)
from stoke.api.errors import ProblemError
from stoke.api.json_answer import JsonAnswer
from stoke.api.limits import read_body
from stoke.api.operation import Answer, Body, Call, Operation, Parameter
from stoke.api.schemas import EARLIER_EXAMPLES, JOB, JOB_EXAMPLE, JOBS, SUBMISSION
from stoke.errors import RequestError
from stoke.history.job import Job, JobState
from stoke.history.listing import FILTER_HINT, Listing, ListingQuery
from stoke.jobs.control import stop
from stoke.jobs.document import job_document
from stoke.jobs.request import Request
from stoke.jobs.rerun import rerun_request, spec_of

JSON = re.compile(r"application/(?:[\w.-]+\+)?json", re.IGNORECASE)
_KEY = re.compile(r"[!-~]{1,255}")
MOST_LISTED = 500
BACKEND = Parameter(
    "backend",
    "Where the job runs; by default as configured.",
    {"type": "string", "minLength": 1, "maxLength": 64},
)
NAME = Parameter("name", "Name of the job.", {"type": "string", "minLength": 1, "maxLength": 200})
UPGRADE = Parameter("upgrade", "Resolve the packages anew.", {"type": "boolean"})
KEY = Parameter(
    "Idempotency-Key",
    "A text of the client's choice. A second request with the same key and content gets the job of the "
    "first, also after a restart of the server, for seven days.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
)


async def read_json_body(call: Call) -> bytes:
    """Return the body of a request, which must be JSON if it says what it is."""
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip()
    if kind and not JSON.fullmatch(kind):
        raise ProblemError(415, "The body must be application/json.")
    return await read_body(call.request, call.api.config.api.max_body)


def chosen_backend(call: Call, default: str) -> str:
    backend = str(call.query.get("backend", default))
    allowed = call.api.config.api.backends
    if allowed is not None and backend not in allowed:
        raise ProblemError(
            403, f"clients may not use the {backend} backend (api.backends)", field="query.backend"
        )
    return backend


class Submission(NamedTuple):
    """A body that was read: how to make its request, and the status of the answer."""

    make: Callable[[], Request]
    status: int = 202


async def accept(
    call: Call, read: Callable[[], Submission], backend: str, content: bytes
) -> Response:
    """Answer with the job that the submission requests, or with that of its idempotency key.

    `read` is called on a thread.
    """
    api = call.api
    key = call.request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise ProblemError(
            422, "must have 1 to 255 visible characters of ASCII", field="Idempotency-Key"
        )
    digest = hashlib.sha256()
    for part in (call.request.scope["raw_path"], call.request.scope["query_string"], content):
        digest.update(b"%d:" % len(part) + part)

    def work() -> tuple[dict[str, Any], bool, int]:
        make, status = read()
        job, known = api.submissions.accept(make, backend, call.caller, key, digest.hexdigest())
        return job_document(job, api.reading), known, status

    try:
        document, known, status = await api.write(work)
    except RequestError as error:
        api.counters.submission("refused")
        if error.field == "backend":  # It is not part of a body.
            raise ProblemError(422, error.why, hint=error.hint, field="query.backend") from error
        raise
    call.audit |= {"job": document["id"], "key": key, "repeated": known or None}
    headers = {"Location": f"/api/v1/tasks/{document['id']}"}
    if known:
        headers["Idempotency-Replayed"] = "true"
    return JsonAnswer(document, status, headers=headers)


async def submit(call: Call) -> Response:
    data = await read_json_body(call)
    config = call.api.config
    name, upgrade = call.query.get("name"), bool(call.query.get("upgrade"))

    def read() -> Submission:
        spec, earlier = read_request(data)
        # The earlier service answered 200, and programs of its time may compare.
        return Submission(
            lambda: make_request(spec, config, call.caller, name, upgrade), 200 if earlier else 202
        )

    return await accept(call, read, chosen_backend(call, config.backend), data)


async def show(call: Call) -> Response:
    job = await call.api.job(call.job_id, call.caller)
    (job,) = await call.api.fresh([job]) or [job]
    return JsonAnswer(await call.api.read(lambda: job_document(job, call.api.reading)))


async def list_tasks(call: Call) -> Response:
    api, token = call.api, call.caller
    limit, offset = int(call.query.get("limit", 50)), int(call.query.get("offset", 0))
    query = ListingQuery(
        words=str(call.query.get("filter", "")), scopes=token.scopes, state=call.query.get("state")
    )

    def found() -> tuple[list[Job], int]:
        listing = Listing(api.reading)
        listing.read(query, time.time())
        places = range(offset, min(offset + limit, len(listing)))
        return [job for place in places if (job := listing.job(place))], len(listing)

    jobs, total = await api.read(found)
    jobs = await api.fresh(jobs)
    documents = await api.read(lambda: [job_document(job, api.reading) for job in jobs])
    after = offset + limit
    return JsonAnswer(
        {
            "tasks": documents,
            "total": total,
            "offset": offset,
            "next": after if after < total else None,
        }
    )


async def stop_task(call: Call) -> Response:
    api = call.api
    job = await api.job(call.job_id, call.caller)
    grace = float(call.query.get("grace", api.config.stop_grace))
    call.audit["job"] = job.id

    def work() -> dict[str, Any]:
        now = api.history.get(job.id) or job
        stop(now, api.connection.backend_of(now), api.history, grace)
        return job_document(api.history.get(job.id) or job, api.history)

    document = await api.ask(work)
    if not JobState(document["state"]).finished or document["provisional"]:
        api.watches.follow_to_end(job.id)
    return JsonAnswer(document, 202)


async def rerun(call: Call) -> Response:
    api, token = call.api, call.caller
    earlier = await api.job(call.job_id, token)
    data = await read_json_body(call)
    if fields := read_body_fields(data):
        raise ProblemError(422, "is not a field of this request", field=next(iter(fields)))
    backend = chosen_backend(call, earlier.backend)
    upgrade = bool(call.query.get("upgrade"))

    def make() -> Request:
        spec = spec_of(earlier, api.history)
        check_scope_right(spec, token)
        if not token.may("admin"):
            # The settings of this machine are part of every recorded request.
            of_client = spec.model_copy(update={"uv": None, "index": type(spec.index)()})
            for error in refusals(of_client, api.config.api.secrets):
                raise ProblemError(
                    403, f"only a token with the right admin may run it again: {error.what}"
                )
        return rerun_request(earlier, spec, api.config, upgrade=upgrade)

    return await accept(call, lambda: Submission(make), backend, data)


def submitted_example() -> dict[str, Any]:
    return {**JOB_EXAMPLE, "state": "queued", "started_at": None, "finished_at": None}


_ACCEPTED = Answer(
    202, "Accepted: the job is in the history.", schema=JOB, example=submitted_example()
)

_PAGE = {"tasks": [JOB_EXAMPLE], "total": 1, "offset": 0, "next": None}

OPERATIONS = (
    Operation(
        "POST",
        "/api/v1/tasks/submit",
        "submitTask",
        "Submit a job. Takes stoke's own JSON (stoke schema prints its schema) and, unchanged, that of "
        "the earlier service; an empty body runs that service's default code.",
        "submit",
        submit,
        (
            _ACCEPTED,
            replace(_ACCEPTED, status=200, about="The same, for the JSON of the earlier service."),
        ),
        query=(BACKEND, NAME, UPGRADE),
        headers=(KEY,),
        body=Body(SUBMISSION, EARLIER_EXAMPLES),
    ),
    Operation(
        "GET",
        "/api/v1/tasks",
        "listTasks",
        "List the jobs of this user's history, newest first: also those that the commands and the "
        "screens submitted.",
        "read",
        list_tasks,
        (Answer(200, "A page of jobs.", schema=JOBS, example=_PAGE),),
        query=(
            Parameter(
                "filter",
                f"Words that jobs must have: {FILTER_HINT}",
                {"type": "string", "maxLength": 1000},
            ),
            Parameter(
                "state",
                "Only jobs in this state.",
                {"type": "string", "enum": [state.value for state in JobState]},
            ),
            Parameter(
                "limit",
                "Jobs of a page.",
                {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 50},
            ),
            Parameter(
                "offset",
                "Jobs to leave out before the page.",
                {"type": "integer", "minimum": 0, "maximum": 10**9, "default": 0},
            ),
        ),
    ),
    Operation(
        "GET",
        "/api/v1/tasks/{id}",
        "showTask",
        "Show a job.",
        "read",
        show,
        (Answer(200, "The job.", schema=JOB, example=JOB_EXAMPLE),),
    ),
    Operation(
        "DELETE",
        "/api/v1/tasks/{id}",
        "stopTask",
        "Stop a job: SIGTERM now, SIGKILL after the grace period. A finished job is left unchanged. "
        "The job stays in the history.",
        "submit",
        stop_task,
        (Answer(202, "The job; it may still be ending.", schema=JOB, example=JOB_EXAMPLE),),
        query=(
            Parameter(
                "grace",
                "Seconds between the signals; by default as configured.",
                {"type": "integer", "minimum": 0, "maximum": 3600},
            ),
        ),
    ),
    Operation(
        "POST",
        "/api/v1/tasks/{id}/rerun",
        "rerunTask",
        "Run a job's request again.",
        "submit",
        rerun,
        (_ACCEPTED,),
        query=(BACKEND, UPGRADE),
        headers=(KEY,),
        body=Body({"type": "object", "additionalProperties": False}, {"empty": {}}),
    ),
)

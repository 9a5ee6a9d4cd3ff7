"""The tools that `stoke mcp` offers: what each is for, its arguments, and what it does."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from stoke.agents import answers
from stoke.agents.arguments import (
    DEFAULT_BYTES,
    MOST_BYTES,
    Arguments,
    Caches,
    Logs,
    Results,
    Run,
    Status,
    Stop,
    Submission,
)
from stoke.agents.json_text import json_size
from stoke.agents.log_page import Cursor, Selection, last_page, parse_cursor, read_page
from stoke.agents.requests import make_request
from stoke.agents.result_page import list_page, text_page
from stoke.backend.registry import backend_names
from stoke.client.job_handle import JobHandle
from stoke.client.session import Session
from stoke.errors import EngineError, RequestError
from stoke.files.paths import job_dir
from stoke.history.job import Job
from stoke.jobs.refresh import refresh
from stoke.logs.fallback import LogLocation
from stoke.logs.retention import removed_within
from stoke.logs.search import Query
from stoke.logs.spool import STDERR, STDOUT, SpoolReader
from stoke.text.units import human_bytes

STOP_SECONDS = 15.0
"""Seconds beyond the grace period that `stop` waits for the engine."""
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")
_STREAMS = {"stdout": STDOUT, "stderr": STDERR}

Answer = dict[str, Any]
Wait = Callable[[JobHandle, float], Awaitable[bool]]
"""Waits until a job is over, for at most that many seconds; returns whether it is."""
Threaded = Callable[..., Awaitable[Any]]
"""Calls a function with its arguments on a thread."""


@dataclass(frozen=True)
class Caller:
    """How a tool waits without blocking the server."""

    wait: Wait
    on_thread: Threaded


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    arguments: type[Arguments]
    call: Callable[[Session, Caller, Any], Awaitable[Answer]]
    changes: bool = False
    """Whether it starts or ends jobs; a read-only server does not offer it then."""
    destroys: bool = False


async def _run(session: Session, caller: Caller, given: Run) -> Answer:
    job = await caller.on_thread(_submit_request, session, given, False)
    await caller.wait(job, given.wait)
    return cast(Answer, await caller.on_thread(_ended, session, job, given.max_bytes))


async def _submit(session: Session, caller: Caller, given: Submission) -> Answer:
    job = await caller.on_thread(_submit_request, session, given, True)
    answer: Answer = {
        "job": await caller.on_thread(_job_answer, session, job),
        "next": f'wait for its end: status with job "{job.id}" and wait',
    }
    return answer


def _submit_request(session: Session, given: Submission, waits: bool) -> JobHandle:
    request = make_request(
        session.config,
        given.request_fields(),
        file=given.file,
        name=given.name,
        folder=given.send_project,
    )
    return session.submit_request(request, given.backend, waits=waits)


def _job_answer(session: Session, job: JobHandle) -> Answer:
    return answers.job_answer(job.record, session.history)


def _ended(session: Session, job: JobHandle, limit: int) -> Answer:
    """Return a job that was waited for, with the end of its output."""
    record = job.record
    is_over = _is_over(record)
    reader = SpoolReader(LogLocation(job_dir(record.id)))
    try:
        start, page = last_page(reader, limit, is_over)
    finally:
        reader.close()
    answer = {
        "job": answers.job_answer(record, session.history),
        **answers.log_answer(record, start, page, is_over),
    }
    if start != Cursor():
        answer["left_out"] = f'the begin of the output: logs with job "{record.id}" and cursor "0"'
    if not is_over:
        answer["next"] = (
            f'the job is {record.state} and runs on; wait for its end: status with job "{record.id}" '
            f'and wait; its later output: logs with cursor "{page.next}"'
        )
    return answer


async def _status(session: Session, caller: Caller, given: Status) -> Answer:
    if given.job is None:
        return cast(Answer, await caller.on_thread(_newest, session, given.limit))
    job = await caller.on_thread(session.job, given.job)
    if given.wait:
        await caller.wait(job, given.wait)
    else:
        await caller.on_thread(lambda: job.state)
    return {"job": await caller.on_thread(_job_answer, session, job)}


def _newest(session: Session, limit: int) -> Answer:
    jobs = session.history.list(limit)
    unfinished = [job for job in jobs if not _is_over(job)]
    fresh = {job.id: job for job in refresh(unfinished, session.backends, session.history)}
    return {"jobs": [answers.list_answer(fresh.get(job.id, job)) for job in jobs]}


async def _logs(session: Session, caller: Caller, given: Logs) -> Answer:
    return cast(Answer, await caller.on_thread(_read_log, session, given))


def _read_log(session: Session, given: Logs) -> Answer:
    if given.tail is not None and given.cursor is not None:
        raise RequestError("tail", "cannot be combined with cursor", "pass one of them")
    grep = None
    if given.grep is not None:
        # A text without special characters is found several times faster as such.
        grep = Query(given.grep, regex=bool(_SPECIAL.search(given.grep)))
    wanted = Selection(None if given.stream is None else _STREAMS[given.stream], grep)
    start = Cursor() if given.cursor is None else parse_cursor(given.cursor)
    job = session.job(given.job)
    _ = job.state  # Reads what the engine has of the log by now.
    record = job.record
    removed = removed_within(record.id) if record.state.finished else None
    if removed is not None:
        raise EngineError(
            f"the log of {record.id} was removed to keep all logs within {human_bytes(removed)}",
            f"run it again: stoke rerun {record.id}",
        )
    reader = SpoolReader(LogLocation(job_dir(record.id)))
    try:
        _, lines = reader.size()
        if given.tail is not None:
            start = Cursor(max(0, lines - given.tail))
        elif start.line > lines:
            raise RequestError(
                "cursor",
                f"{start} is behind the end of the log, which has {lines:,} lines",
                "pass the next_cursor of an answer, or leave it out",
            )
        page = read_page(reader, start, given.max_bytes, _is_over(record), wanted)
    finally:
        reader.close()
    return {
        "job": answers.list_answer(record),
        **answers.log_answer(record, start, page, _is_over(record)),
    }


async def _results(session: Session, caller: Caller, given: Results) -> Answer:
    return cast(Answer, await caller.on_thread(_read_results, session, given))


def _read_results(session: Session, given: Results) -> Answer:
    job = session.job(given.job)
    found = job.results()
    if given.file is None:
        return {"job": job.id, **list_page(found, given.offset, given.max_bytes)}
    return {"job": job.id, **text_page(found, given.file, given.offset, given.max_bytes)}


async def _caches(session: Session, caller: Caller, given: Caches) -> Answer:
    return cast(Answer, await caller.on_thread(_list_caches, session, given))


def _list_caches(session: Session, given: Caches) -> Answer:
    from stoke.cache.document import figures_by_cache, volume_document
    from stoke.cache.metrics import read_metrics
    from stoke.cache.volumes import Housekeeper

    housekeeper = Housekeeper(session.history, session.config.lock_ttl)
    figures = figures_by_cache(read_metrics(session.history))
    volumes: list[dict[str, object]] = []
    silent = []
    for name in [given.backend] if given.backend else backend_names():
        try:
            found = housekeeper.volumes(session.backends.get(name))
        except EngineError as error:
            if given.backend:
                raise
            silent.append({"backend": name, "why": error.what})
            continue
        volumes += [
            volume_document(volume, figures)
            for volume in found
            if given.scope in (None, volume.scope)
        ]
    shown = _fitting(volumes, MOST_BYTES)
    answer: Answer = {"caches": shown, "cache_count": len(volumes)}
    if len(shown) < len(volumes):
        answer["next"] = "for the others: caches with a backend or a scope"
    if silent:
        answer["not_listed"] = silent
    if given.dependencies:
        answer["prediction"] = _predict(session, given)
    return answer


def _fitting(entries: list[dict[str, object]], limit: int) -> list[dict[str, object]]:
    """Return the first entries, as many as take `limit` bytes."""
    found = []
    for entry in entries:
        limit -= json_size(entry)
        if limit < 0:
            break
        found.append(entry)
    return found


def _predict(session: Session, given: Caches) -> Answer:
    from stoke.cache.keys import request_keys
    from stoke.cache.prediction import predict
    from stoke.jobs.warm import CODE

    fields = {"dependencies": given.dependencies, "python": given.python, "scope": given.scope}
    fields = {name: value for name, value in fields.items() if value is not None}
    request = make_request(
        session.config, {"code": CODE, **fields}, file=None, name=None, folder=False
    )
    backend = session.backends.get(given.backend or session.config.backend)
    found = predict(request.spec, request_keys(request.spec), backend.name, session.history)
    return {"backend": backend.name, "scope": request.spec.scope, **found.as_json()}


async def _stop(session: Session, caller: Caller, given: Stop) -> Answer:
    job = await caller.on_thread(session.job, given.job)
    before: Job = await caller.on_thread(lambda: job.record)
    if not _is_over(before):
        grace = 0.0 if given.now else float(session.config.stop_grace)
        await caller.on_thread(job.stop, grace)
        if not await caller.wait(job, grace + STOP_SECONDS):
            raise EngineError(
                f"{job.id} has not ended yet",
                "call status with wait to see whether it ends; to end it at once: stop with now",
            )
    return {
        "was": str(before.state),
        "job": await caller.on_thread(_job_answer, session, job),
    }


def _is_over(job: Job) -> bool:
    return job.state.finished and not job.provisional


TOOLS = (
    Tool(
        "run",
        "Run Python code (or a file, a module, a program) as a job with its packages, wait for its end "
        "up to `wait` seconds, and return its state, exit code and the end of its output. The job runs "
        "on if it takes longer. Pass exactly one of code, file, module, exec.",
        Run,
        _run,
        changes=True,
    ),
    Tool(
        "submit",
        "Submit a job and return its id at once. Takes the same request as run.",
        Submission,
        _submit,
        changes=True,
    ),
    Tool(
        "status",
        "Return a job's state, exit code, reason, phases and sizes; with `wait`, wait for its end "
        "first. Without `job`, list the newest jobs.",
        Status,
        _status,
    ),
    Tool(
        "logs",
        "Return a page of a job's output as plain text, without colours and control characters. "
        f"`max_bytes` limits it ({DEFAULT_BYTES} by default); `next_cursor` continues it without a "
        "gap, also while the job runs. `complete` is true at the end of an ended job's log.",
        Logs,
        _logs,
    ),
    Tool(
        "results",
        "List the files that an ended job wrote to $STOKE_RESULTS or that its results patterns "
        "matched, or read one of them if it is UTF-8 text.",
        Results,
        _results,
    ),
    Tool(
        "caches",
        "List the cache volumes with their sizes in bytes, hit rates and what they saved. With "
        "`dependencies`, predict whether a job with these packages finds its environment there.",
        Caches,
        _caches,
    ),
    Tool(
        "stop",
        "Stop a job: SIGTERM, then SIGKILL after the configured grace period. Waits until it has "
        "ended; an ended job is left unchanged.",
        Stop,
        _stop,
        changes=True,
        destroys=True,
    ),
)

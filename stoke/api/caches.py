"""Cache volumes over HTTP: list, prune, warm, clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from stoke.api.client_request import check_scope_right, make_request, read_body_fields
from stoke.api.errors import ProblemError
from stoke.api.json_answer import JsonAnswer
from stoke.api.operation import Answer, Body, Call, Operation
from stoke.api.schemas import FREED, JOB, JOB_EXAMPLE, VOLUMES
from stoke.api.tasks import (
    BACKEND,
    KEY,
    UPGRADE,
    Submission,
    accept,
    chosen_backend,
    read_json_body,
)
from stoke.backend.api import CACHE_KINDS, Backend, Volume
from stoke.backend.registry import backend_names
from stoke.cache.document import figures_by_cache, volume_document
from stoke.cache.metrics import read_metrics
from stoke.cache.volumes import Housekeeper, Pruned, group_by_budget
from stoke.errors import EngineError, RequestError
from stoke.jobs.request import Request
from stoke.jobs.warm import CODE, WARM_FIELDS, most_used, warm_request
from stoke.request.sources import request_from_fields
from stoke.text.units import parse_duration, parse_size

_SCOPE_OR_KIND = {
    "scope": {"type": "string"},
    "kind": {"type": "string", "enum": list(CACHE_KINDS)},
}


async def list_caches(call: Call) -> Response:
    api, token = call.api, call.caller
    only = call.query.get("backend")

    def work() -> dict[str, Any]:
        housekeeper = Housekeeper(api.history, api.config.lock_ttl)
        figures = figures_by_cache(read_metrics(api.reading))
        found: list[dict[str, object]] = []
        unanswered = []
        for name in [str(only)] if only else backend_names():
            try:
                volumes = housekeeper.volumes(api.connection.backends.get(name))
            except EngineError as error:
                unanswered.append({"backend": name, "why": error.what})
                continue
            found += [volume_document(one, figures) for one in volumes if token.sees(one.scope)]
        return {"caches": found, "unanswered": unanswered}

    return JsonAnswer(await api.ask(work))


async def _fields(call: Call, *known: str) -> dict[str, Any]:
    """Return the fields of the body, which are texts or absent. Raises `ProblemError` for others."""
    fields = read_body_fields(await read_json_body(call))
    for name, value in fields.items():
        if name not in known:
            raise ProblemError(
                422, f"is not a field of this request ({', '.join(known)})", field=name
            )
        wanted = bool if name == "dry_run" else str
        if value is not None and not isinstance(value, wanted):
            raise ProblemError(
                422, f"must be {'true or false' if wanted is bool else 'text'}", field=name
            )
    return {name: value for name, value in fields.items() if value is not None}


def _quantity(fields: dict[str, Any], name: str, parse: Callable[[str], float]) -> float | None:
    if name not in fields:
        return None
    try:
        return parse(fields[name])
    except ValueError as error:
        raise ProblemError(422, str(error), field=name) from None


def _chosen(
    call: Call, backend: Backend, housekeeper: Housekeeper, fields: dict[str, Any]
) -> list[Volume]:
    """Return the volumes that a request names and its token sees. Raises `ProblemError` for none."""
    scope, kind = fields.get("scope"), fields.get("kind")
    if kind is not None and kind not in CACHE_KINDS:
        raise ProblemError(422, f"must be one of {', '.join(CACHE_KINDS)}", field="kind")
    found = [
        volume
        for volume in housekeeper.volumes(backend)
        if scope in (None, volume.scope)
        and kind in (None, volume.kind)
        and call.caller.sees(volume.scope)
    ]
    if not found:
        raise ProblemError(404, f"there is no such cache on the {backend.name} backend")
    return found


async def prune(call: Call) -> Response:
    api = call.api
    fields = await _fields(call, "scope", "kind", "unused", "max_size", "dry_run")
    unused = _quantity(fields, "unused", parse_duration)
    size = _quantity(fields, "max_size", parse_size)
    dry_run = bool(fields.get("dry_run"))
    name = chosen_backend(call, api.config.backend)
    call.audit |= {"backend": name, **fields}

    def work() -> dict[str, Any]:
        backend = api.connection.backends.get(name)
        housekeeper = Housekeeper(api.history, api.config.lock_ttl)
        done: list[dict[str, Any]] = []
        freed = 0
        limited = False
        for together in group_by_budget(_chosen(call, backend, housekeeper, fields)):
            by_budget = unused is None and size is None
            limit = api.config.budget(together[0].scope) if by_budget else size
            if unused is None and limit is None:
                continue
            limited = True
            outcomes = housekeeper.prune_together(
                backend, together, lambda _: None, unused=unused,
                max_bytes=None if limit is None else int(limit), dry_run=dry_run,
            )  # fmt: skip
            for volume, outcome in zip(together, outcomes, strict=True):
                done.append(_outcome(volume, outcome))
                freed += outcome.bytes if isinstance(outcome, Pruned) else 0
        if not limited:
            raise RequestError("max_size", "no limit was given and no budget is configured")
        return {"freed": freed, "dry_run": dry_run, "caches": done}

    return JsonAnswer(await api.ask(work))


def _outcome(volume: Volume, outcome: Pruned | EngineError) -> dict[str, Any]:
    where = {"scope": volume.scope, "kind": volume.kind, "node": volume.node}
    if isinstance(outcome, EngineError):
        return {**where, "error": outcome.what, "hint": outcome.hint}
    return {**where, **asdict(outcome)}


async def clear(call: Call) -> Response:
    api = call.api
    fields = await _fields(call, "scope", "kind")
    if "scope" not in fields:
        raise ProblemError(422, "must name the scope to clear", field="scope")
    name = chosen_backend(call, api.config.backend)
    call.audit |= {"backend": name, **fields}

    def work() -> dict[str, Any]:
        backend = api.connection.backends.get(name)
        housekeeper = Housekeeper(api.history, api.config.lock_ttl)
        volumes = _chosen(call, backend, housekeeper, fields)
        holders = sorted({job for volume in volumes for job in volume.in_use_by})
        if holders:
            raise ProblemError(409, f"in use by {', '.join(holders)}; nothing was cleared")
        done: list[dict[str, Any]] = []
        freed = 0
        for volume in volumes:
            try:
                outcome: Pruned | EngineError = housekeeper.clear(backend, volume, lambda _: None)
            except EngineError as error:
                outcome = error
            done.append(_outcome(volume, outcome))
            freed += outcome.bytes if isinstance(outcome, Pruned) else 0
        return {"freed": freed, "caches": done}

    return JsonAnswer(await api.ask(work))


async def warm(call: Call) -> Response:
    api, token = call.api, call.caller
    data = await read_json_body(call)
    upgrade = bool(call.query.get("upgrade"))
    backend = chosen_backend(call, api.config.backend)

    def read() -> Submission:
        fields = read_body_fields(data)
        for name in fields:
            if name not in WARM_FIELDS and name != "top":
                raise ProblemError(422, "decides nothing about an environment", field=name)
        if "top" in fields:
            return Submission(lambda: _top(fields))
        spec = request_from_fields({**fields, "code": CODE})

        def make() -> Request:
            if not (spec.has_packages or spec.system):
                raise RequestError("dependencies", "names nothing to warm")
            checked = make_request(spec, api.config, token, "warm").spec
            return warm_request(checked, api.config, upgrade)

        return Submission(make)

    def _top(fields: dict[str, Any]) -> Request:
        place, scope = fields["top"], fields.get("scope", api.config.scope)
        if not isinstance(place, int) or isinstance(place, bool) or not 1 <= place <= 100:
            raise RequestError("top", "must be a whole number from 1 to 100")
        if fields.keys() - {"top", "scope"} or not isinstance(scope, str):
            raise RequestError("top", "goes with a scope and nothing else")
        requests = most_used(api.history, api.config, backend, scope, place, upgrade)
        if len(requests) < place:
            raise RequestError(
                "top", f"is more than the {len(requests)} environments that jobs used"
            )
        check_scope_right(requests[-1].spec, token)
        return requests[-1]

    return await accept(call, read, backend, data)


_NO_CACHE = Answer(
    404,
    "There is no such cache.",
    "application/problem+json",
    {"$ref": "#/components/schemas/Problem"},
)
_WARM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{
            name: {"$ref": f"#/components/schemas/Request/properties/{name}"}
            for name in sorted(WARM_FIELDS)
        },
        "top": {"type": "integer", "minimum": 1, "maximum": 100},
    },
}
_FREED = Answer(200, "What was removed.", schema=FREED, example={"freed": 0, "caches": []})
OPERATIONS = (
    Operation(
        "GET",
        "/api/v1/caches",
        "listCaches",
        "List the cache volumes: their size, what they saved, which jobs use them.",
        "read",
        list_caches,
        (Answer(200, "The volumes.", schema=VOLUMES, example={"caches": [], "unanswered": []}),),
        query=(BACKEND,),
    ),
    Operation(
        "POST",
        "/api/v1/caches/prune",
        "pruneCaches",
        "Drop environments that were not used for a time, or that exceed a size. Without either, the "
        "budgets of the configuration apply. Entries that a job uses are kept.",
        "admin",
        prune,
        (_FREED, _NO_CACHE),
        query=(BACKEND,),
        body=Body(
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **_SCOPE_OR_KIND,
                    "unused": {"type": "string"},
                    "max_size": {"type": "string"},
                    "dry_run": {"type": "boolean"},
                },
            },
            {"unused": {"unused": "30d", "dry_run": True}},
        ),
    ),
    Operation(
        "POST",
        "/api/v1/caches/clear",
        "clearCaches",
        "Empty the caches of a scope. Refused while a job uses them.",
        "admin",
        clear,
        (_FREED, _NO_CACHE),
        query=(BACKEND,),
        body=Body(
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["scope"],
                "properties": _SCOPE_OR_KIND,
            },
            {"scope": {"scope": "team-a", "kind": "python"}},
            required=True,
        ),
    ),
    Operation(
        "POST",
        "/api/v1/caches/warm",
        "warmCache",
        "Build an environment before it is needed: an ordinary job whose code does nothing. "
        '{"top": N} builds the one that jobs of the scope used Nth most.',
        "submit",
        warm,
        (Answer(202, "The job.", schema=JOB, example={**JOB_EXAMPLE, "name": "warm"}),),
        query=(BACKEND, UPGRADE),
        headers=(KEY,),
        body=Body(_WARM, {"numpy": {"dependencies": ["numpy"]}}, required=True),
    ),
)

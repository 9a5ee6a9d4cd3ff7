"""The ASGI application: routes, the checks in front of them, and what every answer has."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stoke.api.errors import ProblemError, problem_error
from stoke.api.guard import Guard
from stoke.api.operation import Call, Operation
from stoke.api.operations import OPERATIONS
from stoke.errors import StokeError
from stoke.files.debug import Logger

if TYPE_CHECKING:
    from stoke.api.server_state import Api
    from stoke.api.tokens import Token

_log = Logger(__name__)

# No answer is a page, and none is to be kept by a browser or shown in another page.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
_REFUSALS = frozenset({400, 401, 403, 413, 421, 429})
_UNKNOWN = "(none)"


class _Anything(Convertor[str]):
    """The rest of a path, also with line ends in it, which names of files may have."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


def make_app(api: Api) -> ASGIApp:
    """Return the application of a server."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        api.close()

    guard = Guard("api", api.config.api, api.tokens, api.failures, api.rate)
    routes = [
        Route(
            one.path.replace("{path}", "{path:anything}"),
            _Endpoint(api, guard, one),
            methods=[one.method],
        )
        for one in OPERATIONS
    ]
    return _Outside(Router(routes, redirect_slashes=False, lifespan=lifespan), api, guard)


class _Endpoint:
    """Checks a request for one operation and calls it."""

    def __init__(self, api: Api, guard: Guard, operation: Operation) -> None:
        self._api = api
        self._guard = guard
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        notes: dict[str, Any] = scope["stoke"]
        operation = self._operation
        notes["route"] = operation.path
        token: Token | None = None
        if operation.right is not None:
            token = self._guard.token(request)
            notes["token"] = token.name
            if not token.may(operation.right):
                raise ProblemError(403, f"the token {token.name} has no right to {operation.right}")
        call = Call(self._api, request, token, operation.read_query(request), notes)
        notes["changes"] = operation.method != "GET"
        response = await operation.handler(call)
        await response(scope, receive, send)


class _Outside:
    """Around everything: the first checks, errors as answers, headers, counters and the audit log."""

    def __init__(self, router: Router, api: Api, guard: Guard) -> None:
        self._router = router
        self._api = api
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
            return
        began = time.monotonic()
        notes: dict[str, Any] = scope.setdefault("stoke", {})
        scope["app"] = self  # Tells the router to raise errors instead of answering them itself.
        status = 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                self._count(scope, status, time.monotonic() - began, notes)
            await send(message)

        try:
            answer = await self._answered(scope, receive, with_headers)
        except Exception as error:
            if status:
                raise  # The answer has begun: the connection is closed.
            _log.debug("%s %s failed: %r", scope.get("method"), notes.get("route"), error)
            notes["error"] = type(error).__name__
            answer = ProblemError(500, "An error of the server; its debug log has more.").answer()
        if answer is not None and not status:
            await answer(scope, receive, with_headers)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Answer a request; return the answer for an error instead."""
        try:
            self._guard.check_address(Request(scope, receive))
            if scope["method"] == "HEAD":
                # Starlette would serve it as GET: a log would be followed for nothing.
                raise ProblemError(405, "HEAD is not served here.")
            await self._router(scope, receive, send)
        except ProblemError as error:
            return error.answer()
        except StokeError as error:
            return problem_error(error).answer()
        except HTTPException as error:
            headers = dict(error.headers or {})
            if error.status_code == 404:
                return ProblemError(404, "There is nothing at this address.").answer()
            return ProblemError(error.status_code, error.detail, headers=headers).answer()
        return None

    def _count(self, scope: Scope, status: int, seconds: float, notes: dict[str, Any]) -> None:
        route = notes.pop("route", None)
        changes = notes.pop("changes", False)
        self._api.counters.request(scope["method"], route or _UNKNOWN, status, seconds)
        if changes or status in _REFUSALS:
            client = scope.get("client")
            self._api.audit.write(
                client=client[0] if client else None,
                method=scope["method"],
                path=scope["path"],
                status=status,
                **notes,
            )

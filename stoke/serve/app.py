"""The ASGI application: the page, the login, and the connection of a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from stoke.api.audit import AuditLog
from stoke.api.errors import ProblemError
from stoke.api.guard import Guard
from stoke.api.json_answer import JsonAnswer
from stoke.api.limits import RateLimit
from stoke.api.tokens import TokenFile
from stoke.config.model import ServeConfig
from stoke.errors import StokeError
from stoke.serve.logins import Login, Logins, may_open
from stoke.serve.sessions import (
    FAILED,
    LOGGED_OUT,
    MOST_COLUMNS,
    MOST_ROWS,
    TOO_MANY,
    Client,
    Session,
    Sessions,
    TooManySessionsError,
)

_STATIC = Path(__file__).with_name("static")
# Scripts come from this server alone. The terminal sets styles, for colours and cells.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)
_REFUSALS = frozenset({400, 403, 421, 429})
PONG = '{"pong": true}'
HELLO_SECONDS = 10.0
LONGEST_HELLO = 4096
CHECK_SECONDS = 2.0
"""How soon a token that is removed ends its screens."""
LOGINS_A_MINUTE = 60


class Hello(NamedTuple):
    """The first message of a page: what opens the screens, and the size of its terminal."""

    key: str
    session: str
    rows: int
    columns: int


class Screens:
    """What all requests share."""

    def __init__(self, config: ServeConfig, port: int, *, has_tls: bool) -> None:
        tokens = TokenFile()
        failures = RateLimit(LOGINS_A_MINUTE / 60, LOGINS_A_MINUTE)
        rate = RateLimit(LOGINS_A_MINUTE / 60, LOGINS_A_MINUTE)
        self.guard = Guard("serve", config, tokens, failures, rate)
        self.logins = Logins(tokens)
        self.audit = AuditLog()
        self.sessions = Sessions(config.sessions, config.linger, self.audit.write)
        self.most = config.sessions
        self._has_tls = has_tls
        # Browsers send the cookies of a host to all ports of it.
        self.cookie = f"{'__Host-' if has_tls else ''}stoke-{port}"

    def login(self, connection: HTTPConnection) -> Login | None:
        return self.logins.find(connection.cookies.get(self.cookie, ""))

    def set_cookie(self, response: Response, cookie: str | None) -> None:
        response.set_cookie(
            self.cookie,
            cookie or "",
            max_age=None if cookie else 0,
            secure=self._has_tls,
            httponly=True,
            samesite="strict",
        )

    async def check_logins(self) -> None:
        """End the screens of every login that no longer counts, for as long as the server runs."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.sessions.end_where(
                    lambda login: not self.logins.is_valid(login), LOGGED_OUT
                )
            except StokeError:  # The tokens cannot be read now, so none of them counts.
                await self.sessions.end_where(lambda _: True, LOGGED_OUT)


def make_app(screens: Screens) -> ASGIApp:
    async def page(_: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    async def session(request: Request) -> Response:
        login = screens.login(request)
        return JsonAnswer({"token": login and login.token.name})

    async def log_in(request: Request) -> Response:
        token = screens.guard.token(request)
        request.scope["stoke"]["token"] = token.name
        if not may_open(token):
            raise ProblemError(
                403,
                f"The token {token.name} does not open the screens: that takes the right admin, for "
                "all scopes.",
                hint="make one: stoke api token add NAME --right admin",
            )
        cookie, key = screens.logins.add(token)
        response = JsonAnswer({"key": key})
        screens.set_cookie(response, cookie)
        return response

    async def log_out(request: Request) -> Response:
        login = screens.logins.remove(request.cookies.get(screens.cookie, ""))
        if login is not None:
            request.scope["stoke"]["token"] = login.token.name
            await screens.sessions.end_where(lambda other: other is login, LOGGED_OUT)
        response = Response(status_code=204)
        screens.set_cookie(response, None)
        return response

    async def terminal(socket: WebSocket) -> None:
        login = screens.login(socket)
        if login is None:
            await _refuse(screens, socket, 401)
            return
        await socket.accept()
        with suppress(WebSocketDisconnect):
            await _serve(screens, socket, login)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        checking = asyncio.create_task(screens.check_logins())
        yield
        checking.cancel()
        await screens.sessions.close()

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/session", session, methods=["GET"]),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        WebSocketRoute("/terminal", terminal),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    return _Outside(Router(routes, redirect_slashes=False, lifespan=lifespan), screens)


async def _serve(screens: Screens, socket: WebSocket, login: Login) -> None:
    """Connect a browser tab with screens, until either is gone."""
    client = Client(socket)
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            hello = _read_hello(await socket.receive_text())
    except (TimeoutError, ValueError, KeyError):
        await client.close(1008)
        return
    if not login.has_key(hello.key):
        await client.close(LOGGED_OUT)
        return
    session = screens.sessions.find(hello.session, login)
    is_new = session is None
    if session is None:
        try:
            session = await screens.sessions.start(client, login, hello.rows, hello.columns)
        except TooManySessionsError:
            await client.close(TOO_MANY, str(screens.most))
            return
        except OSError as error:
            await client.close(FAILED, error.strerror or "")
            return
    try:
        await socket.send_text(json.dumps({"session": session.id, "is_new": is_new}))
        if not is_new:
            await session.attach(client, hello.rows, hello.columns)
        await _pass_on(screens, socket, session)
    except RuntimeError:  # The connection was closed by this side.
        pass
    finally:
        session.detach(client)


async def _pass_on(screens: Screens, socket: WebSocket, session: Session) -> None:
    """Give the screens what the user types and the size of the terminal."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is not None:
            screens.logins.touch(session.login)
            await session.process.type(data)
            continue
        try:
            value = _read_object(message.get("text") or "")
            if "ping" in value:
                await socket.send_text(PONG)
            else:
                await session.process.resize(*_read_size(value))
        except (ValueError, KeyError):
            continue


def _read_object(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_HELLO:
        raise ValueError("too long")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _read_hello(text: str) -> Hello:
    """Return the first message. Raises `ValueError` and `KeyError`."""
    value = _read_object(text)
    return Hello(str(value["key"]), str(value.get("session") or ""), *_read_size(value))


def _read_size(value: dict[str, Any]) -> tuple[int, int]:
    rows, columns = value["rows"], value["columns"]
    if type(rows) is not int or type(columns) is not int:
        raise ValueError("no size")
    return min(max(rows, 1), MOST_ROWS), min(max(columns, 1), MOST_COLUMNS)


async def _refuse(screens: Screens, socket: WebSocket, status: int) -> None:
    """Answer the request for a WebSocket with 403, and note why."""
    screens.audit.write(
        client=socket.client.host if socket.client else None,
        method="WEBSOCKET",
        path=socket.scope["path"],
        status=status,
    )
    await socket.close()


class _Outside:
    """Around everything: the first checks, errors as answers, headers and the audit log."""

    def __init__(self, router: Router, screens: Screens) -> None:
        self._router = router
        self._screens = screens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # Tells the router to raise errors instead of answering them itself.
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._connect(WebSocket(scope, receive, send))
        else:
            await self._answer(scope, receive, send)

    async def _connect(self, socket: WebSocket) -> None:
        try:
            self._screens.guard.check_address(socket)
            if "origin" not in socket.headers:
                raise ProblemError(403, "Only a page of this server may connect.")
        except ProblemError as error:
            await _refuse(self._screens, socket, error.status)
            return
        await self._router(socket.scope, socket._receive, socket._send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        notes: dict[str, Any] = scope.setdefault("stoke", {})
        client = scope.get("client")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                status = message["status"]
                if scope["method"] != "GET" or status in _REFUSALS:
                    self._screens.audit.write(
                        client=client[0] if client else None,
                        method=scope["method"],
                        path=scope["path"],
                        status=status,
                        **notes,
                    )
            await send(message)

        try:
            request = Request(scope, receive)
            is_page = scope["method"] == "GET" and scope["path"] == "/"
            self._screens.guard.check_address(request, is_page=is_page)
            await self._router(scope, receive, with_headers)
            return
        except ProblemError as error:
            answer = error.answer()
        except StokeError as error:
            answer = ProblemError(503, error.what, hint=error.hint).answer()
        except HTTPException as error:
            answer = ProblemError(error.status_code, error.detail).answer()
        await answer(scope, receive, with_headers)

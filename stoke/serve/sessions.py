"""Sessions: screens that run for a browser, and wait a while for it when it is gone."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from stoke.serve.logins import Login
from stoke.serve.process import ScreensProcess
from stoke.serve.terminal_modes import TerminalModes

ENDED, REPLACED, TOO_MANY, LOGGED_OUT, FAILED = 4000, 4001, 4002, 4003, 4004
"""Codes that a connection is closed with. The page knows them, too."""
CLOSE_SECONDS = 5.0
REDRAW_SECONDS = 2.0
QUIET_SECONDS = 0.1
MOST_ROWS, MOST_COLUMNS = 500, 1000


class TooManySessionsError(Exception):
    """As many sessions are open as may be."""


class Client:
    """The connection of one browser tab."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._gone = asyncio.Event()

    async def send(self, data: bytes) -> None:
        """Send output, and wait while the browser takes none. Returns at once when it is gone."""
        sending = asyncio.ensure_future(self._send(data))
        gone = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        sending.cancel()
        gone.cancel()

    async def _send(self, data: bytes) -> None:
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            await self._socket.send_bytes(data)

    def leave(self) -> None:
        """Note that nothing more is to be sent."""
        self._gone.set()

    async def close(self, code: int, reason: str = "") -> None:
        self.leave()
        with suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(code, reason)


class Session:
    def __init__(self, process: ScreensProcess, login: Login, linger: float) -> None:
        self.id = secrets.token_urlsafe(16)
        self.login = login
        self.process = process
        self.client: Client | None = None
        self._linger = linger
        self._modes = TerminalModes()
        self._drawn = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Pass output on until the screens end; return their exit code."""
        while data := await self.process.read():
            self._modes.feed(data)
            self._drawn.set()
            if self.client is not None:
                await self.client.send(data)
        code = await self.process.wait()
        self._stop_timer()
        if self.client is not None:
            await self.client.close(ENDED)
        return code

    async def attach(self, client: Client, rows: int, columns: int) -> None:
        """Show the screens to another client. The one before is told so."""
        self._stop_timer()
        before, self.client = self.client, None
        if before is not None:
            await before.close(REPLACED)
        await client.send(self._modes.restoring())
        self.client = client
        # Programs draw everything anew at another size only.
        self._drawn.clear()
        await self.process.resize(rows - 1 if rows > 1 else 2, columns)
        with suppress(TimeoutError):
            async with asyncio.timeout(REDRAW_SECONDS):
                await self._drawn.wait()
        await asyncio.sleep(QUIET_SECONDS)
        await self.process.resize(rows, columns)

    def detach(self, client: Client) -> None:
        """Wait for another client, and end the screens if none comes."""
        client.leave()
        if self.client is client:
            self.client = None
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._linger, self.process.hang_up)

    async def end(self, code: int) -> None:
        """End the screens, and tell the client why."""
        client, self.client = self.client, None
        self.process.hang_up()
        if client is not None:
            await client.close(code)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sessions:
    """All sessions of the server. `report` gets what is written to the audit log."""

    def __init__(self, most: int, linger: float, report: Callable[..., None]) -> None:
        self._most = most
        self._linger = linger
        self._report = report
        self._sessions: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting = 0

    def find(self, session_id: str, login: Login) -> Session | None:
        """Return a session of this login."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.login is login else None

    async def start(self, client: Client, login: Login, rows: int, columns: int) -> Session:
        """Start the screens for a client. Raises `TooManySessionsError` and `OSError`."""
        if len(self._sessions) + self._starting >= self._most:
            waiting = [one for one in self._sessions.values() if one.client is None]
            if not waiting:
                raise TooManySessionsError
            await self._end(waiting[0], ENDED)  # Nobody looks at it.
        self._starting += 1
        try:
            process = await ScreensProcess.start(rows, columns)
        finally:
            self._starting -= 1
        session = Session(process, login, self._linger)
        session.client = client
        self._sessions[session.id] = session
        task = asyncio.create_task(self._run(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._report(event="screens opened", token=login.token.name, pid=process.pid)
        return session

    async def _run(self, session: Session) -> None:
        try:
            code = await session.run()
        finally:
            self._sessions.pop(session.id, None)
        self._report(
            event="screens ended",
            token=session.login.token.name,
            pid=session.process.pid,
            code=code,
        )

    async def end_where(self, unwanted: Callable[[Login], bool], code: int) -> None:
        """End the sessions of some logins."""
        for session in list(self._sessions.values()):
            if unwanted(session.login):
                await self._end(session, code)

    async def _end(self, session: Session, code: int) -> None:
        self._sessions.pop(session.id, None)
        await session.end(code)

    async def close(self) -> None:
        """End all sessions and wait for their processes."""
        await self.end_where(lambda _: True, 1012)
        if self._tasks:
            await asyncio.wait(self._tasks)

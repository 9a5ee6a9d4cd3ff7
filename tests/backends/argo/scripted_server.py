"""An API server of the test's own: no cluster, real sockets, and exactly the answers of its script.

No real one can be told to cut a connection in the middle of a line, or to forget a resource version
on the third watch. What it does is what real ones were measured to do.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Hold:
    """In an answer: say nothing more, and keep the connection until the client leaves it."""


class Reset:
    """In an answer: end the connection as a machine does that goes down."""


class Leave:
    """At an answer's end: read what the client still sends; unread, it would reset the connection."""


class Keep:
    """At an answer's end: the connection may be used again."""


Piece = bytes | threading.Event | type[Hold] | type[Reset] | type[Leave] | type[Keep]
"""Bytes are sent; an event is waited for; the connection closes behind the last piece."""
Answer = Sequence[Piece] | Callable[[Request], Sequence[Piece]]


@dataclass
class ScriptedServer:
    """`answers` maps the end of a path to the answers for it, one a request; the last serves all that
    follow. What is not there is answered as a cluster does that does not know it."""

    tls: ssl.SSLContext | None = None
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    broken_handshakes: int = 0
    """This many connections end in the middle of their first exchange."""

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def kubeconfig(
        self, folder: Path, *, user: object = None, cluster: dict[str, object] | None = None
    ) -> str:
        """Writes one whose context is `scripted`, in the namespace `team-a`; gives its path."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "scripted",
            "clusters": [{"name": "c", "cluster": {"server": self.url, **(cluster or {})}}],
            "users": [{"name": "u", "user": user or {"token": "sesame"}}],
            "contexts": [
                {
                    "name": "scripted",
                    "context": {"cluster": "c", "user": "u", "namespace": "team-a"},
                }
            ],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(content))
        return str(path)

    def wait_for(self, count: int, timeout: float = 20) -> None:
        """Wait until `count` requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, timeout)

    def wait_until_no_client_is_connected(self, timeout: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open, timeout)

    def close(self) -> None:
        # Before its descriptor is closed, or the thread that accepts would keep it open.
        for one in [self._listener, *self._open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._changed:
            self.connections += 1
            self._open.add(connection)
        plain = connection
        try:
            if self.broken_handshakes:
                self.broken_handshakes -= 1
                connection.recv(1 << 16)
                return
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as file:
                while (request := _read(file)) and self._answer(connection, request):
                    pass
        except OSError:
            pass  # The client left in the middle.
        finally:
            connection.close()
            with self._changed:
                self._open.discard(plain)
                self._changed.notify_all()

    def _answer(self, connection: socket.socket, request: Request) -> bool:
        """Whether another request may come on this connection."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            answer = self._next(request)
        for piece in answer(request) if callable(answer) else answer:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            elif isinstance(piece, threading.Event):
                assert piece.wait(30)
            elif piece is Hold:
                connection.recv(1)
            elif piece is Reset:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            elif piece is Leave:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
            elif piece is Keep:
                return True
        return False

    def _next(self, request: Request) -> Answer:
        for end, answers in self.answers.items():
            if request.path.endswith(end):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return status(404, "NotFound", "the server could not find the requested resource")


def _read(file: object) -> Request | None:
    first = file.readline()  # type: ignore[attr-defined]
    if not first:
        return None
    method, target, _ = first.decode().split()
    headers = {}
    while line := file.readline().strip():  # type: ignore[attr-defined]
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = file.read(int(headers.get("content-length", 0)))  # type: ignore[attr-defined]
    parts = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return Request(method, parts.path, query, headers, body)


@contextmanager
def scripted_server(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    server = ScriptedServer(tls)
    try:
        yield server
    finally:
        server.close()


# --- answers -------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def json_answer(body: object, code: int = 200, headers: str = "") -> list[Piece]:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {code} Said\r\nContent-Type: application/json\r\n{headers}"
    return [f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data, Keep]


def status(code: int, reason: str, message: str, retry_after: int | None = None) -> list[Piece]:
    """A refusal as the API server words it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    wait = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
    return json_answer({**body, "code": code, "reason": reason, "message": message}, code, wait)


def forbidden(verb: str, resource: str, group: str = "") -> list[Piece]:
    named = f"{resource}.{group}" if group else resource
    message = (
        f'{named} is forbidden: User "jane" cannot {verb} resource "{resource}" '
        f'in API group "{group}" in the namespace "team-a"'
    )
    return status(403, "Forbidden", message)


# --- a pod's log ---------------------------------------------------------------------------------


def stamp(time: int, offset_minutes: int = 0) -> bytes:
    """Epoch nanoseconds as a node writes them, always with nine digits."""
    seconds, nanoseconds = divmod(time, SECOND)
    zone = timezone(timedelta(minutes=offset_minutes))
    text = datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%dT%H:%M:%S")
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    suffix = f"{sign}{minutes // 60:02}:{minutes % 60:02}" if offset_minutes else "Z"
    return f"{text}.{nanoseconds:09}{suffix} ".encode()


@dataclass(frozen=True)
class Entry:
    """What a container runtime wrote: a line with its newline, or a part of one without."""

    time: int
    data: bytes


def entries_of(text: bytes, time: int, step: int = 1000, part: int = 16 * 1024) -> list[Entry]:
    """A container's output as a runtime stores it: parts of one line are entries of their own."""
    entries = []
    for line in _lines(text):
        while line:
            # The newline does not count: a runtime stores it as the entry's end.
            size = part if len(line.rstrip(b"\n")) > part else len(line)
            entries.append(Entry(time, line[:size]))
            line = line[size:]
            time += step
    return entries


def _lines(text: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def served(entries: Sequence[Entry], request: Request) -> bytes:
    """What a node gives of its log: from the whole second of `sinceTime` on, a timestamp only where
    a line begins."""
    since = 0
    if "sinceTime" in request.query:
        moment = datetime.fromisoformat(request.query["sinceTime"])
        assert moment.tzinfo is not None and moment.microsecond == 0
        since = int(moment.astimezone(UTC).timestamp()) * SECOND
    # Of its own lines: a part of a long one is one of them.
    entries = entries[-int(request.query.get("tailLines", len(entries))) :]
    pieces, begins = [], True
    for entry in entries:
        if entry.time < since:
            continue
        timestamps = begins and request.query.get("timestamps") == "true"
        pieces.append((stamp(entry.time) if timestamps else b"") + entry.data)
        begins = entry.data.endswith(b"\n")
    return b"".join(pieces)


@dataclass
class ScriptedPodLog:
    """A container's log. `cut_after` bytes of it one connection after the other ends so abruptly; then
    each serves all there is, and what is `behind` it."""

    entries: list[Entry]
    cut_after: list[int] = field(default_factory=list)
    chunk_size: int = 0
    behind: Sequence[Piece] = (LAST,)

    def __call__(self, request: Request) -> Sequence[Piece]:
        body = served(self.entries, request)
        if self.cut_after:
            return [CHUNKED, chunk(body)[: self.cut_after.pop(0)]]
        size = self.chunk_size or max(1, len(body))
        pieces = [chunk(body[at : at + size]) for at in range(0, len(body), size)]
        return [CHUNKED, b"".join(pieces), *self.behind]

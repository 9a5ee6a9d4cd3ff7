"""A real server of the screens on a free port, and a browser's part of its protocol."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from websocket import ABNF, WebSocket, WebSocketException, create_connection

from stoke.api.listening import Server
from stoke.config.model import ServeConfig
from stoke.serve.server import serve
from tests.lab import until

ROWS, COLUMNS = 30, 100


@contextmanager
def serving(**settings: Any) -> Iterator[str]:
    """Serve on a thread of this process; yields the address."""
    config = ServeConfig(**{"port": 0, **settings})
    begun: queue.Queue[tuple[str, Server]] = queue.Queue()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            serve(config, lambda address, server: begun.put((address, server)))
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    address, server = begun.get(timeout=60)
    try:
        yield address
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive() and not failed


class Browser:
    """A browser that may be logged in."""

    def __init__(self, address: str, secret: str | None = None) -> None:
        self.address = address
        self.key = ""
        self.web = requests.Session()
        self.web.trust_env = False
        if secret is not None:
            answer = self.log_in(secret)
            assert answer.status_code == 200, answer.text
            self.key = answer.json()["key"]

    def log_in(self, secret: str, **headers: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {secret}", "Origin": self.address, **headers}
        return self.web.post(f"{self.address}/login", headers=headers, timeout=30)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.web.get(self.address + path, headers=headers, timeout=30)

    def connect(self, origin: str | None = "", **options: Any) -> WebSocket:
        """Connect a terminal from the server's own page, or that of another origin, or from none."""
        return create_connection(
            self.address.replace("http", "ws", 1) + "/terminal",
            timeout=60,
            enable_multithread=True,
            origin=origin or self.address,
            suppress_origin=origin is None,
            **{"cookie": self.cookie, **options},
        )

    @property
    def cookie(self) -> str:
        return "; ".join(f"{one.name}={one.value}" for one in self.web.cookies)

    def open(self, session: str = "", key: str | None = None) -> Tab:
        return Tab(self.connect(), self.key if key is None else key, session)


class Tab:
    """A tab with the screens. `screen` is every byte that they wrote to it."""

    def __init__(self, socket: WebSocket, key: str, session: str = "") -> None:
        self.socket = socket
        self.screen = b""
        self.hello: dict[str, Any] | None = None
        self.answers: list[Any] = []
        self.code: int | None = None
        self.reason = ""
        self.tell({"key": key, "session": session, "rows": ROWS, "columns": COLUMNS})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def tell(self, value: Any) -> None:
        self.socket.send(json.dumps(value))

    def type(self, text: str | bytes) -> None:
        self.socket.send_binary(text.encode() if isinstance(text, str) else text)

    def _read(self) -> None:
        code = 0
        try:
            while True:
                kind, data = self.socket.recv_data()
                if kind == ABNF.OPCODE_CLOSE:
                    code, self.reason = int.from_bytes(data[:2], "big"), data[2:].decode()
                    break
                if kind == ABNF.OPCODE_TEXT:
                    value = json.loads(data)
                    if self.hello is None:
                        self.hello = value
                    else:
                        self.answers.append(value)
                else:
                    self.screen += data
        except (WebSocketException, OSError):
            pass
        self.code = code

    @property
    def session(self) -> str:
        until(lambda: self.hello is not None or self.code is not None, "the session")
        assert self.hello is not None, self.code
        return str(self.hello["session"])

    def until(self, text: bytes, after: int = 0) -> None:
        def is_there() -> bool:
            assert self.code is None, (self.code, self.screen[-500:])
            return text in self.screen[after:]

        until(is_there, repr(text))

    def closed(self) -> int:
        until(lambda: self.code is not None, "the end of the connection")
        assert self.code is not None
        return self.code

    def close(self) -> None:
        self.socket.close()
        self._reader.join(60)
        assert not self._reader.is_alive()


def alive(pid: int) -> bool:
    """Whether a process is there, and not only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X")


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for name in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(child) for child in name.read_text().split()]
        except OSError:
            continue
        for child in pids:
            found += [child, *children(child)]
    return found

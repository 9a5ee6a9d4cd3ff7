"""A real server on a free port, and a client of it."""

from __future__ import annotations

import base64
import json
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import requests

from stoke.api.listening import Server
from stoke.api.server import serve
from stoke.api.tokens import TokenFile
from stoke.config.model import ApiConfig, Config
from tests.lab import until

STOKE = Path(sys.executable).with_name("stoke")
FINISHED = {"succeeded", "failed", "stopped", "lost"}


class Event(NamedTuple):
    id: str
    name: str
    data: str

    @property
    def bytes(self) -> bytes:
        return base64.b64decode(self.data, validate=True)


class Client:
    """Requests with one token."""

    def __init__(self, address: str, secret: str | None) -> None:
        self.address = address
        self.port = int(address.rpartition(":")[2])
        self.secret = secret
        self._session = requests.Session()
        self._session.trust_env = False
        if secret is not None:
            self._session.headers["Authorization"] = f"Bearer {secret}"

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return self._session.request(method, self.address + path, timeout=60, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        if isinstance(body, bytes):
            return self.ask("POST", path, data=body, **options)
        return self.ask("POST", path, json=body, **options)

    def submit(self, body: Any, query: str = "", **options: Any) -> dict[str, Any]:
        answer = self.post(f"/api/v1/tasks/submit{query}", body, **options)
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def task(self, job_id: str) -> dict[str, Any]:
        answer = self.get(f"/api/v1/tasks/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def over(self, job_id: str) -> dict[str, Any]:
        """Wait for the confirmed end of a job."""

        def is_over() -> bool:
            now = self.task(job_id)
            return now["state"] in FINISHED and not now["provisional"]

        until(is_over, f"the end of {job_id}")
        return self.task(job_id)

    def run(self, body: Any, query: str = "") -> dict[str, Any]:
        return self.over(self.submit(body, query)["id"])

    def log(self, job_id: str, query: str = "") -> bytes:
        answer = self.get(f"/api/v1/tasks/{job_id}/logs{query}")
        assert answer.status_code == 200, answer.text
        return answer.content

    @contextmanager
    def following(self, job_id: str, after: str | None = None) -> Iterator[Iterator[Event]]:
        """The events of a log as they come."""
        headers = {} if after is None else {"Last-Event-ID": after}
        with self.get(
            f"/api/v1/tasks/{job_id}/logs?follow=true", headers=headers, stream=True
        ) as answer:
            assert answer.status_code == 200, answer.text
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield _events(answer)

    def followed(self, job_id: str, after: str | None = None) -> list[Event]:
        with self.following(job_id, after) as events:
            return list(events)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, data: bytes) -> bytes:
        """What the server answers to these bytes until it closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            received = b""
            while piece := connection.recv(65536):
                received += piece
            return received

    def head(self, method: str = "GET", path: str = "/api/v1/tasks", *more: str) -> bytes:
        """The head of a request, without the empty line at its end."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: close"]
        lines += [f"Authorization: Bearer {self.secret}", *more]
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def _events(answer: requests.Response) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=None, delimiter=b"\n"):
        name, _, value = line.decode().partition(": ")
        if line and name:
            fields[name] = value
        elif not line and "event" in fields:
            yield Event(fields.get("id", ""), fields["event"], fields["data"])
            fields = {}


def output(events: list[Event], stream: str = "stdout") -> bytes:
    return b"".join(event.bytes for event in events if event.name == stream)


def make_token(name: str, right: str = "submit", *scopes: str) -> str:
    return TokenFile().add(name, right, scopes)


@contextmanager
def serving(config: Config | None = None, **settings: Any) -> Iterator[str]:
    """Serve on a thread of this process; yields the address."""
    config = config or Config()
    api = ApiConfig(**{"port": 0, "rate": 100_000, **settings})
    config = config.model_copy(update={"api": api})
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


class Process:
    """The program itself, which a test may kill."""

    def __init__(self, *options: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [STOKE, "api", "--port", str(port), *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"serving (\S+);", line)
        assert found, line + self.process.stderr.read()
        self.address = found[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


def problem(answer: requests.Response) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    found: dict[str, Any] = json.loads(answer.content)
    assert found["status"] == answer.status_code
    return found


def seconds_of(call: Any) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began

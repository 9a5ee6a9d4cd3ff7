"""An engine of the test's own: answers on a unix socket exactly the bytes of its script."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backends.docker.names import job_labels
from stoke.config.model import Config, DockerConfig

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HOLD = None
"""In an answer: keep the connection open and say nothing more."""
JOB = "job-aaaaaa"
RUNNING = {
    "Config": {"Cmd": ["/stoke/payload"], "Labels": job_labels(JOB, "default", "0" * 16)},
    # Its frames are old, and its files never get full.
    "HostConfig": {"LogConfig": {"Type": "local", "Config": {"max-size": str(1 << 50)}}},
    "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00Z"},
}


class FakeEngine:
    """`answers` maps the end of a path to what is sent for it, piece by piece; then the connection
    closes, unless the last piece is `HOLD`. `/version` is answered with `version`. It has one running
    job, `JOB`."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Iterable[bytes | None]] = {"json": [json_answer(RUNNING)]}
        self.first_answers: dict[str, list[list[bytes | None]]] = {}
        """Answers that are sent, one a request, before those in `answers`."""
        self.version: object = {"ApiVersion": "1.41", "Arch": "amd64"}
        self.any_answer: Callable[[], Iterable[bytes | None]] | None = None
        """Makes what is sent for every request, that for `/version` among them."""
        self.requests: list[str] = []
        self.url = f"unix://{folder}/engine.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/engine.sock")
        self._listener.listen(16)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, name="engine", daemon=True).start()

    @property
    def config(self) -> Config:
        return Config(docker=DockerConfig(host=self.url))

    def close(self) -> None:
        for one in [self._listener, *self._open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(
                target=self._serve, args=(connection,), name="engine", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while request := file.readline():
                size = 0
                while header := file.readline().strip():
                    if header.lower().startswith(b"content-length:"):
                        size = int(header.partition(b":")[2])
                file.read(size)
                path = request.split()[1].decode()
                self.requests.append(path)
                if path.endswith("/version") and self.any_answer is None:
                    connection.sendall(json_answer(self.version))
                    continue
                name = path.partition("?")[0].rpartition("/")[2]
                answer = self.answers.get(name, [json_answer({"message": "no"}, 404)])
                if "/containers/json" in path:
                    answer = [json_answer([])]  # Every container is found by its name.
                if self.any_answer is not None:
                    answer = self.any_answer()
                elif first := self.first_answers.get(name):
                    answer = first.pop(0)
                with suppress(OSError):  # The client may leave in the middle.
                    for piece in answer:
                        if piece is HOLD:
                            file.readline()
                        else:
                            connection.sendall(piece)
                return


@contextmanager
def fake_engine(folder: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(folder)
    try:
        yield engine
    finally:
        engine.close()


def json_answer(body: object, status: int = 200) -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n"
    # The engine closes the connection after an answer, and a client must not use it again.
    return f"{head}Connection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"

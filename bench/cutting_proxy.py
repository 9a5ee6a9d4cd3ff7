"""A proxy for the engine's socket that cuts log connections at random places."""

from __future__ import annotations

import random
import socket
import threading
from pathlib import Path
from types import TracebackType


class CuttingProxy:
    """Forward everything. Cut connections with a log (a request for `/logs`) after a random number of
    bytes, at most `most`, until there were `wanted` cuts."""

    def __init__(self, path: Path, engine: str, wanted: int, most: int) -> None:
        self.url = f"unix://{path}"
        self.cuts = 0
        self._engine = engine.removeprefix("unix://")
        self._wanted = wanted
        self._most = most
        self._random = random.Random(7)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._open: list[socket.socket] = []

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for one in [self._listener, *self._open]:
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self._engine)
            self._open += [client, engine]
            threading.Thread(target=self._up, args=(client, engine), daemon=True).start()

    def _up(self, client: socket.socket, engine: socket.socket) -> None:
        """Forward requests; the first one tells what the connection is for."""
        try:
            data = client.recv(65536)
            room = None
            if b"/logs?" in data.split(b"\r\n")[0] and self.cuts < self._wanted:
                room = self._random.randrange(1, self._most)
            threading.Thread(target=self._down, args=(client, engine, room), daemon=True).start()
            while data:
                engine.sendall(data)
                data = client.recv(65536)
        except OSError:
            pass
        _end(engine)

    def _down(self, client: socket.socket, engine: socket.socket, room: int | None) -> None:
        try:
            while data := engine.recv(1 << 18):
                if room is not None and len(data) >= room:
                    client.sendall(data[:room])
                    self.cuts += 1
                    break
                client.sendall(data)
                if room is not None:
                    room -= len(data)
        except OSError:
            pass
        _end(client)
        _end(engine)


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()

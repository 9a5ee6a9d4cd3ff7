"""A session in a container: an exec of the engine, over one connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

from backends.docker.engine import Engine
from stoke.errors import EngineError
from stoke.remote.bundle import session_source
from stoke.remote.command import session_command

READ_SIZE = 1 << 16
_HEADER = struct.Struct(">BxxxI")
"""Each piece of output has this header: its stream and its size. A documented format of the engine."""


class DockerChannel:
    """The streams of `stoke.remote.session`; see `stoke.backend.capabilities.Channel`."""

    def __init__(self, engine: Engine, container: str, entry: str) -> None:
        source = session_source()
        command = session_command("python3", len(source), entry)
        self._engine = engine
        self._what = f"enter {container}"
        with engine.call(self._what) as api:
            created = api.exec_create(
                container, command, stdin=True, stdout=True, stderr=True, user="0:0"
            )
            self._exec = created["Id"]
            self._file: Any = api.exec_start(self._exec, socket=True)
            self._socket: Any = getattr(self._file, "_sock", self._file)
            self._socket.setblocking(False)
        self._queue = bytearray(source)
        self._received = bytearray()
        self._ended = False

    def readers(self) -> Sequence[int]:
        return [self._socket.fileno()]

    def writer(self) -> int | None:
        return self._socket.fileno() if self._queue else None

    def queue(self, data: bytes) -> None:
        self._queue += data

    def queued(self) -> int:
        return len(self._queue)

    def write(self) -> None:
        import ssl

        try:
            sent = self._socket.send(self._queue[:READ_SIZE])
            del self._queue[:sent]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self._queue.clear()  # It has ended, which `read` reports.

    def read(self) -> list[tuple[int, bytes]]:
        import ssl

        while not self._ended:
            try:
                data = self._socket.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                raise EngineError(f"cannot {self._what}: lost the connection: {error}") from error
            self._ended = not data
            self._received += data
            # TLS may hold more than one record, about which no descriptor tells.
            if not data or not getattr(self._socket, "pending", int)():
                break
        return self._pieces()

    def _pieces(self) -> list[tuple[int, bytes]]:
        found = []
        at = 0
        while len(self._received) - at >= _HEADER.size:
            stream, size = _HEADER.unpack_from(self._received, at)
            if len(self._received) - at - _HEADER.size < size:
                break
            at += _HEADER.size
            found.append((stream, bytes(self._received[at : at + size])))
            at += size
        del self._received[:at]
        return found

    @property
    def ended(self) -> bool:
        return self._ended

    def exit_code(self) -> int | None:
        with self._engine.call(self._what) as api:
            code = api.exec_inspect(self._exec)["ExitCode"]
            return code if isinstance(code, int) else None

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
        self._file.close()

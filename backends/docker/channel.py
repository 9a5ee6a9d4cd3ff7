"""A session in a container: an exec of the engine, over one connection."""

from __future__ import annotations

import struct
from typing import Any

from backends.common.socket_channel import SocketChannel
from backends.docker.engine import Engine
from stoke.files.shapes import is_exit_code
from stoke.remote.bundle import session_source
from stoke.remote.command import session_command

MAX_FRAME = 1 << 24
_HEADER = struct.Struct(">BxxxI")
"""Each piece of output has this header: its stream and its size. A documented format of the engine."""


class DockerChannel(SocketChannel):
    """The streams of `stoke.remote.session`; see `stoke.backend.capabilities.Channel`."""

    def __init__(self, engine: Engine, container: str, entry: str) -> None:
        source = session_source()
        command = session_command("python3", len(source), entry)
        self._engine = engine
        what = f"enter {container}"
        with engine.call(what) as api:
            created = api.exec_create(
                container, command, stdin=True, stdout=True, stderr=True, user="0:0"
            )
            self._exec = created["Id"]
            self._file: Any = api.exec_start(self._exec, socket=True)
        response = self._file._response.raw._fp
        super().__init__(getattr(self._file, "_sock", self._file), response, what)
        self.queue(source)

    def _take_pieces(self) -> list[tuple[int, bytes]]:
        found = []
        at = 0
        while len(self._received) - at >= _HEADER.size:
            stream, size = _HEADER.unpack_from(self._received, at)
            if size > MAX_FRAME:
                raise self._lost(f"a piece of {size} bytes")
            if len(self._received) - at - _HEADER.size < size:
                break
            at += _HEADER.size
            found.append((stream, bytes(self._received[at : at + size])))
            at += size
        del self._received[:at]
        return found

    def exit_code(self) -> int | None:
        with self._engine.call(self._what) as api:
            code = api.exec_inspect(self._exec)["ExitCode"]
            return code if is_exit_code(code) else None

    def close(self) -> None:
        super().close()
        self._file.close()

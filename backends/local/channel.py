"""A session in a local job: a child process of this program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stoke.errors import EngineError
from stoke.remote.bundle import session_source
from stoke.remote.command import session_command

READ_SIZE = 1 << 16
END_SECONDS = 5.0


class LocalChannel:
    """The streams of `stoke.remote.session`; see `stoke.backend.capabilities.Channel`."""

    def __init__(self, python: str, entry: Path, supervisor: int) -> None:
        source = session_source()
        try:
            self._process = subprocess.Popen(
                session_command(python, len(source), str(entry), supervisor),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Ctrl+c at this program's terminal is not for it.
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"cannot start {python}: {error.strerror}", "reinstall stoke: its Python is gone"
            ) from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin = self._process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._open = {self._process.stdout.fileno(): 1, self._process.stderr.fileno(): 2}
        self._queue = bytearray(source)

    def readers(self) -> Sequence[int]:
        return list(self._open)

    def writer(self) -> int | None:
        return self._stdin if self._queue else None

    def queue(self, data: bytes) -> None:
        self._queue += data

    def queued(self) -> int:
        return len(self._queue)

    def write(self) -> None:
        try:
            written = os.write(self._stdin, self._queue[:READ_SIZE])
            del self._queue[:written]
        except BlockingIOError:
            pass
        except OSError:
            self._queue.clear()  # It has ended, which `read` reports.

    def read(self) -> list[tuple[int, bytes]]:
        import select

        found = []
        for descriptor in select.select(list(self._open), [], [], 0)[0]:
            data = os.read(descriptor, READ_SIZE)
            if data:
                found.append((self._open[descriptor], data))
            else:
                del self._open[descriptor]
        return found

    @property
    def ended(self) -> bool:
        # Programs that it left behind may hold the pipes open.
        return not self._open or (self._process.poll() is not None and not self._has_more())

    def _has_more(self) -> bool:
        import select

        return bool(select.select(list(self._open), [], [], 0)[0])

    def exit_code(self) -> int | None:
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._open.clear()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

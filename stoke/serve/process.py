"""The process of one session of the screens, as the event loop sees it."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from stoke.files.debug import child_environment
from stoke.remote.session import DATA, HEADER, SIZE

READ_SIZE = 1 << 16
END_SECONDS = 10.0
"""How long the process may take to end the screens."""


class ScreensProcess:
    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout

    @classmethod
    async def start(cls, rows: int, columns: int) -> ScreensProcess:
        """Start the screens. Raises `OSError`."""
        # A session of its own: ctrl+c at the server's terminal is for the server alone.
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "stoke.serve.terminal", str(rows), str(columns),
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True,
                env=child_environment(),
            )
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read(self) -> bytes:
        """Return the next output; nothing once the screens have ended."""
        return await self._output.read(READ_SIZE)

    async def type(self, data: bytes) -> None:
        """Send what a user typed, and wait while the screens do not read it."""
        await self._send(DATA, data)

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(SIZE, json.dumps({"rows": rows, "columns": columns}).encode())

    async def _send(self, kind: bytes, payload: bytes) -> None:
        try:
            self._input.write(HEADER.pack(kind, len(payload)) + payload)
            await self._input.drain()
        except OSError:
            pass  # The screens have ended; so does their output.

    def hang_up(self) -> None:
        """Tell the screens to end. Their output must still be read."""
        self._input.close()

    async def wait(self) -> int:
        """Return the exit code of the screens once their process has ended, which is made sure of."""
        self._input.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

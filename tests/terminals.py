"""The installed program at a controlling terminal, for what a user types and reads there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.lab import until

PROGRAM = str(Path(sys.executable).parent / "stoke")
PATIENCE = 120


class Terminal:
    """The program at a terminal of its own, a pty. `screen` is every byte it wrote there."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        size: tuple[int, int] = (24, 80),
        program: str = PROGRAM,
    ) -> None:
        self.screen = b""
        self._terminal, theirs = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            [program, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Makes it the controlling terminal, so that ctrl+c is a key here, too.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._terminal, 1 << 16)
            except OSError:  # What Linux says when the other side is closed.
                return
            if not data:
                return
            self.screen += data

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, text: bytes, after: int = 0) -> None:
        """Wait for `text` behind the first `after` bytes."""
        try:
            until(lambda: text in self.screen[after:], repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen has {self.screen[-2000:]!r}") from None

    def answer(self, command: str) -> str:
        """Return what a command prints, typed at a shell's prompt."""
        begin = len(self.screen)
        # The echo of the typed line has the quotes, the output has not.
        self.type(f"echo 'beg''in'; {command}; echo 'en''d'\r")
        self.until(b"end\r\n", begin)
        found = re.findall(rb"begin\r\n(.*?)end\r\n", self.screen[begin:], re.DOTALL)
        return str(found[-1].decode().replace("\r\n", "\n"))

    def wait(self) -> int:
        """Return the exit code once all output is on the screen."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        os.close(self._terminal)

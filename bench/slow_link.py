"""A program on a terminal of 120 x 40 behind a link with little bandwidth and a long delay.

What the program writes goes into a buffer, as a server's socket has one, and from there over the link
at `rate` bytes a second; each direction takes `delay` seconds more. The terminal at the far end
answers what terminals are asked.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

BUFFER = 64 * 1024
TICK = 0.005
ANSWERS = {b"\x1b[6n": b"\x1b[40;120R", b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[c": b"\x1b[?62c"}
_ASKED = re.compile(b"|".join(map(re.escape, ANSWERS)))
_SEQUENCE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()].")


class FarTerminal:
    """`rate` in bytes per second, None for no limit; `delay` in seconds each way."""

    def __init__(
        self, command: list[str], env: dict[str, str], rate: float | None, delay: float = 0.0
    ) -> None:
        self.received = 0
        """Bytes that the terminal has received."""
        self.written_at = time.monotonic()
        """When the program last wrote."""
        self.ended_at: float | None = None
        """When the program ended, as the terminal sees it."""
        self._rate, self._delay = rate, delay
        self._seen = b""
        self._news = threading.Condition()
        self._keys: deque[tuple[float, bytes]] = deque()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, {**env, "TERM": "xterm-256color"})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def press(self, keys: str) -> None:
        with self._news:
            self._seen = b""
            self._keys.append((time.monotonic() + self._delay, keys.encode()))

    def until(self, text: str, seconds: float = 60) -> float:
        """Return when the terminal showed `text` after the last key."""
        pattern = re.compile(text)
        deadline = time.monotonic() + seconds
        with self._news:
            while time.monotonic() < deadline:
                if pattern.search(_SEQUENCE.sub(b"", self._seen).decode(errors="replace")):
                    return time.monotonic()
                self._news.wait(0.5)
            last = _SEQUENCE.sub(b"", self._seen)[-300:]
        sys.exit(f"{text!r} did not appear within {seconds} s; the last that did: {last!r}")

    def until_ended(self, seconds: float = 60) -> float:
        self._thread.join(seconds)
        if self.ended_at is None:
            sys.exit(f"it had not ended after {seconds} s")
        return self.ended_at

    def _carry(self) -> None:
        waiting = bytearray()
        under_way: deque[tuple[float, bytes]] = deque()
        before = time.monotonic()
        credit, asked, open_ = 0.0, b"", True
        while open_ or waiting or under_way:
            room = open_ and len(waiting) < BUFFER
            if room and select.select([self._fd], [], [], TICK)[0]:
                try:
                    waiting += os.read(self._fd, BUFFER - len(waiting))
                    self.written_at = time.monotonic()
                except OSError:
                    open_ = False
            elif not room:
                time.sleep(TICK)
            now = time.monotonic()
            if self._rate is None:
                sent = len(waiting)
            else:
                # Bandwidth that was not used in time is lost.
                credit = min(credit + (now - before) * self._rate, self._rate * 0.1)
                sent = min(len(waiting), int(credit))
                credit -= sent
            before = now
            if sent:
                under_way.append((now + self._delay, bytes(waiting[:sent])))
                del waiting[:sent]
            while under_way and under_way[0][0] <= now:
                data = under_way.popleft()[1]
                asked += data
                for found in _ASKED.finditer(asked):
                    self._keys.append((now + self._delay, ANSWERS[found[0]]))
                end = max((found.end() for found in _ASKED.finditer(asked)), default=0)
                asked = asked[max(end, len(asked) - 8) :]
                with self._news:
                    self.received += len(data)
                    self._seen = (self._seen + data)[-1_000_000:]
                    self._news.notify_all()
            while open_ and self._keys and self._keys[0][0] <= now:
                os.write(self._fd, self._keys.popleft()[1])
        self.ended_at = time.monotonic()

    def close(self) -> None:
        if self.ended_at is None:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._thread.join(60)
        os.close(self._fd)


@contextmanager
def far_terminal(
    command: list[str], env: dict[str, str], rate: float | None, delay: float = 0.0
) -> Iterator[FarTerminal]:
    terminal = FarTerminal(command, env, rate, delay)
    try:
        yield terminal
    finally:
        terminal.close()

"""Rest until a time, or until a child process has ended or another thread rings."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress


class Alarm:
    """The rest of a process between two looks. Made on its main thread, once."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Python writes to the pipe when a signal with a handler arrives.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def ring(self) -> None:
        """End the rest; callable on any thread."""
        with suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def wait(self, seconds: float) -> None:
        select.select([self._reader], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)

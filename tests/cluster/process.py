"""Processes that outlive the program that started them, found again and ended by number: never
another process that got the same number later."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    started: int
    """In the kernel's ticks after its start: no two processes share number and start."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """Raises `ProcessLookupError` when there is none."""
        started = _started(pid)
        if started is None:
            raise ProcessLookupError(pid)
        return cls(pid, started)

    @property
    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def children(self) -> list[int]:
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in children.split()]

    def end(self, seconds: float = 10) -> None:
        """Politely, then for good. Returns when it is gone."""
        until = time.monotonic() + seconds
        self._send(signal.SIGTERM)
        while self.alive:
            if time.monotonic() > until:
                self._send(signal.SIGKILL)
            time.sleep(0.02)

    def _send(self, number: signal.Signals) -> None:
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


def _started(pid: int) -> int | None:
    """None: gone, or a zombie."""
    try:
        # The name, in parentheses, may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])

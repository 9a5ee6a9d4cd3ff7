"""Signals and the timeout: why a job has to end, and the process group to tell."""

from __future__ import annotations

import os
import signal

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KILL_AFTER = 5.0  # seconds between SIGTERM and SIGKILL at the timeout


class Termination:
    """Forwards signals to the process group that runs now, and records why the job has to end."""

    def __init__(self) -> None:
        self.reason: str | None = None  # "stopped", "interrupted" or "timeout" once it has to end
        self._group: int | None = None

    def install(self, timeout: float | None) -> None:
        """Handle signals, and begin to count the job's timeout in seconds."""
        for number in (*END_SIGNALS, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._forward)
        if timeout:
            signal.signal(signal.SIGALRM, self._on_timeout)
            signal.setitimer(signal.ITIMER_REAL, timeout)

    def watch(self, group: int | None) -> None:
        """Forward signals to this process group from now on; None for no group."""
        self._group = group
        if self.reason:  # the signal came while no group was running
            self._send(signal.SIGINT if self.reason == "interrupted" else signal.SIGTERM)

    def _forward(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            self.reason = self.reason or "interrupted"
        elif number in END_SIGNALS and self.reason != "timeout":
            self.reason = "stopped"  # also after an interrupt that the code survived
        self._send(number)

    def _on_timeout(self, _number: int, _frame: object) -> None:
        if self.reason != "timeout":
            self.reason = "timeout"
            signal.setitimer(signal.ITIMER_REAL, KILL_AFTER, 1.0)
            self._send(signal.SIGTERM)
        else:
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._group is not None:
            try:
                os.killpg(self._group, number)
            except OSError:
                pass

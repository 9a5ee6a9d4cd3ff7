"""Searching and filtering a growing log on threads."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.message_pump import MessagePump

from stoke.errors import StokeError
from stoke.logs.reader import Matches
from tui.threads import on_thread

PROGRESS_SECONDS = 0.1
REST_SECONDS = 0.0005
"""Pause between two chunks of a log, so that drawing gets Python's lock."""


class LogScans:
    """Keep `Matches` up to date.

    In the context of `pump`, `progressed` is called while a scan runs and when it ends, and `failed`
    when it cannot continue.
    """

    def __init__(
        self,
        pump: MessagePump,
        progressed: Callable[[Matches], object],
        failed: Callable[[Matches, StokeError], object],
    ) -> None:
        self._pump = pump
        self._progressed = progressed
        self._failed = failed
        self._running: set[Matches] = set()
        self._again: set[Matches] = set()

    def start(self, matches: Matches) -> None:
        """Scan the new part of the log, now or after the scan that is running."""
        if matches in self._running:
            self._again.add(matches)
            return
        self._running.add(matches)
        reported = time.monotonic()

        def progress() -> None:
            nonlocal reported
            time.sleep(REST_SECONDS)
            if time.monotonic() - reported >= PROGRESS_SECONDS:
                reported = time.monotonic()
                try:
                    self._pump.call_later(self._progressed, matches)
                except RuntimeError:
                    matches.cancel()  # The program is ending.

        def done(_: None) -> None:
            self._running.discard(matches)
            if matches in self._again:
                self._again.discard(matches)
                self.start(matches)
            self._progressed(matches)

        def failed(error: StokeError) -> None:
            self._running.discard(matches)
            self._again.discard(matches)
            self._failed(matches, error)

        on_thread(self._pump, lambda: matches.scan(progress), done, failed)

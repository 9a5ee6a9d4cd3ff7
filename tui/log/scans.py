"""Searching and filtering a log on threads, while it grows and the screen lives."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.message_pump import MessagePump

from stoke.errors import StokeError
from stoke.logs.reader import Matches
from tui.threads import on_thread

PROGRESS_SECONDS = 0.1
REST_SECONDS = 0.0005
"""Between two pieces of a log: whoever waits for Python's lock to draw gets it at once."""


class LogScans:
    """Keeps `Matches` up to date.

    `progressed` is called in `pump`'s context when one got further, `failed` when one cannot go on.
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
        """Looks at what the log has gained; at once, or when a scan that runs has ended."""
        if matches in self._running:
            self._again.add(matches)
            return
        self._running.add(matches)
        told = time.monotonic()

        def progress() -> None:
            nonlocal told
            time.sleep(REST_SECONDS)
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                try:
                    self._pump.call_later(self._progressed, matches)
                except RuntimeError:
                    matches.cancel()  # The program is leaving.

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

"""The terminal driver: whether the terminal has caught up, and when a key was pressed.

Between stoke and a terminal at the other end of SSH, buffers hold seconds of output, and no system call
tells how full they are. So each frame of a log ends with a request for the cursor position, which the
terminal answers when it has drawn the frame. Until then the log is not drawn again, so that the effect
of a key does not wait behind old frames.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from textual import events
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from tui import OVER_SSH
from tui.terminal.throttle import Throttle

_ASK = "\x1b[6n"
PATIENCE_SECONDS = 5.0
"""Wait no longer for an answer: a terminal multiplexer may have dropped it."""
EXIT_SECONDS = 2.0
_USER_INPUT = (events.Key, events.MouseScrollDown, events.MouseScrollUp)


class LinkDriver(LinuxDriver):
    """Also notices keys at once, on the input thread; the program may be busy for another 50 ms."""

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self.throttle = Throttle()
        self._answered = threading.Event()
        self._answered.set()
        self._asked_at = 0.0
        # None until the first answer. A terminal that does not give it is not asked again.
        self._answers: bool | None = None

    def ask(self) -> None:
        if self._answers is not False and self._answered.is_set():
            self._answered.clear()
            self._asked_at = time.monotonic()
            self.write(_ASK)

    @property
    def caught_up(self) -> bool:
        if not self._answered.is_set() and time.monotonic() - self._asked_at > PATIENCE_SECONDS:
            self._answers = self._answers or False
            self._answered.set()
        return self._answered.is_set()

    def process_message(self, message: Message) -> None:
        if isinstance(message, events.CursorPosition):
            self._answers = True
            self._answered.set()
            return
        if isinstance(message, _USER_INPUT):
            self.throttle.key_pressed()
        super().process_message(message)

    def disable_input(self) -> None:
        # A later answer would appear in the prompt of the shell.
        self._answered.wait(EXIT_SECONDS)
        super().disable_input()


def caught_up(app: App[Any]) -> bool:
    driver = app._driver
    return not isinstance(driver, LinkDriver) or driver.caught_up


def ask(app: App[Any]) -> None:
    """Ask the terminal to report when it has drawn the last frame; only over SSH."""
    driver = app._driver
    if OVER_SSH and isinstance(driver, LinkDriver):
        driver.ask()


def pause_seconds(app: App[Any]) -> float:
    """Return for how many seconds log readers should pause, because a key was pressed."""
    driver = app._driver
    return driver.throttle.left() if isinstance(driver, LinkDriver) else 0.0

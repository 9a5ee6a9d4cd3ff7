"""The terminal: whether it has caught up with what was sent to it, and when a key came from there.

Between here and a terminal at the other end of SSH, buffers hold seconds, and no system call tells how
full they are. So behind a frame the terminal is asked where its cursor is: it answers when it has got
as far. Until then the log is not drawn again, and what a key does has nothing to wait behind.
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
"""An answer that took longer is not waited for: a multiplexer may have eaten it."""
LEAVING_SECONDS = 2.0
_TO_BE_ANSWERED = (events.Key, events.MouseScrollDown, events.MouseScrollUp)


class LinkDriver(LinuxDriver):
    """Textual's driver, which asks and takes the answers, and knows of a key before the program does:
    that may be at work for another 50 ms."""

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
        # A terminal that lets the first question pass is not asked again.
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
        if isinstance(message, _TO_BE_ANSWERED):
            self.throttle.pressed()
        super().process_message(message)

    def disable_input(self) -> None:
        # An answer that comes when nobody takes it any more would stand in the shell's prompt.
        self._answered.wait(LEAVING_SECONDS)
        super().disable_input()


def caught_up(app: App[Any]) -> bool:
    driver = app._driver
    return not isinstance(driver, LinkDriver) or driver.caught_up


def ask(app: App[Any]) -> None:
    """To be called when a frame has been sent. Only a terminal behind SSH is asked."""
    driver = app._driver
    if OVER_SSH and isinstance(driver, LinkDriver):
        driver.ask()


def answering(app: App[Any]) -> float:
    """For how many seconds a key may still be being answered."""
    driver = app._driver
    return driver.throttle.left() if isinstance(driver, LinkDriver) else 0.0

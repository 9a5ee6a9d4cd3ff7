"""Blocking work on threads of our own.

Textual's thread workers share one small pool, and leaving the program waits for all of them: six
logs that block would starve every other worker and hold up the exit. These threads are daemons.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from textual.message_pump import MessagePump

from stoke.errors import StokeError

T = TypeVar("T")


class GivenUpError(StokeError):
    """Somebody ended the work from the screen."""


class Work:
    """What a piece of long work is at, and the way to end it. `on_step` is called on its thread."""

    def __init__(self, doing: str, on_step: Callable[[], object]) -> None:
        self.doing = doing
        self.step = ""
        self.given_up = False
        self._on_step = on_step

    def progress(self, step: str) -> None:
        """For the worker: says where it is. `GivenUpError` once nobody wants the rest."""
        if self.given_up:
            raise GivenUpError(f"{self.doing} was ended")
        if step != self.step:
            self.step = step
            self._on_step()

    def give_up(self) -> None:
        """Ends the work at its next step, within a second or so."""
        self.given_up = True


def answer(pump: MessagePump, callback: Callable[[], object]) -> None:
    """From any thread: runs `callback` in `pump`'s own context, unless the program is leaving: what it
    would change may be gone."""

    def call() -> None:
        if pump.app.is_running:
            callback()

    try:
        pump.call_later(call)
    except RuntimeError:
        pass  # It has left.


def on_thread(
    pump: MessagePump,
    work: Callable[[], T],
    done: Callable[[T], object],
    failed: Callable[[StokeError], object],
) -> None:
    """Runs `work` on a thread, then `done` or `failed` in `pump`'s own context.

    Any exception reaches `failed`; one that is no `StokeError` is a fault of ours and says so.
    """

    def run() -> None:
        try:
            result = work()
        except StokeError as error:
            trouble = error
            answer(pump, lambda: failed(trouble))
        except Exception as error:
            fault = StokeError(f"{type(error).__name__}: {error}", "this is a fault in stoke")
            answer(pump, lambda: failed(fault))
        else:
            answer(pump, lambda: done(result))

    # The copied context tells Textual which app the thread belongs to.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True).start()

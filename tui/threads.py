"""Blocking work on daemon threads.

Textual's thread workers share one small pool, and the end of the program waits for all of them: six
blocked logs would starve every other worker and delay the exit.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from textual.message_pump import MessagePump

from stoke.errors import StokeError

T = TypeVar("T")


class WorkCancelledError(StokeError):
    """The user cancelled the work."""


class Work:
    """Progress of long work, and the way to cancel it. `on_step` is called on the worker's thread."""

    def __init__(self, doing: str, on_step: Callable[[], object]) -> None:
        self.doing = doing
        self.step = ""
        self.cancelled = False
        self._on_step = on_step

    def progress(self, step: str) -> None:
        """Report a step; called by the worker. `WorkCancelledError` after `cancel`."""
        if self.cancelled:
            raise WorkCancelledError(f"{self.doing} was cancelled")
        if step != self.step:
            self.step = step
            self._on_step()

    def cancel(self) -> None:
        """End the work at its next step, within about a second."""
        self.cancelled = True


def call_in(pump: MessagePump, callback: Callable[[], object]) -> None:
    """Call back in the context of `pump`, from any thread.

    Do nothing while the program ends: the widgets may be removed already.
    """

    def call() -> None:
        if pump.app.is_running:
            callback()

    try:
        pump.call_later(call)
    except RuntimeError:
        pass  # The program has ended.


def on_thread(
    pump: MessagePump,
    work: Callable[[], T],
    done: Callable[[T], object],
    failed: Callable[[StokeError], object],
) -> None:
    """Run `work` on a thread, then `done` or `failed` in the context of `pump`.

    Any exception reaches `failed`; one that is no `StokeError` is reported as a bug of stoke.
    """

    def run() -> None:
        try:
            result = work()
        except StokeError as error:
            known = error
            call_in(pump, lambda: failed(known))
        except Exception as error:
            bug = StokeError(f"{type(error).__name__}: {error}", "this is a bug in stoke")
            call_in(pump, lambda: failed(bug))
        else:
            call_in(pump, lambda: done(result))

    # The copied context tells Textual which app the thread belongs to.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True).start()

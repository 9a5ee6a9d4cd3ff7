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


def on_thread(
    pump: MessagePump,
    work: Callable[[], T],
    done: Callable[[T], object],
    failed: Callable[[StokeError], object],
) -> None:
    """Runs `work` on a thread, then `done` or `failed` in `pump`'s own context.

    Any exception reaches `failed`; one that is no `StokeError` is a fault of ours and says so.
    """

    def answer(callback: Callable[[], object]) -> None:
        try:
            pump.call_later(callback)
        except RuntimeError:
            pass  # The program is leaving; there is nobody to answer.

    def run() -> None:
        try:
            result = work()
        except StokeError as error:
            trouble = error
            answer(lambda: failed(trouble))
        except Exception as error:
            fault = StokeError(f"{type(error).__name__}: {error}", "this is a fault in stoke")
            answer(lambda: failed(fault))
        else:
            answer(lambda: done(result))

    # The copied context tells Textual which app the thread belongs to.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True).start()

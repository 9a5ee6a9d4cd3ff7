"""Tell of the end of a job, in a process of its own, so that no command waits for it.

    python -P -m stoke.jobs.notify JOB_ID

A lock is held while it does, and a mark is written once it has, so a job tells of its end once, and
again only if this process is killed in between. A failure is a note of the job.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from stoke.errors import EngineError, StokeError
from stoke.files.debug import Logger
from stoke.files.file_lock import is_locked, take_lock
from stoke.files.paths import job_dir, make_private
from stoke.history.database import History, Note
from stoke.history.notifications import Notifications
from stoke.jobs import background

if TYPE_CHECKING:
    from stoke.config.model import NotifyConfig

_log = Logger(__name__)

TRY_SECONDS = 10.0
"""How long a program or a request may take."""
PAUSES = (1.0, 4.0)
"""Seconds between the tries."""
_LOCK = "notify.lock"


def notify_later(job_id: str, history: History) -> None:
    """Start the process for a job whose end is final, unless it has told of it or another one does."""
    if not Notifications(history).is_pending(job_id) or is_locked(job_dir(job_id) / _LOCK):
        return
    with suppress(OSError):  # The scheduler tries again.
        background.start("stoke.jobs.notify", job_id)


def notify(job_id: str) -> None:
    with History() as history:
        lock = take_lock(make_private(job_dir(job_id)) / _LOCK, wait=False)
        if lock is None:
            return
        try:
            job = history.get(job_id)
            if job is None or not Notifications(history).is_pending(job_id):
                return
            try:
                _tell(job_id, history)
            except Exception as error:
                _log.exception("%s: cannot tell of its end", job_id)
                why = error.what if isinstance(error, StokeError) else type(error).__name__
                history.add_note(job_id, Note("note", f"it could not tell of its end: {why}"))
            Notifications(history).set_sent(job_id)
        finally:
            os.close(lock)


def _tell(job_id: str, history: History) -> None:
    from stoke.config.loader import load_config
    from stoke.jobs.document import shown_document
    from stoke.notify.program import run_program
    from stoke.notify.webhook import post

    job = history.get(job_id)
    assert job is not None
    config = load_config().notify
    document = json.dumps(shown_document(job, history)).encode()
    command, webhook = config.command, config.webhook
    if command:
        _try(lambda: run_program(command, document, TRY_SECONDS), "command", job_id, history)
    if webhook is not None:

        def send() -> None:
            with _at_most(TRY_SECONDS):
                post(webhook, document, _headers(config), TRY_SECONDS)

        _try(send, "webhook", job_id, history)


def _headers(config: NotifyConfig) -> dict[str, str]:
    from stoke.delivery.payload import read_reference

    if config.secret is None:
        return {}
    secret = read_reference(config.secret, "notify.secret")
    if not secret.isprintable() or not secret.isascii():
        raise EngineError("notify.secret has characters that no header may have")
    return {config.header: secret}


def _try(send: Callable[[], None], what: str, job_id: str, history: History) -> None:
    """Send, three times at most; a failure becomes a note."""
    from stoke.notify.webhook import TemporaryError

    pauses = list(PAUSES)
    while True:
        try:
            return send()
        except StokeError as error:
            if isinstance(error, TemporaryError) and pauses:
                time.sleep(pauses.pop(0))
                continue
            tries = 1 + len(PAUSES) - len(pauses)
            often = f" (tried {tries} times)" if tries > 1 else ""
            text = f"notify.{what} failed: {error.what}{often}"
            history.add_note(job_id, Note("note", text, error.hint))
            return None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End what runs in the block after some seconds, also an answer that comes a byte at a time."""
    from stoke.notify.webhook import TemporaryError

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TemporaryError(f"the webhook did not answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    from stoke.files.background_log import background_log

    try:
        with background_log("notify %s", sys.argv[1]):
            notify(sys.argv[1])
    except StokeError as error:
        sys.exit(error.what)

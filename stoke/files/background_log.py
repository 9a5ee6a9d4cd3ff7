"""The debug log of a background process, which has no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stoke.errors import StokeError
from stoke.files import debug


@contextmanager
def background_log(what: str, *arguments: object) -> Iterator[None]:
    """Record start, end and failure of a background process, if the debug log is requested."""
    log, began = debug.Logger(__name__), time.monotonic()
    if debug.is_requested():
        from stoke.files.debug_log import start

        with suppress(StokeError):  # It has no terminal to report this to.
            start()
    log.debug(f"background process starts: {what}", *arguments)
    try:
        yield
    except BaseException:
        log.exception(f"background process failed: {what}", *arguments)
        raise
    log.debug(f"background process ends after {time.monotonic() - began:.3f} s: {what}", *arguments)

"""Logs that cannot be kept where they belong: shown from a folder that goes with this program.

What was kept so far is copied there, so a reader goes on where it stood.
"""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from pathlib import Path

from stoke.errors import EngineError

PARTS = ("log", "log.idx", "log.pos", "log.engine")
"""The files of a spool."""


class UnsavedLogError(EngineError):
    """A log is shown and not kept. Nothing fails by it, so it is told and never raised.

    `reason` is why, in two or three words.
    """

    def __init__(self, why: EngineError) -> None:
        shown = "this log is shown and not kept; it stays with the engine until it can be"
        super().__init__(f"{shown}: {why.what}", why.hint)
        cause = why.__cause__
        self.reason = (cause.strerror if isinstance(cause, OSError) else None) or why.what


@dataclass
class UnsavedLog:
    """`whole` says that the log was followed to its end."""

    folder: Path
    why: UnsavedLogError
    whole: bool = False


_unsaved: dict[Path, UnsavedLog] = {}


def unsaved(folder: Path) -> UnsavedLog | None:
    """The log that belongs into `folder` and is not kept there; None where it is."""
    return _unsaved.get(folder)


def stand_in(folder: Path, why: EngineError) -> UnsavedLog:
    """A temporary folder for the log that belongs into `folder`; the same at every call.

    Raises `why` where there is no room for that either.
    """
    import shutil
    import tempfile

    known = _unsaved.get(folder)
    if known is not None:
        known.why = UnsavedLogError(why)
        return known
    made: Path | None = None
    try:
        made = Path(tempfile.mkdtemp(prefix="stoke-log-"))
        for part in PARTS:
            if (folder / part).exists():
                shutil.copyfile(folder / part, made / part)
    except OSError:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise why from None
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    _unsaved[folder] = UnsavedLog(made, UnsavedLogError(why))
    return _unsaved[folder]


def kept_again(folder: Path) -> None:
    """The log is kept in `folder` from now on: readers that stand in the other one go over to it."""
    known = _unsaved.pop(folder, None)
    if known is not None:
        import shutil

        shutil.rmtree(known.folder, ignore_errors=True)

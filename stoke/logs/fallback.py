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


class UnkeptError(EngineError):
    """A log is shown and not kept. Nothing fails by it, so it is told and never raised.

    `reason` is why, in two or three words.
    """

    def __init__(self, why: EngineError) -> None:
        shown = "this log is shown and not kept; it stays with the engine until it can be"
        super().__init__(f"{shown}: {why.what}", why.hint)
        cause = why.__cause__
        self.reason = (cause.strerror if isinstance(cause, OSError) else None) or why.what


@dataclass
class Unkept:
    """`whole` says that the log was followed to its end."""

    folder: Path
    why: UnkeptError
    whole: bool = False


_unkept: dict[Path, Unkept] = {}


def unkept(folder: Path) -> Unkept | None:
    """The log that belongs into `folder` and is not kept there; None where it is."""
    return _unkept.get(folder)


def stand_in(folder: Path, why: EngineError) -> Unkept:
    """A temporary folder for the log that belongs into `folder`; the same at every call.

    Raises `why` where there is no room for that either.
    """
    import shutil
    import tempfile

    known = _unkept.get(folder)
    if known is not None:
        known.why = UnkeptError(why)
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
    _unkept[folder] = Unkept(made, UnkeptError(why))
    return _unkept[folder]


def kept_again(folder: Path) -> None:
    """The log is kept in `folder` from now on: readers that stand in the other one go over to it."""
    known = _unkept.pop(folder, None)
    if known is not None:
        import shutil

        shutil.rmtree(known.folder, ignore_errors=True)

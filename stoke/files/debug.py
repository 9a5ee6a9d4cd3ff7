"""Loggers for the debug log. They do nothing until `stoke.files.debug_log.start` is called.

`logging` is not imported here: that takes 3 ms, which every command would pay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "STOKE_DEBUG"
"""The debug log is on if this variable holds anything but 0."""

_path: Path | None = None
_secrets: set[str] = set()


class Logger:
    """The debug logger of one module, under the module's name in `logging`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str, *arguments: object) -> None:
        """Write one record; `arguments` fill the % places of `message`. Costs nothing while off."""
        if _path is not None:
            import logging

            logging.getLogger(self._name).debug(message, *arguments)

    def exception(self, message: str, *arguments: object) -> None:
        """Write one record with the traceback of the exception that is being handled."""
        if _path is not None:
            import logging

            logging.getLogger(self._name).debug(message, *arguments, exc_info=True)


def is_requested() -> bool:
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def debug_file() -> Path | None:
    """The file that records are written to; None while the debug log is off."""
    return _path


def turn_on(path: Path) -> None:
    """Let loggers write. For `stoke.files.debug_log`, which sets up `logging` first."""
    global _path
    _path = path


def turn_off() -> None:
    """Undo `turn_on` and forget the secrets, for tests."""
    global _path
    _path = None
    _secrets.clear()


def hide(secrets: Iterable[str]) -> None:
    """Mask these texts in all later records."""
    if _path is not None:
        _secrets.update(secrets)


def hidden() -> set[str]:
    return _secrets


def child_environment() -> dict[str, str] | None:
    """The environment for a background process of stoke, which logs if this one does; None for an
    unchanged one."""
    return None if _path is None else {**os.environ, VARIABLE: "1"}

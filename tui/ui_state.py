"""What the screens remember between starts, in one small JSON file each.

Each change is written at once, because a lost connection ends the program without warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stoke.errors import EngineError, StokeError
from stoke.files.atomic import write_atomically
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import parse_json, read_bytes

# A draft may hold code of the largest size with every character escaped.
LONGEST = 64 * 1024**2


def load(name: str) -> dict[str, Any]:
    """Return what was saved as `name`; an empty dictionary if nothing readable was."""
    try:
        stored = parse_json(read_bytes(state_dir() / f"{name}.json", LONGEST))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def save(name: str, values: dict[str, Any]) -> None:
    """Replace what is saved as `name`, atomically. `EngineError` if it cannot be written."""
    folder = make_private(state_dir())
    try:
        # A lone surrogate from a paste survives as \udXXX.
        write_atomically(folder / f"{name}.json", json.dumps(values))
    except OSError as error:
        raise EngineError(
            f"cannot keep the {name} in {folder}: {error.strerror}",
            "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
        ) from error


class UiState:
    """Screen, theme, columns and the like, as they were left. `failed` gets errors of saving."""

    def __init__(self, failed: Callable[[StokeError], object]) -> None:
        self._values = load("screens")
        self._failed = failed

    def get(self, name: str) -> Any:
        """Return a stored value, unchecked; None if there is none."""
        return self._values.get(name)

    def set(self, **values: object) -> None:
        self._values.update(values)
        try:
            save("screens", self._values)
        except StokeError as error:
            self._failed(error)

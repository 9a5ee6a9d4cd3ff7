"""What the screens keep between starts, one small JSON file each, written as it happens: a lost
connection ends the program at once."""

from __future__ import annotations

import json
import os
from typing import Any

from stoke.errors import EngineError
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import parse_json, read_bytes

# A draft holds code at its largest, every character of it escaped.
LONGEST = 64 * 1024**2


def load(name: str) -> dict[str, Any]:
    """What was kept as `name`; nothing where there is none that can be read."""
    try:
        stored = parse_json(read_bytes(state_dir() / f"{name}.json", LONGEST))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def save(name: str, values: dict[str, Any]) -> None:
    """Written aside and renamed, so that it is the old one or the new one. `EngineError` if not."""
    folder = make_private(state_dir())
    aside = folder / f"{name}.json.{os.getpid()}"
    try:
        # A lone surrogate from a paste survives as \udXXX.
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(values, file)
        aside.replace(folder / f"{name}.json")
    except OSError as error:
        raise EngineError(
            f"cannot keep the {name} in {folder}: {error.strerror}",
            "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
        ) from error

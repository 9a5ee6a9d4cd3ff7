"""New job's draft on disk, written as it is typed: a lost connection ends the program at once."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from stoke.errors import EngineError
from stoke.paths import make_private, state_dir


@dataclass
class Draft:
    code: str = ""
    backend: str | None = None
    use_cache: bool = True
    values: dict[str, str] = field(default_factory=dict)


def load() -> Draft:
    """The draft as it was left; an empty one where there is none that can be read."""
    try:
        stored = json.loads((state_dir() / "draft.json").read_text())
        values = {str(name): str(value) for name, value in stored["values"].items()}
        backend = stored["backend"]
        return Draft(
            str(stored["code"]),
            None if backend is None else str(backend),
            bool(stored["use_cache"]),
            values,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Draft()


def save(draft: Draft) -> None:
    """Written aside and renamed, so that it is the old one or the new one. `EngineError` if not."""
    folder = make_private(state_dir())
    aside = folder / f"draft.json.{os.getpid()}"
    try:
        # A lone surrogate from a paste survives as \udXXX.
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(draft), file)
        aside.replace(folder / "draft.json")
    except OSError as error:
        raise EngineError(
            f"cannot keep the draft in {folder}: {error.strerror}",
            "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
        ) from error

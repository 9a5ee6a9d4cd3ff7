"""The drafts of the New job screen, each saved as it is typed and there at the next start.

Each is a file in the state folder. A process locks the one that it edits, so that two processes do not
overwrite each other's text.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from stoke.files.file_lock import is_locked, take_lock
from stoke.files.paths import make_private, state_dir
from stoke.request.fields import FIELDS
from stoke.request.values import Flag
from tui import ui_state

_FIRST = "draft"
_NAME = re.compile(r"draft(-[0-9]{1,6})?")
_FLAGS = (one.name for one in FIELDS if isinstance(one.value, Flag))
_DEFAULTED = frozenset({"scope", "recorded", "no_folder", "no_dev", *_FLAGS})
"""Fields that hold something in an empty form."""


@dataclass
class Draft:
    code: str = ""
    backend: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    """The texts of the fields, by name."""
    rest: dict[str, Any] = field(default_factory=dict)
    """The JSON of what an opened request sets and the form has no field for, and its project."""
    script: str = ""
    """The file that the code is from; empty for code that was typed."""


def load(name: str = _FIRST) -> Draft:
    """Return the saved draft; an empty one where none can be read."""
    stored = ui_state.load(name)
    try:
        values = {str(name): str(value) for name, value in stored["values"].items()}
        backend = stored["backend"]
        return Draft(
            str(stored["code"]),
            None if backend is None else str(backend),
            values,
            dict(stored.get("rest", {})),
            str(stored.get("script", "")),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return Draft()


def save(draft: Draft, name: str = _FIRST) -> None:
    """Save the draft. `EngineError` where the state folder cannot be written."""
    ui_state.save(name, asdict(draft))


def names() -> list[str]:
    """Return the names of the saved drafts that hold something, the one changed last first."""
    found = [path for path in state_dir().glob("draft*.json") if _NAME.fullmatch(path.stem)]
    found.sort(key=_changed, reverse=True)
    return [path.stem for path in found if _holds_something(path.stem)]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _holds_something(name: str) -> bool:
    draft = load(name)
    texts = (text for field, text in draft.values.items() if field not in _DEFAULTED)
    return bool(draft.code.strip() or any(text.strip() for text in texts))


def is_open(name: str) -> bool:
    """Return whether a process edits this draft."""
    return is_locked(_lock_file(name))


def remove(name: str) -> None:
    """Remove a draft, unless a process edits it."""
    if not is_open(name):
        (state_dir() / f"{name}.json").unlink(missing_ok=True)


def _lock_file(name: str) -> Path:
    return state_dir() / f"{name}.lock"


class DraftSlot:
    """The draft that this process edits: the preferred one, or an empty one if that is open."""

    def __init__(self, preferred: object) -> None:
        is_name = isinstance(preferred, str) and _NAME.fullmatch(preferred)
        self.name = str(preferred) if is_name else _FIRST
        self._lock: int | None = None
        if not self.change(self.name):
            self.change(None)

    def change(self, name: str | None) -> bool:
        """Edit this draft from now on, or an empty one; return False if another process has it."""
        numbers = (f"{_FIRST}-{number}" for number in count(2))
        wanted = [name] if name else (one for one in numbers if not _holds_something(one))
        for one in wanted:
            try:
                make_private(state_dir())
                lock = take_lock(_lock_file(one), wait=False)
            except OSError:
                lock = None  # Saving will report why nothing can be written.
            else:
                if lock is None:
                    continue
            self.close()
            self.name, self._lock = one, lock
            return True
        return False

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

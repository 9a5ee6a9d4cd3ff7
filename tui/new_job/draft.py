"""The draft of the New job screen, which is saved as it is typed and is there at the next start."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tui import ui_state


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


def load() -> Draft:
    """Return the saved draft; an empty one where none can be read."""
    stored = ui_state.load("draft")
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


def save(draft: Draft) -> None:
    """Save the draft. `EngineError` where the state folder cannot be written."""
    ui_state.save("draft", asdict(draft))

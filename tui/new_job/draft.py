"""New job's draft: what was typed is there again at the next start."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tui import ui_state


@dataclass
class Draft:
    code: str = ""
    backend: str | None = None
    use_cache: bool = True
    values: dict[str, str] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)
    """What the request that was opened says and the form has no field for."""
    locked: bool = False
    """Whether the requirements are a complete lock."""


def load() -> Draft:
    """The draft as it was left; an empty one where there is none that can be read."""
    stored = ui_state.load("draft")
    try:
        values = {str(name): str(value) for name, value in stored["values"].items()}
        backend = stored["backend"]
        return Draft(
            str(stored["code"]),
            None if backend is None else str(backend),
            bool(stored["use_cache"]),
            values,
            dict(stored.get("rest", {})),
            bool(stored.get("locked", False)),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return Draft()


def save(draft: Draft) -> None:
    """`EngineError` where it cannot be kept."""
    ui_state.save("draft", asdict(draft))

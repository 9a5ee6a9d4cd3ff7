"""Find workspaces by name, and suggest similar names for one that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stoke.errors import EngineError, RequestError

if TYPE_CHECKING:
    from stoke.backend.capabilities import KeepsWorkspaces, Workspace


def find_workspace(name: str, there: Iterable[Workspace], backend: str | None) -> Workspace:
    """Return the workspace `name` among those of a backend, or of all; `RequestError` suggests similar
    names."""
    found = {one.name: one for one in there}
    if name in found:
        return found[name]
    near = similar(name, found)
    hint = f"did you mean {' or '.join(near)}? See: stoke workspace list"
    raise RequestError(
        "workspace",
        f"the {backend} backend has no workspace {name}"
        if backend
        else f"no backend has a workspace {name}",
        hint if near else "see: stoke workspace list",
    )


def similar(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three of the names that `name` may be a misspelling or a beginning of."""
    from difflib import get_close_matches

    names = sorted(names)
    starts = [one for one in names if one.startswith(name)]
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    return list(dict.fromkeys([*close, *starts]))[:3]


def note_if_new(name: str, backend: KeepsWorkspaces) -> str | None:
    """Return a note for a job whose workspace does not exist yet: its name may be mistyped."""
    try:
        there = [one.name for one in backend.workspaces()]
    except EngineError:
        return None  # Submitting reports the reason.
    if name in there:
        return None
    near = similar(name, there)
    return f"workspace {name}: new" + (f" (there is {' and '.join(near)})" if near else "")

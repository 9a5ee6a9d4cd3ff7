"""Style sheets: one for each screen, and base.tcss for all."""

from __future__ import annotations

from pathlib import Path

FIRST = ("base", "jobs")
"""The sheets of the first frame; parsing the others would delay it."""
LATER = ("dialogs", "new_job", "caches", "metrics", "race")


def stylesheet(*names: str) -> str:
    """Return these sheets as one. `tui.palette` defines the colours that are not Textual's."""
    folder = Path(__file__).parent
    return "\n".join((folder / f"{name}.tcss").read_text() for name in names)

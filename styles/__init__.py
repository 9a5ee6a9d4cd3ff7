"""How it looks: one sheet a screen, what they share in base.tcss."""

from __future__ import annotations

from pathlib import Path

SHEETS = ("base", "dialogs", "jobs", "new_job", "caches", "metrics", "race")


def stylesheet() -> str:
    """All sheets as one. Textual keeps a sheet's variables to itself, so they are joined: those of
    base.tcss hold in every other."""
    folder = Path(__file__).parent
    return "\n".join((folder / f"{name}.tcss").read_text() for name in SHEETS)

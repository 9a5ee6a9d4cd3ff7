"""How it looks: one sheet a screen, what they share in base.tcss."""

from __future__ import annotations

from pathlib import Path

FIRST = ("base", "jobs")
"""What the first frame needs; parsing the rest would hold it up."""
LATER = ("dialogs", "new_job", "caches", "metrics", "race")


def stylesheet(*names: str) -> str:
    """These sheets as one. Textual keeps a sheet's variables to itself, so those that all of them use
    are put in front."""
    folder = Path(__file__).parent
    return "\n".join((folder / f"{name}.tcss").read_text() for name in ("variables", *names))

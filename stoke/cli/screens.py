"""Open the screens: `stoke` without a command."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from stoke.errors import RequestError

if TYPE_CHECKING:
    from stoke.race.recording import Recording

# The only module of the command line that imports the screens, and with them Textual.


def keys_file() -> str:
    """Return a keys.toml with every action of the screens."""
    from tui import app

    return app.keys_file()


def can_open() -> bool:
    """Return whether the terminal can draw the screens."""
    # Textual draws on stderr.
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(one.isatty() for one in streams) and os.environ.get("TERM") != "dumb"


def open_screens(recording: Recording | None = None) -> int:
    """Open the screens, with `recording` on the Race screen, and return their exit code."""
    if not can_open():
        raise RequestError(
            "terminal",
            "the screens need a terminal that can draw",
            "use the commands: stoke --help",
        )
    # These variables are stale after a resize; the terminal itself knows its size.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # Objects made before the first frame stay alive; the screens turn the garbage collector on again.
    gc.disable()
    from stoke.files.paths import is_configured
    from tui.app import run

    if not is_configured():
        # Without settings, loading the configuration would only delay the first frame.
        return run(None, recording)
    from stoke.config.loader import load_config

    return run(load_config(), recording)

"""`stoke` without a command: the screens."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from stoke.errors import RequestError

if TYPE_CHECKING:
    from stoke.race.recording import Recording

# The command line's only door to the screens; nothing else may load Textual.


def keys_file() -> str:
    """A keys.toml with every action of the screens."""
    from tui import app

    return app.keys_file()


def can_open() -> bool:
    """Whether this is a terminal that can draw them."""
    # Textual draws on stderr.
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(one.isatty() for one in streams) and os.environ.get("TERM") != "dumb"


def open_screens(recording: Recording | None = None) -> int:
    """Opens the screens, on a recorded race if there is one, and returns when they are left."""
    if not can_open():
        raise RequestError(
            "terminal", "the screens need one that can draw", "use the commands: stoke --help"
        )
    # The terminal knows its size, also when that changes; a shell or a parent only knew it once.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # What is made on the way to the first frame stays; the screens put looking for garbage on again.
    gc.disable()
    from stoke.files.paths import is_configured
    from tui.app import run

    if not is_configured():
        # Checking settings that nobody made would hold the first frame up.
        return run(None, recording)
    from stoke.config.loader import load_config

    return run(load_config(), recording)

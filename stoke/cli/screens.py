"""`stoke` without a command: the screens."""

from __future__ import annotations

import os
import sys

from stoke.errors import RequestError

# The command line's only door to the screens; nothing else may load Textual.


def keys_file() -> str:
    """A keys.toml with every action of the screens."""
    from tui import app

    return app.keys_file()


def open_screens() -> int:
    """Opens the screens, and returns when they are left."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise RequestError(
            "terminal", "the screens need one that can draw", "use the commands: stoke --help"
        )
    from stoke.paths import is_configured
    from tui.app import run

    if not is_configured():
        # Checking settings that nobody made would hold the first frame up.
        return run(None)
    from stoke.config import load_config

    return run(load_config())

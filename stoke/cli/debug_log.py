"""Turn on the debug log of a command, and record how stoke was called."""

from __future__ import annotations

import sys

from stoke.errors import StokeError
from stoke.files import debug

_log = debug.Logger(__name__)

GROUPS = ("cache", "setup", "render")
"""Commands whose next word names what to do."""


def start_debug_log() -> None:
    """Turn the debug log on. A log that cannot be written is reported, and stops no command."""
    from stoke.files.debug_log import start

    try:
        start()
    except StokeError as error:
        from stoke.cli.output import print_error

        print_error(error.what, error.hint)
    _log.debug("start: %s", " ".join(["stoke", *_harmless_words()]))


def _harmless_words() -> list[str]:
    """Return the command and the names of its options. All other words may be secrets."""
    words, commands = [], 0
    for word in sys.argv[1:]:
        if word.startswith("--"):
            words.append(word.partition("=")[0])
        elif word.startswith("-"):
            words.append(word[:2])
        elif commands == 0 or (commands == 1 and words[-1] in GROUPS):
            commands += 1
            words.append(word[:20])
    return words

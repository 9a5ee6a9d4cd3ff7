"""Run the screens at a terminal of their own: `python -m stoke.serve.terminal ROWS COLUMNS`.

A process between the server and the screens. Its stdin carries the frames of `stoke.remote.session`,
its stdout what the screens write. The end of stdin, also when the server is killed, ends the screens
and every program at their terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from stoke.remote.session import Child, Frames, Relay

# -P: a PYTHONPATH of the user may hold other packages called `tui` or `backends`.
_SCREENS = ("-P", "-c", "from stoke.cli.main import program; program()")
# They describe the terminal and the desktop that the server was started at, or a multiplexer there.
_NOT_PASSED_ON = frozenset(
    {
        "COLUMNS", "LINES", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TMUX", "TMUX_PANE", "STY",
        "DISPLAY", "WAYLAND_DISPLAY", "SSH_TTY", "SSH_CONNECTION", "SSH_CLIENT", "VTE_VERSION",
    }
)  # fmt: skip


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the screens, from those of the server."""
    passed_on = {name: value for name, value in given.items() if name not in _NOT_PASSED_ON}
    return {
        "TEXTUAL_FPS": "30",
        **passed_on,
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "STOKE_IN_BROWSER": "1",
    }


def main() -> int:
    rows, columns = sys.argv[1:]
    size = {"rows": int(rows), "columns": int(columns)}
    child = Child(sys.executable, [sys.executable, *_SCREENS], environment(os.environ), size)
    code = Relay(child, Frames(None), None).run()
    return 0 if code is None else code


if __name__ == "__main__":
    os._exit(main())

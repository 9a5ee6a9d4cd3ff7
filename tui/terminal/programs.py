"""Programs that the user's environment names: $PAGER, $VISUAL and $EDITOR, which need the terminal, and
those of the desktop."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from stoke.errors import EngineError

# How an editor takes the line to begin at.
_PLUS_LINE = ("vi", "vim", "nvim", "nano", "emacs", "emacsclient", "joe", "micro", "kak", "less")
_COLON_LINE = ("hx", "helix", "subl")


class Program(NamedTuple):
    """`variable` is the one that names this program, or would."""

    kind: str
    variable: str
    command: list[str]

    def open(self, path: Path, line: int | None = None) -> None:
        """Open a file and wait for the program to end. `EngineError` if it fails.

        An editor that is known to take a line begins there.
        """
        try:
            subprocess.run([*self.command, *self._at(path, line)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise EngineError(
                f"the {self.kind} {shlex.join(self.command)} failed: {error}",
                f"name another: export {self.variable}=...",
            ) from error

    def _at(self, path: Path, line: int | None) -> list[str]:
        name = Path(self.command[0]).name
        if line is None or name not in (*_PLUS_LINE, *_COLON_LINE):
            return [str(path)]
        return [f"+{line}", str(path)] if name in _PLUS_LINE else [f"{path}:{line}"]


def editor() -> Program:
    """Return the user's editor. `EngineError` if there is none."""
    variable = "VISUAL" if os.environ.get("VISUAL") else "EDITOR"
    return _program("editor", variable, "nano", "vi")


def pager() -> Program:
    """Return the user's pager. `EngineError` if there is none."""
    return _program("pager", "PAGER", "less", "more")


def open_with_system(path: Path) -> None:
    """Open a file with the program that the desktop has for it, and do not wait for its end.

    `EngineError` where there is no desktop.
    """
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    has_screen = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if opener is None or not has_screen:
        raise EngineError(
            f"no desktop program can open {path.name} here", "copy it out, or copy its path: y"
        )
    nothing = subprocess.DEVNULL
    subprocess.Popen(
        [opener, str(path)], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
    )


def _program(kind: str, variable: str, *fallbacks: str) -> Program:
    if wanted := os.environ.get(variable):
        return Program(kind, variable, shlex.split(wanted))
    for name in fallbacks:
        if shutil.which(name):
            return Program(kind, variable, [name])
    raise EngineError(
        f"no {kind} is set, and neither {' nor '.join(fallbacks)} is installed",
        f"export {variable}=...",
    )

"""Programs that need the terminal, and those of the desktop.

The user's environment names some ($PAGER, $VISUAL, $EDITOR); another is a shell inside a job.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from stoke.errors import EXIT_ENGINE, EngineError
from stoke.text.sanitize import clean

# -P: a PYTHONPATH of the user may hold other packages called `tui` or `backends`.
_STOKE = "from stoke.cli.main import program; program()"

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
    wanted = os.environ.get(variable, "")
    try:
        command = shlex.split(wanted)
    except ValueError as error:
        raise EngineError(
            f"the {kind} in ${variable} is no command: {clean(wanted)} ({error})",
            f"name another: export {variable}=...",
        ) from error
    if command and command[0]:
        return Program(kind, variable, command)
    for name in fallbacks:
        if shutil.which(name):
            return Program(kind, variable, [name])
    raise EngineError(
        f"no {kind} is set, and neither {' nor '.join(fallbacks)} is installed",
        f"export {variable}=...",
    )


def open_shell(job_id: str) -> None:
    """Run `stoke exec` at this terminal until it ends. Raises `EngineError` if it cannot run."""
    _step_aside(f"a shell in {clean(job_id)}", ["-c", _STOKE, "exec", job_id])


def open_new_shell(request: bytes) -> None:
    """Run a `PassedRequest` that opens a shell, until that ends. Raises `EngineError`."""
    reader, writer = os.pipe()

    def pass_on() -> None:
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(request)
        except BrokenPipeError:
            pass  # Its program has ended, and said why.

    # On a thread: a request may be larger than what a pipe holds.
    threading.Thread(target=pass_on, daemon=True).start()
    try:
        _step_aside("a shell", ["-m", "stoke.cli.passed_request", str(reader)], reader)
    finally:
        os.close(reader)


def _step_aside(what: str, arguments: list[str], *inherited: int) -> None:
    command = [sys.executable, "-P", *arguments]
    sys.stdout.write(f"stoke: {what}; its end brings the screens back\n")
    sys.stdout.flush()
    # Ctrl+c before the shell has started ends only that program.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        done = subprocess.run(command, check=False, pass_fds=inherited)
    except OSError as error:
        raise EngineError(f"cannot run {command[0]}: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if done.returncode == EXIT_ENGINE:
        # Its message would be gone with the screens.
        input("press enter to go back ")

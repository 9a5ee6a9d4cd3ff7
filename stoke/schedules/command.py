"""The command that runs a schedule, as a crontab or a unit has it, and the programs that take these."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stoke.errors import EngineError
from stoke.files.paths import state_dir
from stoke.text.sanitize import clean

SECONDS = 30
"""How long systemctl and crontab may take."""


def run_words(name: str) -> list[str]:
    """Return the command that runs a schedule; it prints only errors. `name` is a checked one.

    Raises `EngineError` if a path in it cannot be written into a crontab or a unit.
    """
    return [check_path(own_program()), "schedule", "run", "--quiet", name]


def state_assignment() -> str:
    """Return the variable that a run needs to find its schedule. Raises as `run_words` does."""
    return f"STOKE_STATE_DIR={check_path(str(state_dir()))}"


def own_program() -> str:
    """Return the absolute path of the `stoke` that runs."""
    started = Path(sys.argv[0]).absolute()
    if started.name == "stoke" and os.access(started, os.X_OK):
        return str(started)
    return str(Path(sys.executable).with_name("stoke"))


def check_path(path: str) -> str:
    if not path.isprintable():
        raise EngineError(
            f"the path {path!r} has characters that neither a crontab nor a unit can hold",
            "rename it, or name another state folder: export STOKE_STATE_DIR=/some/folder",
        )
    return path


def run_program(words: list[str], data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run systemctl or crontab to its end. Raises `EngineError` if it cannot be run."""
    try:
        return subprocess.run(
            words,
            input=data if data is not None else b"",
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{words[0]} has not ended after {SECONDS} s") from None
    except OSError as error:
        raise EngineError(f"{words[0]} cannot be started: {error.strerror}") from error


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what a program wrote on stderr, in one line, or its exit code."""
    text = clean(done.stderr.decode(errors="replace").strip())
    return text or f"exit code {done.returncode}"

"""The programs that run inside jobs, as files that a test can start."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from stoke.remote.bundle import housekeeping_source, runner_source

_FOLDER = tempfile.TemporaryDirectory(prefix="stoke-programs-")


@cache
def runner_file() -> str:
    """Return the path of a runner with all of its parts."""
    path = Path(_FOLDER.name, "runner.py")
    path.write_bytes(runner_source())
    return str(path)


@cache
def housekeeping_file(kind: str) -> str:
    """Return the path of the program for volumes of this kind; for an unknown kind, of another."""
    kind = kind if kind in ("python", "system") else "python"
    path = Path(_FOLDER.name, f"housekeeping-{kind}.py")
    path.write_bytes(housekeeping_source(kind))
    return str(path)

"""A warm local job, against a warm `uv run --with` of the same code and packages."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure import IMPORTS, PACKAGES, STOKE, own_home, pairs, report, seconds


def main() -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    python = getattr(sys, "_base_executable", sys.executable)
    named = [word for package in PACKAGES for word in ("--with", package)]
    ours_command = [STOKE, "run", "-q", *named, "-c", IMPORTS]
    theirs_command = [uv, "run", "--no-project", "--quiet", "--python", python, *named]
    theirs_command += ["python", "-c", IMPORTS]
    with own_home() as env:
        ours, theirs, ratio = pairs(
            lambda: seconds(ours_command, env), lambda: seconds(theirs_command, env), 11
        )
    report("local, warm: stoke run", ours, theirs, ratio, 1.2)

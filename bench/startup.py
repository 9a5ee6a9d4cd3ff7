"""`stoke --help` and `stoke jobs`, against Python with click and sqlite3 loaded."""

from __future__ import annotations

import sys

from bench.measure import STOKE, own_home, pairs, report, seconds


def main() -> None:
    floor = [sys.executable, "-c", "import click, sqlite3"]
    with own_home() as env:
        seconds([STOKE, "run", "-q", "-c", "pass"], env)
        for command in ("--help", "jobs"):
            ours, theirs, ratio = pairs(
                lambda command=command: seconds([STOKE, command], env),  # type: ignore[misc]
                lambda: seconds(floor, env),
                21,
            )
            report(f"startup: stoke {command}", ours, theirs, ratio, 2.0)

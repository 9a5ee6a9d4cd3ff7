"""A warm local job with a trivial program, against `uv run --with` of the same program.

Compares the minimum of many runs of each side, because other programs on the machine only add time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure import STOKE, own_home, report, seconds

RUNS = 31


def main() -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    python = getattr(sys, "_base_executable", sys.executable)
    code = ["-c", "print(1)"]
    ours = [STOKE, "run", "-q", "-w", "six", *code]
    theirs = [uv, "run", "--no-project", "--quiet", "--python", python, "--with", "six", "python"]
    with own_home() as env:
        pairs = [
            (seconds(ours, env), seconds([*theirs, *code], env)) for _ in range(RUNS + 1)
        ]  # The first fills both caches.
    least_ours, least_theirs = (min(side) for side in zip(*pairs[1:], strict=True))
    report("trivial job, warm: stoke run", least_ours, least_theirs, least_ours / least_theirs, 1.2)


if __name__ == "__main__":
    main()

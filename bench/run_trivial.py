"""A warm local job with a trivial program, against `uv run --with` of the same program.

Compares the minimum of many runs of each command, because other programs on the machine only add time.
uv is measured as a user types it, and with `--python`, which spares it the search for an interpreter.
The commands run in an empty folder: in a project, stoke would also send its files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure import STOKE, own_home, report, seconds

RUNS = 31
MODELS = "import stoke.config.model, stoke.request.spec"


def main() -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    python = getattr(sys, "_base_executable", sys.executable)
    uv_run = [uv, "run", "--no-project", "--quiet", "--with", "six"]
    code = ["-c", "print(1)"]
    commands = [
        [STOKE, "run", "-q", "-w", "six", *code],
        [*uv_run, "python", *code],
        [*uv_run, "--python", python, "python", *code],
        [sys.executable, "-c", MODELS],
        [sys.executable, "-c", "import re, typing"],
    ]
    with own_home() as env:
        empty = Path(env["STOKE_STATE_DIR"]).with_name("empty")
        empty.mkdir()
        rounds = [[seconds(command, env, empty) for command in commands] for _ in range(RUNS + 1)]
    # The first round fills both caches.
    ours, theirs, theirs_given, models, bare = (
        min(times) for times in zip(*rounds[1:], strict=True)
    )
    report("trivial job, warm: stoke run, uv run", ours, theirs, ours / theirs, 1.2)
    ratio = ours / theirs_given
    report("trivial job, warm: stoke run, uv run --python", ours, theirs_given, ratio, 1.2)
    without = ours - (models - bare)
    print(
        f"trivial job, warm: {models - bare:.3f} s of it load pydantic and the models that check a "
        f"request; without them it would be {without / theirs:.2f} x of uv run",
        flush=True,
    )


if __name__ == "__main__":
    main()

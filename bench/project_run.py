"""A job of a locked uv project whose code was just edited, against `uv run` in that project.

Compares the minimum of many runs of each command, because other programs on the machine only add time.
Each run edits a line first; the environments of both are warm.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from bench.measure import STOKE, own_home, report, seconds

RUNS = 21


def main() -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    commands = [STOKE, "run", "-q", "main.py"], [uv, "run", "--quiet", "main.py"]
    edits = count()
    with own_home() as env, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pyproject.toml").write_text(
            '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.9"\n'
            'dependencies = ["six", "attrs", "click"]\n'
        )
        subprocess.run([uv, "lock", "--quiet"], cwd=root, env=env, check=True)

        def edited(command: list[str]) -> float:
            (root / "main.py").write_text(f"import six\nprint({next(edits)})\n")
            return seconds(command, env, cwd=root)

        rounds = [[edited(command) for command in commands] for _ in range(RUNS + 1)]
        # The first round fills both caches.
        ours, theirs = (min(times) for times in zip(*rounds[1:], strict=True))
        report("edited uv project, warm: stoke run, uv run", ours, theirs, ours / theirs, 1.2)
        added = _reading(root, env)
        limit = _limit(env)
    report("reading the project, warm: seconds, of 0.015", added, 0.015, added / 0.015, 1.0)
    # uv is a compiled program and starts one interpreter, that of the code. stoke starts its own, the
    # supervisor's, which outlives it, and the code's.
    print(
        f"of these {ours:.3f} s at least {limit:.3f} s are three interpreters, click and pydantic: "
        f"{limit / theirs:.2f} x without anything of stoke's own",
        flush=True,
    )


def _limit(env: dict[str, str]) -> float:
    """Return the seconds of what `stoke run` cannot do without."""
    starts = [
        min(seconds([sys.executable, *words], env) for _ in range(RUNS))
        for words in (
            ["-c", "import click, pydantic; pydantic.BaseModel"],
            ["-I", "-S", "-c", "pass"],
            ["-c", "pass"],
        )
    ]
    return sum(starts)


def _reading(root: Path, env: dict[str, str]) -> float:
    """Return the seconds that a command spends on the project, imports included."""
    code = (
        "import sys, time, stoke.config.defaults, stoke.jobs.request, stoke.request.sources\n"
        "began = time.perf_counter()\n"
        "from stoke.project.environment import ProjectOptions\n"
        "from stoke.project.request_additions import environment_for_request\n"
        "environment_for_request({'code': '1'}, sys.argv[1], sys.argv[1], ProjectOptions())\n"
        "print(time.perf_counter() - began)"
    )
    times = []
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", code, str(root)], env=env, capture_output=True, check=True
        )
        times.append(float(done.stdout))
    return min(times)


if __name__ == "__main__":
    main()

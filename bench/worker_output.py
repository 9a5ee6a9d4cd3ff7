"""The cost of live output: byte-by-byte and line-by-line writers in a job, against the same in a pipe.

The first is the case that must be cheap: json.dump to stdout writes a few bytes at a time. The second
is what living by the line costs, for the record: each line is a write of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench.measure import STOKE, own_home, pairs, report

DUMP = (
    "import json, sys\n"
    "rows = [{'id': i, 'name': 'item %d' % i, 'tags': ['a', 'b']} for i in range(400_000)]\n"
    "json.dump({'rows': rows}, sys.stdout)\n"
)
PRINTS = "for i in range(1_000_000): print('line', i)\n"


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Return the wall seconds of a command whose output is read through a pipe."""
    start = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        subprocess.run(["cat"], stdin=writer.stdout, stdout=subprocess.DEVNULL, check=True)
    if writer.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {writer.returncode}")
    return time.perf_counter() - start


def main() -> None:
    python = getattr(sys, "_base_executable", sys.executable)
    with own_home() as env:
        for claim, code, limit in (
            ("local, json.dump to stdout: stoke run", DUMP, 1.5),
            ("local, a million prints: stoke run", PRINTS, 12.0),
        ):
            script = Path(env["STOKE_STATE_DIR"]).with_name("script.py")
            script.write_text(code)
            ours, theirs, ratio = pairs(
                partial(seconds, [STOKE, "run", "-q", str(script)], env),
                partial(seconds, [python, str(script)], env),
                5,
            )
            report(claim, ours, theirs, ratio, limit)

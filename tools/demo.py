"""Run the main job cold and then warm on this machine: numpy and pandas, downloaded and then cached.

Runs the real command in the scope `demo`, whose caches are cleared first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).parent.parent
STOKE = str(TOP / ".venv/bin/stoke")
SCOPE = "demo"
SCRIPT = str(TOP / "examples/numpy_pi.py")


def stoke(*words: str) -> str:
    done = subprocess.run([STOKE, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"demo: stoke {' '.join(words)} ended with {done.returncode}")
    return done.stdout.decode()


def run(title: str) -> dict[str, Any]:
    print(f"\n--- {title}: stoke run --no-folder examples/numpy_pi.py", flush=True)
    document: dict[str, Any] = json.loads(
        stoke("run", "--json", "-b", "local", "--scope", SCOPE, "--no-folder", SCRIPT)
    )
    return document


def main() -> None:
    if any(volume["scope"] == SCOPE for volume in json.loads(stoke("cache", "ls", "--json"))):
        stoke("cache", "clear", "-b", "local", "--scope", SCOPE, "--yes")
    cold = run("cold, with an empty cache")
    warm = run("warm, the same job again")
    print(f"\n{'phase':<10}{'cold':>12}{'warm':>12}")
    totals = {"cold": 0.0, "warm": 0.0}
    for phase in warm["phases"]:
        name = phase["name"]
        seconds = {
            kind: next(p["seconds"] for p in job["phases"] if p["name"] == name)
            for kind, job in (("cold", cold), ("warm", warm))
        }
        print(f"{name:<10}{seconds['cold'] * 1000:>9.1f} ms{seconds['warm'] * 1000:>9.1f} ms")
        if name in ("lock", "system", "python"):
            totals = {kind: totals[kind] + seconds[kind] for kind in totals}
    print(f"{'whole job':<10}{cold['seconds'] * 1000:>9.1f} ms{warm['seconds'] * 1000:>9.1f} ms")
    print(
        f"\nthe environment: {totals['cold']:.2f} s cold, {totals['warm'] * 1000:.1f} ms warm: "
        f"{totals['cold'] / totals['warm']:.0f} x faster; "
        f"the whole job {cold['seconds'] / warm['seconds']:.1f} x"
    )


if __name__ == "__main__":
    main()

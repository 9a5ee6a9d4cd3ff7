"""Helpers of the benchmarks: interleaved pairs, medians, and an empty home folder."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STOKE = str(Path(sys.executable).with_name("stoke"))
PACKAGES = ("numpy", "pandas", "requests", "scikit-learn")
IMPORTS = "import numpy, pandas, requests, sklearn; print(sklearn.__version__)"


def seconds(
    command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None
) -> float:
    """Return the wall seconds of one run. A failing command ends the benchmark with its output."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    taken = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout.decode()}")
    return taken


def pairs(
    ours: Callable[[], float], theirs: Callable[[], float], count: int
) -> tuple[float, float, float]:
    """Return (our median, their median, median of the ratios) of interleaved pairs, after one warm-up
    run of each. The order within a pair alternates."""
    ours()
    theirs()
    mine, other = [], []
    for number in range(count):
        if number % 2:
            other.append(theirs())
            mine.append(ours())
        else:
            mine.append(ours())
            other.append(theirs())
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    return statistics.median(mine), statistics.median(other), statistics.median(ratios)


def report(claim: str, ours: float, theirs: float, ratio: float, limit: float) -> None:
    """Print the claim, both sides, the ratio and its limit."""
    verdict = "ok" if ratio <= limit else "NOT REACHED"
    print(
        f"{claim}: {ours:.3f} s against {theirs:.3f} s = {ratio:.2f} x (<= {limit}) {verdict}",
        flush=True,
    )


@contextmanager
def own_home() -> Iterator[dict[str, str]]:
    """Give an environment without a history, a cache or a configuration of stoke."""
    with tempfile.TemporaryDirectory(prefix="stoke-bench-", ignore_cleanup_errors=True) as folder:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        env |= {
            "STOKE_STATE_DIR": f"{folder}/state",
            "STOKE_CACHE_DIR": f"{folder}/cache",
            "STOKE_CONFIG": f"{folder}/config.toml",
            "UV_CACHE_DIR": f"{folder}/uv",
        }
        yield env

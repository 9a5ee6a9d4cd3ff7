"""Sweeps on this machine: the time of a task that does nothing, and a sweep of ten thousand tasks.

The overhead of a task is what it takes beyond a bare start of the same interpreter, both with as many
at once as there are slots.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import STOKE, own_home, seconds

TASKS = 1_000
MANY = 10_000
OVERHEAD = 0.005
SUBMIT_SECONDS = 2.0
SUBMIT_BYTES = 100e6
UNFOLD = 0.1


def _say(what: str, figure: str, limit: str, reached: bool) -> None:
    print(f"sweep: {what} {figure} (<= {limit}) {'ok' if reached else 'NOT REACHED'}", flush=True)


def bare(count: int, slots: int) -> float:
    """Return the seconds of `count` bare interpreters, `slots` at once."""
    start = time.perf_counter()
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(lambda _: subprocess.run([sys.executable, "-c", "pass"]), range(count)))
    return time.perf_counter() - start


def overhead(env: dict[str, str]) -> None:
    slots = len(os.sched_getaffinity(0))
    seconds([STOKE, "run", "-q", "--each", f"n=1..{slots}", "-c", "pass"], env)
    command = [STOKE, "run", "-q", "--json", "--each", f"n=1..{TASKS}", "-c", "pass"]
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    document = json.loads(done.stdout)
    assert document["sweep"]["states"] == {"succeeded": TASKS}
    ours = TASKS / document["sweep"]["rate"]
    theirs = bare(TASKS, slots)
    more = (ours - theirs) / TASKS
    _say(
        f"{TASKS:,} tasks {ours:.1f} s, as many bare interpreters {theirs:.1f} s: a task takes",
        f"{more * 1000:.1f} ms more",
        f"{OVERHEAD * 1000:.0f} ms",
        more <= OVERHEAD,
    )


def many(env: dict[str, str]) -> None:
    subprocess.run([STOKE, "queue", "pause", "-b", "local"], env=env, check=True)
    command = [STOKE, "run", "-q", "-d", "--each", f"n=1..{MANY}", "-c", "pass"]
    taken = min(seconds(command, env) for _ in range(3))
    _say(f"submit of {MANY:,} tasks takes", f"{taken:.2f} s", f"{SUBMIT_SECONDS:g} s",
         taken <= SUBMIT_SECONDS)  # fmt: skip
    measured = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured, *command], env=env, capture_output=True, check=True
    )
    memory = int(done.stdout)
    _say(f"submit of {MANY:,} tasks takes", f"{memory / 1e6:.0f} MB", f"{SUBMIT_BYTES / 1e6:g} MB",
         memory <= SUBMIT_BYTES)  # fmt: skip


def unfold() -> None:
    """Measure from a key to the rows: the listing is read, and its first page."""
    from stoke.history.database import History
    from stoke.history.job import Job, JobState
    from stoke.history.listing import Listing, ListingQuery
    from stoke.history.sweeps import Sweeps
    from stoke.request.sweep_values import Table

    sweep, now = "fit-aaaaaa", time.time()
    with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "h.sqlite") as history:
        with history.transaction():
            history.add(Job(sweep, "fit", "local", "default", JobState.QUEUED, now), "{}", "n")
            table = Table(("n",), [(str(number),) for number in range(MANY)])
            Sweeps(history).add(sweep, table)
        for _ in range(MANY):
            task = Sweeps(history).begin_next(sweep)
            assert task is not None
            history.update(task.job_id, state=JobState.SUCCEEDED, finished_at=now)
        listing, taken = Listing(history), []
        for _ in range(9):
            start = time.perf_counter()
            listing.read(ListingQuery(unfolded=frozenset({sweep})), now)
            listing.job(0)
            taken.append(time.perf_counter() - start)
    middle = statistics.median(taken)
    _say(f"a row of {MANY:,} tasks unfolds in", f"{middle * 1000:.0f} ms",
         f"{UNFOLD * 1000:.0f} ms", middle <= UNFOLD)  # fmt: skip


def main() -> None:
    unfold()
    with own_home() as env:
        many(env)
    with own_home() as env:
        overhead(env)

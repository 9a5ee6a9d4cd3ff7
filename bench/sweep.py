"""Sweeps on this machine: the time of a task that does nothing, and a sweep of ten thousand tasks.

The overhead of a task is what it takes beyond a bare start of the same interpreter, both with as many
at once as there are slots.

With `STOKE_TEST_KUBECONFIG`, also a sweep on a cluster: from the start of the command to its end,
beside a Workflow of the same pods that is created by hand, from its creation to its end. It uses the
bundle of an earlier sweep. Few tasks run at once, so that the node is not overloaded.
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
from contextlib import closing
from pathlib import Path

from backends.argo.cluster import METADATA_ONE, Cluster, workflows_path
from backends.argo.status import is_over
from bench.argo import IMAGE, KUBECONFIG, NAMESPACE, SERVICE_ACCOUNT
from bench.measure import STOKE, own_home, pairs, report, seconds

TASKS = 1_000
MANY = 10_000
OVERHEAD = 0.005
SUBMIT_SECONDS = 2.0
SUBMIT_BYTES = 100e6
UNFOLD = 0.1
ON_CLUSTER = 40
AT_ONCE = 4
CLUSTER_RATIO = 1.05
CLUSTER_PAIRS = 3


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


def on_cluster(env: dict[str, str]) -> None:
    settings = {
        "KUBECONFIG": KUBECONFIG,
        "NAMESPACE": NAMESPACE,
        "SERVICE_ACCOUNT": SERVICE_ACCOUNT,
    }
    env = env | {f"STOKE_ARGO__{name}": value for name, value in settings.items() if value}
    env |= {"STOKE_ARGO__CACHE": "none"}
    command = [STOKE, "run", "-q", "-b", "argo", "--image", IMAGE, "--no-cache"]
    command += ["--each", f"n=1..{ON_CLUSTER}", "--max-parallel", str(AT_ONCE), "-c", "pass"]
    # Without a project, whose files and packages would travel.
    where = tempfile.TemporaryDirectory()
    cluster = Cluster(context=None, namespace=NAMESPACE, kubeconfig=KUBECONFIG)
    with closing(cluster), where as folder:
        done = subprocess.run(
            [*command, "--json"], env=env, cwd=folder, capture_output=True, check=True
        )
        made = cluster.request(
            "GET", workflows_path(cluster.namespace, json.loads(done.stdout)["id"])
        )
        manifest = {name: made[name] for name in ("apiVersion", "kind", "spec")}

        def by_hand() -> float:
            about = {"generateName": "by-hand-"}
            start = time.perf_counter()
            path = workflows_path(cluster.namespace)
            created = cluster.request("POST", path, body={**manifest, "metadata": about})
            while not is_over(created):
                time.sleep(0.05)
                one = workflows_path(cluster.namespace, created["metadata"]["name"])
                created = cluster.request("GET", one, accept=METADATA_ONE)
            return time.perf_counter() - start

        ours, theirs, ratio = pairs(
            lambda: seconds(command, env, Path(folder)), by_hand, CLUSTER_PAIRS
        )
    claim = f"sweep: {ON_CLUSTER} tasks in one Workflow, and such a Workflow by hand"
    report(claim, ours, theirs, ratio, CLUSTER_RATIO)


def main() -> None:
    unfold()
    with own_home() as env:
        many(env)
    with own_home() as env:
        overhead(env)
    if KUBECONFIG is not None:
        with own_home() as env:
            on_cluster(env)

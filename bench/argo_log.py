"""A finished pod's log into the spool, against the bare API request that follows it with timestamps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from backends.argo import ArgoBackend
from backends.argo.cluster import Cluster, pods_path
from bench.argo import NAMESPACE, NONCE, argo_backend, delivery
from bench.measure import pairs
from stoke.backend.api import EngineStatus
from stoke.history.job import new_job_id
from stoke.logs.follower import Follower
from stoke.logs.spool import SpoolReader

# The most that a node keeps, and returns, in one file.
LINES = 60_000
CODE = f"for number in range({LINES}): print('%099d' % number)"


def main() -> None:
    backend = argo_backend(NAMESPACE)
    job = delivery(CODE, new_job_id("bench"))
    backend.submit(job, lambda name, start, seconds: None)
    try:
        while backend.inspect(job.job_id).status != EngineStatus.EXITED:
            time.sleep(0.5)
        cluster = backend._locations.of(job.job_id).cluster
        mine, theirs, ratio = pairs(
            lambda: followed(backend, job.job_id), lambda: bare(cluster, job.job_id), 9
        )
    finally:
        backend.remove(job.job_id)
        backend.close()
    # The figure is lines per second, so the ratio is inverted.
    print(
        f"argo: {LINES} lines of a log at {LINES / mine:.0f} lines/s against {LINES / theirs:.0f} "
        f"= {1 / ratio:.2f} x (>= 0.9) {'ok' if 1 / ratio >= 0.9 else 'NOT REACHED'}",
        flush=True,
    )


def followed(backend: ArgoBackend, job_id: str) -> float:
    with tempfile.TemporaryDirectory(prefix="stoke-bench-") as folder:
        start = time.perf_counter()
        follower = Follower(
            backend, job_id, NONCE, Path(folder), lambda event: None, lambda: None, _fail
        )
        follower.run()
        taken = time.perf_counter() - start
        reader = SpoolReader(Path(folder))
        numbers = [int(line.text) for line in reader.lines() if line.stream == 1]
        reader.close()
    assert numbers == list(range(LINES)), f"{len(numbers)} lines"
    return taken


def bare(cluster: Cluster, job_id: str) -> float:
    start = time.perf_counter()
    query = {"container": "main", "follow": "true", "timestamps": "true"}
    path = pods_path(cluster.namespace, job_id, "log")
    answer = cluster.opened("GET", path, query, {})
    size = sum(len(data) for data in answer.stream(65536))
    assert size > LINES * 100
    return time.perf_counter() - start


def _fail(error: Exception) -> None:
    raise error

"""List our jobs among 1,000 finished workflows of a namespace: seconds, bytes, number of requests."""

from __future__ import annotations

import threading
import time
from typing import Any

from backends.argo.cluster import METADATA_LIST, Cluster, workflows_path
from backends.argo.names import JOBS
from backends.argo.watch import Watch
from backends.argo.workflow import make_job
from bench.argo import argo_backend, argo_cluster, delivery
from bench.measure import pairs
from stoke.config.model import Config

WORKFLOWS = 1000
QUIET_SECONDS = 60


def main() -> None:
    with argo_cluster() as (cluster, namespace):
        fill(cluster, namespace)
        backend = argo_backend(namespace)

        def ours() -> float:
            start = time.perf_counter()
            assert len(backend.jobs()) == WORKFLOWS
            return time.perf_counter() - start

        def whole() -> float:
            start = time.perf_counter()
            found = cluster.request("GET", workflows_path(namespace), timeout=60)
            assert len(found["items"]) == WORKFLOWS
            return time.perf_counter() - start

        mine, theirs, ratio = pairs(ours, whole, 5)
        print(
            f"argo: {WORKFLOWS} jobs listed in {mine:.2f} s (<= 1) "
            f"{'ok' if mine <= 1 else 'NOT REACHED'}, whole objects in {theirs:.2f} s = {ratio:.2f} x",
            flush=True,
        )
        received, sent = size(cluster, namespace), requests_of_a_watch(cluster, namespace)
        print(
            f"argo: the list is {received / 1e6:.2f} MB on the wire (<= 1) "
            f"{'ok' if received <= 1e6 else 'NOT REACHED'}; a watch sent {sent} requests in "
            f"{QUIET_SECONDS} quiet seconds (<= 2) {'ok' if sent <= 2 else 'NOT REACHED'}",
            flush=True,
        )
        backend.close()


def fill(cluster: Cluster, namespace: str) -> None:
    """Create finished workflows with the size and status of real ones; no controller touches them."""
    for number in range(WORKFLOWS):
        job_id = f"bench-{number:06d}"
        code = f"print({number})\n" + "# a line of code\n" * 100
        body: dict[str, Any] = make_job(delivery(code, job_id), Config()).workflow
        phase = "workflows.argoproj.io"
        body["metadata"]["labels"] |= {f"{phase}/completed": "true", f"{phase}/phase": "Succeeded"}
        body["status"] = {"phase": "Succeeded", "message": "x" * 1000}
        cluster.request("POST", workflows_path(namespace), body=body)


def size(cluster: Cluster, namespace: str) -> int:
    """Return the bytes of the list, fetched in one page."""
    headers = {"Accept": METADATA_LIST, "Accept-Encoding": "gzip"}
    query = {"labelSelector": JOBS}
    answer = cluster.opened("GET", workflows_path(namespace), query, headers)
    return len(answer.read(decode_content=False))


def requests_of_a_watch(cluster: Cluster, namespace: str) -> int:
    """Count the requests of a listing after the first one, while nothing changes."""
    watch = Watch(cluster, workflows_path(namespace), query={"labelSelector": JOBS}, metadata=True)
    requests = 0
    opened = cluster.opened

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal requests
        requests += 1
        return opened(*arguments, **more)

    cluster.opened = counted  # type: ignore[method-assign]
    for changes in watch:
        if changes:
            requests = 0
            threading.Timer(QUIET_SECONDS, watch.close).start()
    return requests

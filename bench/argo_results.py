"""Memory and seconds of collecting a large result from a cluster, against a small one."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench.argo import IMAGE, NAMESPACE, argo_backend
from bench.results import MEMORY_LIMIT, ONE
from stoke.backend.api import EngineStatus
from stoke.cache.volumes import Housekeeper
from stoke.history.database import History
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from stoke.remote.common.trees import remove_tree
from stoke.request.sources import request_from_options
from stoke.results.store import read_results, results_folder, store_results

SMALL, LARGE = 16 * 1024**2, 400 * 1024**2


def main() -> None:
    os.environ["STOKE_STATE_DIR"] = tempfile.mkdtemp(prefix="stoke-bench-")
    scope = f"bench-{secrets.token_hex(4)}"
    try:
        small, large = (_collected_apart(scope, size) for size in (SMALL, LARGE))
    finally:
        _clear(scope)
        remove_tree(os.environ["STOKE_STATE_DIR"])
    more = large["memory"] - small["memory"]
    verdict = "ok" if more <= MEMORY_LIMIT else "NOT REACHED"
    print(
        f"argo: a result of {LARGE >> 20} MiB in {large['seconds']:.1f} s; "
        f"{more / 1024**2:.1f} MiB more memory than for one of {SMALL >> 20} MiB "
        f"(<= {MEMORY_LIMIT >> 20}) {verdict}",
        flush=True,
    )


def _collected_apart(scope: str, size: int) -> dict[str, float]:
    """Run a job with a result of this size; collect it in a new process and return its figures."""
    with History() as history, closing(argo_backend(NAMESPACE, "hostpath")) as backend:
        spec = request_from_options(code=ONE.format(size=size), image=IMAGE, scope=scope)
        job = submit(prepare(Request(spec, name="bench"), backend, history), history)
        while backend.inspect(job.id).status is not EngineStatus.EXITED:
            time.sleep(0.2)
        command = [sys.executable, "-m", "bench.argo_results", job.id, str(size)]
        top = Path(__file__).parents[1]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=top)
        backend.forget_results(job.id)
        backend.remove(job.id)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _collect(job_id: str, size: int) -> dict[str, float]:
    import resource

    with closing(argo_backend(NAMESPACE, "hostpath")) as backend:
        began = time.perf_counter()
        entries = backend.results(job_id, lambda _: None)
        assert entries is not None
        results_folder(job_id).parent.mkdir(parents=True, exist_ok=True)
        with closing(entries):
            store_results(job_id, entries, 1 << 40, lambda *_: None)
        seconds = time.perf_counter() - began
    found = read_results(job_id)
    assert found is not None and found.bytes == size
    remove_tree(str(results_folder(job_id)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "memory": memory}


def _clear(scope: str) -> None:
    with History() as history, closing(argo_backend(NAMESPACE, "hostpath")) as backend:
        keeper = Housekeeper(history, 3600)
        for volume in keeper.volumes(backend):
            if volume.scope == scope:
                keeper.clear(backend, volume, lambda _: None)


if __name__ == "__main__":
    print(json.dumps(_collect(sys.argv[1], int(sys.argv[2]))))

"""Seconds until a job on a cluster is accepted, its end is seen and confirmed, and it is stopped."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from statistics import median
from typing import Any

from backends.argo.cluster import Cluster, pods_path
from backends.argo.status import terminated
from backends.argo.watch import Watch
from bench.argo import IMAGE, NAMESPACE, argo_backend
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.jobs.control import stop
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import clean_up
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from stoke.jobs.tracker import Tracker
from stoke.logs.spool import SpoolReader
from stoke.request.sources import request_from_options

TIMES = 5
WAITS = """\
import signal, time
def end(*_):
    print(time.time())
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print("began", flush=True)
while True:
    time.sleep(0.01)
"""


def main() -> None:
    os.environ["STOKE_STATE_DIR"] = tempfile.mkdtemp(prefix="stoke-bench-")
    backend = argo_backend(NAMESPACE)
    figures: dict[str, list[float]] = {"submit": [], "shown": [], "confirmed": [], "stop": []}
    with History() as history:
        for turn in range(TIMES + 1):
            measured = _end(backend, history) | _stop(backend, history)
            # The first loads kubernetes and hera.
            for name, seconds in measured.items() if turn else ():
                figures[name].append(seconds)
    backend.close()
    for name, what, most in (
        ("submit", "accepted after the call", 0.15),
        ("shown", "end shown after the runner wrote it", 0.2),
        ("confirmed", "confirmed after the API shows main terminated", 0.5),
        ("stop", "a stop reaches the code", 1.5),
    ):
        seconds = median(figures[name])
        said = "ok" if seconds <= most else "NOT REACHED"
        print(f"argo: {what} {seconds:.3f} s (<= {most}) {said}", flush=True)


def _submit(backend: Any, history: History, code: str) -> tuple[Any, float]:
    spec = request_from_options(code=code, image=IMAGE, use_cache=False)
    began = time.perf_counter()
    job = submit(prepare(Request(spec, name="bench"), backend, history), history)
    return job, time.perf_counter() - began


def _end(backend: Any, history: History) -> dict[str, float]:
    job, accepted = _submit(backend, history, "import time; time.sleep(2)")
    cluster = backend._locations.of(job.id).cluster
    seen: dict[str, float] = {}

    def changed() -> None:
        now = history.get(job.id)
        if now is not None and now.provisional and now.finished_at is not None:
            seen.setdefault("shown", time.time() - now.finished_at)

    watcher = threading.Thread(target=_watch, args=(cluster, job.id, seen), daemon=True)
    watcher.start()
    Tracker(backend, history, job.id, on_change=changed).run()
    confirmed = time.time()
    watcher.join(30)
    clean_up(job.id, backend, history)
    return {
        "submit": accepted,
        "shown": seen["shown"],
        "confirmed": confirmed - seen["terminated"],
    }


def _watch(cluster: Cluster, name: str, seen: dict[str, float]) -> None:
    query = {"fieldSelector": f"metadata.name={name}"}
    watch = Watch(cluster, pods_path(cluster.namespace), query=query)
    for changes in watch:
        if any(terminated(change.object) for change in changes):
            seen["terminated"] = time.time()
            break
    watch.close()


def _stop(backend: Any, history: History) -> dict[str, float]:
    job, _ = _submit(backend, history, WAITS)
    tracker = Tracker(backend, history, job.id)
    following = threading.Thread(target=tracker.run, daemon=True)
    following.start()
    while b"began\n" not in _output(job.id):
        time.sleep(0.02)
    asked = time.time()
    stop(job, backend, history, 10)
    following.join(60)
    reached = float(_output(job.id).split()[-1])
    clean_up(job.id, backend, history)
    return {"stop": reached - asked}


def _output(job_id: str) -> bytes:
    reader = SpoolReader(job_dir(job_id))
    try:
        return b"".join(line.text for line in reader.lines() if line.stream == 1)
    finally:
        reader.close()

"""Collect and list 10,000 result files from a container, against `docker cp`; memory for 2 GB."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench.docker import RUN, docker_home
from bench.measure import STOKE, pairs, report

FILES = 10_000
LARGE = 2 * 1024**3
MEMORY_LIMIT = 20 * 1024**2
MANY = f"""
import os
top = os.environ["STOKE_RESULTS"]
for number in range({FILES}):
    if number % 100 == 0:
        os.mkdir(f"{{top}}/{{number // 100:03}}")
    with open(f"{{top}}/{{number // 100:03}}/{{number}}.bin", "wb") as file:
        file.write(os.urandom(1024))
"""
ONE = """
import os
with open(os.environ["STOKE_RESULTS"] + "/large", "wb") as file:
    for _ in range({size} // 1048576):
        file.write(os.urandom(1048576))
"""


def main() -> None:
    with docker_home() as (env, scope):
        os.environ |= env
        many = _finished(scope, MANY)
        with tempfile.TemporaryDirectory() as folder:
            copies = iter(range(1000))

            def theirs() -> float:
                began = time.perf_counter()
                target = f"{folder}/{next(copies)}"
                command = ["docker", "cp", f"{many}:/mnt/results", target]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                return time.perf_counter() - began

            ours, other, ratio = pairs(lambda: _collect(many), theirs, 5)
        report(f"{FILES:,} results of 1 KB: collected and listed", ours, other, ratio, 3)
        _remove(many)
        small, large = (_peak(scope, size) for size in (64 * 1024**2, LARGE))
        more = large - small
        verdict = "ok" if more <= MEMORY_LIMIT else "NOT REACHED"
        print(
            f"a result of 2 GB: {more / 1024**2:.1f} MiB more memory than one of 64 MiB "
            f"(<= {MEMORY_LIMIT // 1024**2}) {verdict}",
            flush=True,
        )


def _finished(scope: str, code: str) -> str:
    """Run a job to its end and leave its container; return its id."""
    command = [*RUN, "-d", "--scope", scope, "-c", code]
    job_id = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["docker", "wait", job_id], check=True, stdout=subprocess.DEVNULL)
    return job_id


def _collect(job_id: str) -> float:
    """Collect into an empty state folder and read the list, as `stoke results` does once."""
    from backends.docker import DockerBackend
    from stoke.config.loader import load_config
    from stoke.remote.common.trees import remove_tree
    from stoke.results.store import read_results, results_folder, store_results

    remove_tree(str(results_folder(job_id)))
    backend = DockerBackend(load_config())
    began = time.perf_counter()
    entries = backend.results(job_id, lambda _: None)
    assert entries is not None
    with closing(entries):
        store_results(job_id, entries, 1 << 40, lambda *_: None)
    found = read_results(job_id)
    taken = time.perf_counter() - began
    assert found is not None and found.files
    backend.close()
    return taken


def _peak(scope: str, size: int) -> int:
    """Return the greatest memory of a process that collects a result of this size."""
    job_id = _finished(scope, ONE.format(size=size))
    code = (
        f"import resource; from bench.results import _collect; _collect({job_id!r}); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    top = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=top
    )
    _remove(job_id)
    return int(done.stdout)


def _remove(job_id: str) -> None:
    subprocess.run(["docker", "rm", "-f", "-v", job_id], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([STOKE, "rm", job_id], check=False, capture_output=True)

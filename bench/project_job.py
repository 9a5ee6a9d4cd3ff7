"""What 1,000 files of a project (20 MB) add to a job, on local and Docker, beside the same job without.

It measures packs, engines and jobs: the files are not read on this machine. Each job takes over those
of the one before it. Making all of them takes 17 ms in memory, and 60 to 2,800 ms on an ext4 without a
journal, as some virtual machines have it: that looks for each new file past all those that were deleted
in the last minutes (`recently_deleted` in fs/ext4/ialloc.c of Linux).
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.docker import IMAGE, docker_home
from bench.measure import own_home
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from tests.lab import Lab
from tests.snapshots import Snapshot, run_project, snapshot

FILES = 1000
BYTES = 20 * 1024**2
ROUNDS = 15
CODE = "print(1)"
LIMITS = {"local": (30, 60), "docker": (30, 150)}
"""Milliseconds that the project may add: unchanged, and with one changed file."""


def main() -> None:
    memory = Path("/dev/shm")
    with (
        own_home() as env,
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as at,
    ):
        os.environ.update(env, STOKE_STATE_DIR=f"{at}/state", STOKE_CACHE_DIR=f"{at}/cache")
        measure("local", "bench")
    with docker_home() as (env, scope):
        os.environ.update(env, STOKE_DOCKER__IMAGE=IMAGE)
        measure("docker", scope)


def measure(name: str, scope: str) -> None:
    config = load_config()
    backends = Backends(config)
    lab = Lab(backends.get(name), config, scope, "127.0.0.1")
    lab.waits_for_removal = False
    numbers = random.Random(1)
    files = {
        f"package{number % 20}/module{number}.py": numbers.randbytes(BYTES // FILES)
        for number in range(FILES)
    }
    first = snapshot({**files, "main.py": CODE.encode()})
    run_project(lab, first)
    taken: dict[str, list[float]] = {"without": [], "unchanged": [], "one changed": []}
    phases: list[float] = []
    for number in range(ROUNDS):
        changed = snapshot({**files, "main.py": CODE.encode(), "changed.py": b"%d" % number})
        pack = changed.pack(without=first.contents)
        taken["without"].append(seconds(partial(plain_job, lab)))
        run_project(lab, first, has_pack=False)  # The job before had a changed file.
        taken["unchanged"].append(seconds(partial(project, lab, first, None, phases)))
        taken["one changed"].append(seconds(partial(project, lab, changed, pack, [])))
    backends.close()
    plain = statistics.median(taken.pop("without"))
    for (what, values), limit in zip(taken.items(), LIMITS[name], strict=True):
        with_project = statistics.median(values)
        added = 1000 * (with_project - plain)
        print(
            f"{name}, {FILES} files, {what}: {with_project:.3f} s against {plain:.3f} s without = "
            f"{with_project / plain:.2f} x, {added:.0f} ms more (<= {limit}) "
            f"{'ok' if added <= limit else 'NOT REACHED'}",
            flush=True,
        )
    print(f"{name}: the phase itself {1000 * statistics.median(phases):.0f} ms", flush=True)


def plain_job(lab: Lab) -> int | None:
    return lab.run(CODE).job.exit_code


def project(lab: Lab, made: Snapshot, pack: bytes | None, phases: list[float]) -> int | None:
    done = run_project(lab, made, pack=pack, has_pack=pack is not None)
    phases.append(done.phase("project").seconds or 0.0)
    return done.job.exit_code


def seconds(job: Callable[[], int | None]) -> float:
    began = time.perf_counter()
    code = job()
    if code != 0:
        raise SystemExit(f"the job ended with {code}")
    return time.perf_counter() - began

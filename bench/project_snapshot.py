"""What an unchanged project adds to a submission, and how long a large folder takes to walk.

Measured in one process: take the snapshot, store its manifest and look for contents to send, as a
submission does after its modules are loaded.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import own_home

ROUNDS = 15
UNCHANGED_LIMIT = 0.015
WALK_LIMIT = 0.5


def main() -> None:
    with own_home() as env, tempfile.TemporaryDirectory(prefix="stoke-bench-") as folder:
        os.environ |= {name: env[name] for name in ("STOKE_STATE_DIR", "STOKE_CACHE_DIR")}
        small, large = Path(folder, "small"), Path(folder, "large")
        make_project(small, files=1000, size=20 * 1024)
        make_project(large, files=20_000, size=10)
        _report("1,000 files of 20 MB, unchanged: client", _client(small), UNCHANGED_LIMIT)
        _report("20,000 files, unchanged: walk and hash", _client(large), WALK_LIMIT)


def make_project(root: Path, files: int, size: int) -> None:
    """Make a repository with this many files, older than what the index of files distrusts."""
    for number in range(files):
        path = root / f"package{number % (files // 20)}" / f"m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size // 2).hex().encode())
    (root / "main.py").write_text("pass\n")
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    time.sleep(2.1)


def _client(root: Path) -> float:
    """Return the median seconds of a snapshot of an unchanged project whose contents are stored."""
    from stoke.jobs.snapshot_delivery import make_delivery
    from stoke.project.manifest_store import release_manifest, save_manifest
    from stoke.project.snapshot import take_snapshot
    from stoke.request.spec import Project

    project = Project(root=str(root), script="main.py")

    def take() -> None:
        snapshot = take_snapshot(project, "pass\n", 1 << 40)
        save_manifest(snapshot.manifest, snapshot.virtual, "bench")
        make_delivery(snapshot, snapshot.manifest.contents().keys(), root)

    take()
    taken = statistics.median(_timed(take) for _ in range(ROUNDS))
    release_manifest("bench")
    return taken


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _report(claim: str, taken: float, limit: float) -> None:
    verdict = "ok" if taken <= limit else "NOT REACHED"
    print(f"{claim}: {taken * 1000:.1f} ms (<= {limit * 1000:.0f}) {verdict}", flush=True)

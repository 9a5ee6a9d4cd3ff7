"""Housekeeping of stored snapshots: measuring, removal, and what remains complete."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.remote.programs import housekeeping_file
from tests.remote.test_housekeeping import BLOCK, du, make_environment, run
from tests.snapshots import Snapshot, snapshot

DAY = 86400


def store(top: Path, made: Snapshot, used_at: float) -> None:
    """Store a snapshot as a job does."""
    for sha256, data in made.contents.items():
        path = top / "snapshots/objects" / sha256[:2] / sha256[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    use = top / "snapshots/used" / made.manifest.digest
    use.parent.mkdir(exist_ok=True)
    use.touch()
    os.utime(use, (used_at, used_at))


def stored(top: Path) -> set[str]:
    return {path.parent.name + path.name for path in (top / "snapshots/objects").glob("*/*")}


def used(top: Path) -> set[str]:
    return {path.name for path in (top / "snapshots/used").iterdir()}


def test_old_snapshots_are_removed_and_shared_contents_are_kept(tmp_path: Path) -> None:
    now = time.time()
    old = snapshot({"shared": b"s" * BLOCK, "old": b"o" * BLOCK})
    new = snapshot({"shared": b"s" * BLOCK, "new": b"n" * BLOCK})
    store(tmp_path, old, now - 3 * DAY)
    store(tmp_path, new, now - DAY)
    left_over = tmp_path / "snapshots/objects/00" / "0123456789abcdef.new"
    left_over.parent.mkdir(exist_ok=True)
    left_over.write_bytes(b"interrupted")
    usage = run(tmp_path, do="usage")["result"]
    assert usage["snapshot_bytes"] == du(tmp_path / "snapshots")
    assert [size for _, size in usage["snapshots"]] == [2 * BLOCK, 3 * BLOCK]

    pruned = run(tmp_path, do="prune", unused=2 * DAY)["result"]
    assert (pruned["snapshots"], pruned["trouble"]) == (1, None)
    assert used(tmp_path) == {new.manifest.digest}
    assert stored(tmp_path) == new.contents.keys()


def test_without_its_manifest_a_snapshot_is_of_no_use(tmp_path: Path) -> None:
    made = snapshot({"file": b"x"})
    store(tmp_path, made, time.time())
    digest = made.manifest.digest
    (tmp_path / "snapshots/objects" / digest[:2] / digest[2:]).unlink()
    assert run(tmp_path, do="prune", unused=DAY)["result"]["snapshots"] == 1
    assert (stored(tmp_path), used(tmp_path)) == (set(), set())


files = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 8), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@example(projects=[({"a": 0}, 1), ({"a": 0, "b": 1}, 1)], blocks=19)
@given(
    st.lists(st.tuples(files, st.integers(1, 10_000)), min_size=1, max_size=6), st.integers(0, 60)
)
def test_least_recently_used_snapshots_are_removed_first_and_others_remain_complete(
    projects: list[tuple[dict[str, int], int]], blocks: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        made: dict[str, tuple[Snapshot, int]] = {}
        for contents, used_at in projects:
            one = snapshot({name: b"%d" % size * size * BLOCK for name, size in contents.items()})
            made[one.manifest.digest] = one, used_at
            store(top, one, used_at)
        make_environment(top, 1, 5, 5_000)
        limit = blocks * BLOCK
        promised = run(top, do="prune", max_bytes=limit, dry_run=True)["result"]
        assert used(top) == made.keys()
        done = run(top, do="prune", max_bytes=limit)["result"]
        assert (done["bytes"], done["snapshots"]) == (promised["bytes"], promised["snapshots"])

        kept = used(top)
        assert len(made) - len(kept) == done["snapshots"]
        latest_dropped = max((made[one][1] for one in made.keys() - kept), default=0)
        assert all(made[one][1] >= latest_dropped for one in kept)
        if done["environments"]:
            assert all(made[one][1] >= 5_000 for one in kept)
        if done["bytes"]:
            assert stored(top) == {name for one in kept for name in made[one][0].contents}
        assert all(made[one][0].contents.keys() <= stored(top) for one in kept)


def test_pruning_waits_for_a_job_that_takes_its_files(tmp_path: Path) -> None:
    made = snapshot({"file": b"x"})
    store(tmp_path, made, 1)
    lock = os.open(tmp_path / "snapshots.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_SH)
    operation = {"kind": "python", "do": "prune", "lock_ttl": 0, "unused": 0, "dry_run": False}
    argv = [sys.executable, "-I", "-S", housekeeping_file("python"), str(tmp_path)]
    command = [*argv, json.dumps({**operation, "max_bytes": None})]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"waiting for jobs" in line:
                assert used(tmp_path) == {made.manifest.digest}
                os.close(lock)
            last = line
    assert json.loads(last)["result"]["snapshots"] == 1


def test_clearing_removes_all(tmp_path: Path) -> None:
    store(tmp_path, snapshot({"file": b"x"}), time.time())
    run(tmp_path, do="clear")
    assert not (tmp_path / "snapshots").exists()

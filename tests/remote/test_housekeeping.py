"""Housekeeping of prepared volumes: what it removes, and how it treats damaged files."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoke.remote.protocol import METADATA
from tests.remote.programs import housekeeping_file
from tests.remote.test_runner_pythons import pythons

BLOCK = 4096


def run(top: Path, python: str = sys.executable, **operation: Any) -> dict[str, Any]:
    """Return the last line that housekeeping prints, as an engine sees it."""
    whole = {"kind": "python", "lock_ttl": 3600, **operation}
    if whole["do"] == "prune":
        whole = {"unused": None, "max_bytes": None, "dry_run": False, **whole}
    done = subprocess.run(
        [python, "-I", "-S", housekeeping_file(whole["kind"]), str(top), json.dumps(whole)],
        capture_output=True,
        env={"PATH": "/nowhere"},  # no uv
    )
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode == 0) == ("result" in last), done.stderr
    return last


def make_environment(top: Path, number: int, blocks: int, used_at: float) -> Path:
    folder = top / "venvs" / f"{number:032x}"
    folder.mkdir(parents=True)
    (folder / "own").write_bytes(b"x" * blocks * BLOCK)
    mark = {"packages": [f"p{number}==1"], "built_at": used_at, "lock": str(number)}
    (folder / METADATA).write_text(json.dumps(mark))
    os.utime(folder / METADATA, (used_at, used_at))
    lock = folder.with_name(folder.name + ".lock")
    lock.write_bytes(b".")
    os.utime(lock, (used_at, used_at))
    return folder


def du(top: Path) -> int:
    done = subprocess.run(["du", "-s", "--block-size=1", top], capture_output=True, check=True)
    return int(done.stdout.split()[0])


environments = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 10_000), st.booleans()), min_size=1, max_size=7
)


@settings(max_examples=30)
@given(environments, st.integers(0, 250), st.data())
def test_only_as_many_least_recently_used_environments_are_removed_as_needed(
    made: list[tuple[int, int, bool]], blocks: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        held = []
        for number, (size, used_at, busy) in enumerate(made):
            made_at = make_environment(top, number, size, used_at)
            if busy:
                lock = os.open(made_at.with_name(made_at.name + ".lock"), os.O_RDWR)
                fcntl.flock(lock, fcntl.LOCK_SH)
                held.append(lock)
            # Some share a file, which goes with the last of them.
            others = data.draw(st.sets(st.integers(0, number)))
            for other in others - {number}:
                os.link(top / "venvs" / f"{other:032x}" / "own", made_at / f"linked{other}")
        before = du(top)
        limit = blocks * BLOCK
        promised = run(top, do="prune", max_bytes=limit, dry_run=True)["result"]
        assert du(top) - before in range(3 * BLOCK), "a dry run leaves only its own files"
        before = du(top)
        done = run(top, do="prune", max_bytes=limit)["result"]
        after = du(top)
        for lock in held:
            os.close(lock)

        assert done["environments"] == promised["environments"]
        assert done["bytes"] == promised["bytes"]
        # The trash folder is new.
        assert abs(before - after - promised["bytes"]) <= 2 * BLOCK
        free = [
            number
            for number in sorted(range(len(made)), key=lambda one: made[one][1])
            if not made[number][2]
        ]
        gone = [int(name, 16) for name in done["environments"]]
        times = [made[number][1] for number in gone]
        assert times == sorted(times)
        assert sorted(times) == sorted(made[number][1] for number in free)[: len(gone)]
        assert not {number for number, one in enumerate(made) if one[2]} & set(gone)
        assert after <= limit + 2 * BLOCK or len(gone) == len(free)
        for number in gone:
            assert not (top / "venvs" / f"{number:032x}").exists()


def test_damaged_files_are_measured_and_removed(tmp_path: Path) -> None:
    """Jobs can write anything to the volume."""
    top = tmp_path
    for number in range(6):
        make_environment(top, number, 3, 1000 + number)
    marks = [top / "venvs" / f"{number:032x}" / METADATA for number in range(6)]
    marks[0].write_text("not json")
    marks[1].write_text('{"packages": 3, "built_at": "x", "lock": []}')
    marks[2].unlink()
    marks[3].unlink()
    os.mkfifo(marks[3])
    marks[4].write_text('{"packages": [1, null], "built_at": 1, "lock": 5}')
    (top / "housekeeping.json").write_text('{"venvs/x": 3, "y": [[], "z"]}')
    (top / "venvs" / "strange name").mkdir()
    (top / "locks").write_text("a file")
    (top / "uv" / "wheels-v7" / "pypi" / "--force").mkdir(parents=True)
    first = run(top, do="usage")["result"]
    assert first["bytes"] == pytest.approx(du(top), abs=3 * BLOCK)
    for text in ("[]", "null", "{", json.dumps({"venvs/" + "0" * 32: [[1, 2, 3], [1]]})):
        (top / "housekeeping.json").write_text(text)
        assert len(run(top, do="usage")["result"]["environments"]) == 6
    done = run(top, do="prune", unused=0)["result"]
    assert len(done["environments"]) == 6
    assert (top / "venvs" / "strange name").exists()
    assert run(top, do="clear")["result"]["entries"] == 0
    assert not (top / "venvs").exists()


def test_clearing_is_refused_while_a_job_runs(tmp_path: Path) -> None:
    make_environment(tmp_path, 1, 3, 1000)
    with open(tmp_path / "in-use.lock", "w") as job:
        fcntl.flock(job, fcntl.LOCK_SH)
        refused = run(tmp_path, do="clear")
        assert "running job" in refused["error"]
    with open(tmp_path / "venvs" / f"{1:032x}.lock") as job:
        fcntl.flock(job, fcntl.LOCK_SH)
        refused = run(tmp_path, do="clear")
        assert f"{1:032x}" in refused["error"]
    assert (tmp_path / "venvs" / f"{1:032x}" / "own").exists()
    assert run(tmp_path, do="clear")["result"]["bytes"] >= 3 * BLOCK
    assert sorted(os.listdir(tmp_path)) == ["housekeeping.lock", "in-use.lock", "trash"]


def test_the_next_run_removes_files_of_a_killed_one(tmp_path: Path) -> None:
    make_environment(tmp_path, 1, 3, 1000)
    (tmp_path / "trash" / "half" / "closed").mkdir(parents=True)
    (tmp_path / "trash" / "half" / "closed" / "big").write_bytes(b"x" * 50 * BLOCK)
    (tmp_path / "trash" / "half" / "closed").chmod(0)
    done = run(tmp_path, do="prune", max_bytes=1 << 40)["result"]
    assert done["bytes"] >= (50 if os.geteuid() == 0 else 0) * BLOCK
    assert os.listdir(tmp_path / "trash") == []


def make_set(top: Path, number: int, blocks: int) -> str:
    """Make a set of one store path, as a runner does; return its key."""
    key = f"{number:032x}"
    path = top / "store" / f"{number:032d}-p{number}-1.0"
    path.mkdir(parents=True)
    (path / "own").write_bytes(b"x" * blocks * BLOCK)
    root = top / "var/nix/gcroots/jobs" / key
    root.mkdir(parents=True)
    paths = [f"/nix/store/{path.name}"]
    mark = {"links": {}, "programs": {f"p{number}": []}, "paths": paths, "built_at": 1000.0}
    (root / METADATA).write_text(json.dumps({**mark, "source": "/nix/store/x"}))
    (top / "var/stoke").mkdir(exist_ok=True)
    (top / "var/stoke" / f"{key}.lock").write_bytes(b".")
    return key


def test_a_system_volume_is_not_cleared_under_a_job_that_uses_or_makes_a_set(
    tmp_path: Path,
) -> None:
    key = make_set(tmp_path, 1, 3)
    for name in (key, "gc", "f" * 32):
        with open(tmp_path / "var/stoke" / f"{name}.lock", "a") as job:
            fcntl.flock(job, fcntl.LOCK_SH)
            assert "running job" in run(tmp_path, kind="system", do="clear")["error"]
    assert (tmp_path / "store").exists()
    # A key that a job begins with while the volume is cleared keeps its file lock: only locks that
    # were taken are deleted.
    assert run(tmp_path, kind="system", do="clear")["result"]["bytes"] >= 3 * BLOCK
    assert not (tmp_path / "store").exists()
    assert os.listdir(tmp_path / "var/stoke") == ["gc.lock"]


def test_on_a_system_volume_no_link_is_followed(tmp_path: Path) -> None:
    """Jobs can put links anywhere; their targets are neither measured nor removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 1000 * BLOCK)
    (outside / "gc.lock").write_text("")
    top = tmp_path / "nix"
    make_set(top, 1, 3)
    roots = top / "var/nix/gcroots/jobs"
    (roots / ("a" * 32)).symlink_to(outside)
    (roots / ("b" * 32)).mkdir()
    (roots / ("b" * 32) / METADATA).symlink_to(outside / "precious")
    (roots / ("c" * 32 + ".tmp")).symlink_to(outside)
    (top / "store" / ("0" * 32 + "-x")).symlink_to(outside)
    (top / "var/stoke/cache").symlink_to(outside)
    (top / "var/log").symlink_to(outside)
    (top / "trash").symlink_to(outside)
    (top / "var/stoke/init.lock").symlink_to(outside / "precious")
    usage = run(top, kind="system", do="usage")["result"]
    assert usage["bytes"] == pytest.approx(du(top), abs=3 * BLOCK)
    mark = json.loads((roots / f"{1:032x}" / METADATA).read_text())
    mark["paths"] += ["/nix/store/../..", "..", "/nix/store/" + "0" * 32 + "-x/.."]
    (roots / f"{1:032x}" / METADATA).write_text(json.dumps(mark))
    sizes = {
        one["key"]: one["bytes"]
        for one in run(top, kind="system", do="usage")["result"]["environments"]
    }
    assert sizes[f"{1:032x}"] < 10 * BLOCK
    done = run(top, kind="system", do="clear")["result"]
    assert done["bytes"] < 50 * BLOCK
    assert sorted(os.listdir(outside)) == ["gc.lock", "precious"]
    assert du(top) < 10 * BLOCK
    for link in ("var/stoke", "var"):
        path = top / link
        subprocess.run(["rm", "-rf", path], check=True)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(outside)
        assert "result" in run(top, kind="system", do="clear")
        assert sorted(os.listdir(outside)) == ["gc.lock", "precious"]


def test_an_unknown_kind_of_volume_is_refused(tmp_path: Path) -> None:
    assert "no housekeeping" in run(tmp_path, do="usage", kind="ghost")["error"]


@pytest.mark.parametrize("python", pythons())
def test_it_runs_on_every_python_that_jobs_run_on(tmp_path: Path, python: str) -> None:
    make_environment(tmp_path, 1, 3, 1000)
    assert len(run(tmp_path, python, do="usage")["result"]["environments"]) == 1
    assert len(run(tmp_path, python, do="prune", unused=0)["result"]["environments"]) == 1


def ask(top: Path, request: str, key: str) -> Path:
    """Record a request that an environment answered, as a job does."""
    path = top / "requests" / (request * 64)[:64]
    path.parent.mkdir(exist_ok=True)
    path.write_text(key)
    return path


def test_usage_tells_which_environment_answers_which_request(tmp_path: Path) -> None:
    key = make_environment(tmp_path, 1, 1, 100).name
    ask(tmp_path, "a", key)
    ask(tmp_path, "b", key)
    ask(tmp_path, "c", "0" * 32)  # gone
    ask(tmp_path, "d", "../../etc")
    (tmp_path / "requests" / "x").write_text(key)
    (tmp_path / "requests" / ("e" * 64)).symlink_to(tmp_path / "requests" / ("a" * 64))
    usage = run(tmp_path, do="usage")["result"]
    assert usage["requests"] == {"a" * 64: key, "b" * 64: key}


def test_pruning_removes_the_requests_of_removed_environments(tmp_path: Path) -> None:
    going, staying = (make_environment(tmp_path, number, 1, 100).name for number in (1, 2))
    used = tmp_path / "venvs" / f"{staying}.lock"
    os.utime(used, None)
    paths = {name: ask(tmp_path, name, key) for name, key in (("a", going), ("b", staying))}
    paths["c"] = ask(tmp_path, "c", "0" * 32)
    promised = run(tmp_path, do="prune", unused=3600.0, dry_run=True)["result"]
    assert all(path.exists() for path in paths.values())
    before = du(tmp_path)
    pruned = run(tmp_path, do="prune", unused=3600.0)["result"]
    assert pruned["environments"] == [going]
    assert [name for name, path in paths.items() if path.exists()] == ["b"]
    assert promised["bytes"] == pruned["bytes"] >= before - du(tmp_path) - 3 * BLOCK


def test_the_lockfile_of_an_environment_is_returned(tmp_path: Path) -> None:
    folder = make_environment(tmp_path, 1, 1, 100)
    assert run(tmp_path, do="lock", key=folder.name)["result"] == {"lock": "1"}
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / METADATA).write_text('{"lock": "secret"}')
    (tmp_path / "venvs" / ("f" * 32)).mkdir()
    (tmp_path / "venvs" / ("f" * 32) / METADATA).symlink_to(secret / METADATA)
    for key in ("0" * 32, "f" * 32, "../elsewhere", ""):
        assert "no environment" in run(tmp_path, do="lock", key=key)["error"]

"""The copy of a project that a job leaves to the next one: what that keeps, and what it replaces."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stoke.remote.protocol import RunnerOption
from tests.remote.test_housekeeping import BLOCK
from tests.remote.test_housekeeping import run as housekeep
from tests.remote.test_project import run
from tests.remote.test_runner_pythons import Runner, pythons
from tests.snapshots import File, Link, Snapshot, snapshot

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are kept on Linux only")

FILES: dict[str, File] = {
    "main.py": b"print('ran')",
    "data": b"first",
    "tool": (b"#!/bin/sh\n", 0o755),
    "pkg/deep/module.py": b"value = 1",
    "link": Link("pkg"),
    "empty": None,
}
MADE = snapshot(FILES)


class Copies:
    """A runner that keeps copies, and what it left on the volume."""

    def __init__(self, python: str, folder: Path) -> None:
        self.runner = Runner(python, folder)
        self.runner.flags = (RunnerOption.KEEP_COPY,)
        self.top = folder / "cache/snapshots/copies"

    def job(self, made: Snapshot, code: bytes | None = None, pack: bool = True) -> bytes:
        """Run a job whose main.py has this code; return its output."""
        payload: dict[str, Any] = {}
        if code is not None:
            payload = {"start": {"kind": "code", "name": ""}, "code": code.decode()}
        status, out, err, events = run(self.runner, made, made.pack() if pack else None, **payload)
        assert (status, err) == (0, b""), (err, events)
        return out

    def look(self, number: int = 0) -> dict[str, object]:
        """Return what is in a copy: the content and mode of files, the targets of links, None for
        empty folders."""
        top = self.top / f"{'0' * 16}.{number}"
        found: dict[str, object] = {}
        for path in top.rglob("*"):
            name = str(path.relative_to(top))
            if path.is_symlink():
                found[name] = Link(os.readlink(path))
            elif path.is_file():
                mode = path.stat().st_mode & 0o777
                found[name] = path.read_bytes() if mode == 0o644 else (path.read_bytes(), mode)
            elif not any(path.iterdir()):
                found[name] = None
        return found

    def changed_at(self) -> dict[str, int]:
        """Return when each file was written, in ns."""
        files = (path for path in (self.top / f"{'0' * 16}.0").rglob("*") if path.is_file())
        return {path.name: path.lstat().st_ctime_ns for path in files}


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(sys.executable, tmp_path)


@pytest.mark.parametrize("python", pythons())
def test_a_job_takes_over_the_files_of_the_one_before(python: str, tmp_path: Path) -> None:
    copies = Copies(python, tmp_path)
    assert copies.job(MADE) == b"ran\n"
    before = copies.changed_at()
    assert copies.look() == FILES
    assert not (tmp_path / "work/project").exists()

    edited = snapshot({**FILES, "data": b"second", "pkg/deep/new.py": b""})
    assert copies.job(edited, b"print(open('data').read())") == b"second\n"
    assert copies.look() == {**FILES, "data": b"second", "pkg/deep/new.py": b""}
    after = copies.changed_at()
    assert {name for name in before if before[name] != after[name]} == {"data"}


def test_nothing_that_a_job_does_to_its_files_reaches_the_next(copies: Copies) -> None:
    copies.job(MADE)
    spoil = b"""
import os, shutil
status = os.stat("data")
with open("data", "r+") as file:
    file.write("FIRST")
os.utime("data", ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time
os.chmod("tool", 0o644)
os.unlink("link"); os.symlink("/etc", "link")
os.chmod("pkg", 0o700)
os.link("main.py", "other name")
open("added", "w").close(); os.makedirs("more/folders"); os.mkfifo("pkg/pipe")
os.rmdir("empty"); os.symlink("/etc", "empty")
os.unlink("pkg/deep/module.py"); os.mkdir("pkg/deep/module.py")
"""
    copies.job(MADE, spoil)
    top = copies.top / f"{'0' * 16}.0"
    # The end of the job removes what it added.
    assert not any(os.path.lexists(top / name) for name in ("added", "more", "pkg/pipe"))
    assert copies.job(MADE, b"print(open('data').read())") == b"first\n"
    assert copies.look() == FILES
    assert (top / "pkg").stat().st_mode & 0o777 == 0o777 & ~_umask()
    assert (top / "main.py").stat().st_nlink == 1


def test_what_a_killed_job_left_is_removed(copies: Copies) -> None:
    copies.job(MADE)
    top = copies.top / f"{'0' * 16}.0"
    (top / "left").write_bytes(b"over")
    (top / "main.py").unlink()
    (top / "main.py").symlink_to("/etc/passwd")
    assert copies.job(MADE) == b"ran\n"
    assert copies.look() == FILES


@pytest.mark.parametrize("record", [b"", b"[]", b'{"boot": 1}', b'{"boot": "x", "files": {}}'])
def test_a_record_that_cannot_be_used_means_new_files(copies: Copies, record: bytes) -> None:
    copies.job(MADE)
    with (copies.top / f"{'0' * 16}.0" / "data").open("r+b") as file:
        file.write(b"FIRST")
    (copies.top / f"{'0' * 16}.0.json").write_bytes(record)
    assert copies.job(MADE, b"print(open('data').read())") == b"first\n"
    assert copies.look() == FILES


def test_links_in_place_of_folders_are_not_followed(copies: Copies, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/module.py").write_bytes(b"precious")
    copies.job(MADE)
    copies.job(MADE, b"import shutil, os; shutil.rmtree('pkg'); os.symlink('%s', 'pkg')"
               % os.fsencode(outside))  # fmt: skip
    copies.job(MADE)
    assert copies.look() == FILES
    assert (outside / "deep/module.py").read_bytes() == b"precious"
    top = copies.top / f"{'0' * 16}.0"
    top.rename(tmp_path / "moved")
    top.symlink_to(outside)
    copies.job(MADE)
    assert not top.is_symlink()
    assert (outside / "deep/module.py").read_bytes() == b"precious"


def test_jobs_at_the_same_time_have_different_copies(copies: Copies) -> None:
    copies.job(MADE)
    held = [_lock(copies.top / f"{'0' * 16}.{number}.lock") for number in range(3)]
    assert copies.job(MADE) == b"ran\n"
    assert copies.look(3) == FILES
    held.append(_lock(copies.top / f"{'0' * 16}.3.lock"))
    code = b"import os; print(os.path.basename(os.getcwd()))"
    assert copies.job(MADE, code) == b"project\n"  # in its own work folder
    for descriptor in held:
        os.close(descriptor)
    assert copies.job(MADE, code) == b"%s.0\n" % (b"0" * 16)


def test_without_a_name_for_copies_a_job_has_its_files_in_its_own_folder(tmp_path: Path) -> None:
    copies = Copies(sys.executable, tmp_path)
    project: dict[str, Any] = {
        "digest": MADE.manifest.digest,
        "copy": None,
        "directory": ".",
        "import_path": [],
        "programs": [],
        "compiled": [],
    }
    status, out, _, events = run(copies.runner, MADE, MADE.pack(), project=project)
    assert (status, out) == (0, b"ran\n"), events
    assert not copies.top.exists()
    assert (tmp_path / "work/project/data").read_bytes() == b"first"


def test_housekeeping_counts_copies_and_removes_those_that_no_job_has(
    copies: Copies, tmp_path: Path
) -> None:
    large = snapshot({**FILES, "large": b"x" * BLOCK * 9})
    copies.job(large)
    cache = tmp_path / "cache"
    usage = housekeep(cache, do="usage")["result"]
    assert [size // (9 * BLOCK) for _, size in usage["snapshots"]] == [1, 1]
    (copies.top / "stray").mkdir()
    lock = copies.top / f"{'0' * 16}.0.lock"
    held = _lock(lock)
    for path in (lock, *(cache / "snapshots/used").iterdir()):
        os.utime(path, (time.time() - 9999,) * 2)
    housekeep(cache, do="prune", unused=999)
    assert [path.name for path in copies.top.iterdir() if "stray" in path.name] == []
    assert copies.look()["large"] == b"x" * BLOCK * 9
    os.close(held)
    housekeep(cache, do="prune", unused=999)
    assert list(copies.top.iterdir()) == []
    assert copies.job(large) == b"ran\n"


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""A log that cannot be kept is shown all the same, and kept once that can be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.errors import EngineError
from stoke.files.paths import job_dir, state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.logs.fallback import LogLocation
from stoke.logs.spool import STDERR, STDOUT
from tests.cli.conftest import Stoke
from tests.lab import until
from tests.spools import spooled
from tests.terminals import Terminal

NOT_KEPT = b"stoke: this log is shown but not saved; the engine keeps it until it can be saved: "
WHY = {"read-only": b"Read-only file system", "full": b"No space left on device"}


class Disk:
    """What lies under the spools: `spoil` makes it take nothing, `hint` makes it good again."""

    def __init__(self, folder: Path, how: str) -> None:
        self.how = how
        self._folder = folder

    def spoil(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.how == "read-only":
            self._mount("--bind", self._folder)
            self._mount("-o", "remount,bind,ro")
        else:
            self._mount("-t", "tmpfs", "-o", "size=64k,mode=700", "none")
            (self._folder / "filling").write_bytes(bytes(64 * 1024))

    def hint(self) -> None:
        subprocess.run(["umount", "--lazy", self._folder], check=True)

    def _mount(self, *arguments: str | Path) -> None:
        subprocess.run(["mount", *arguments, self._folder], check=True)


@pytest.fixture(params=WHY)
def disk(own_home: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("root writes everywhere, and only root can mount what it cannot write to")
    folder = state_dir() / "jobs"
    yield Disk(folder, request.param)
    while subprocess.run(["umount", "--lazy", "--quiet", folder]).returncode == 0:
        pass


def only_job() -> Job:
    with History() as history:
        (job,) = history.list()
    return job


def kept(stream: int) -> bytes:
    return spooled(job_dir(only_job().id), stream)


@pytest.mark.parametrize("quiet", [True, False])
def test_f13_run_shows_an_unsaved_log_and_a_later_process_saves_it(
    disk: Disk, stoke: Stoke, quiet: bool
) -> None:
    disk.spoil()
    code = r"import sys; sys.stdout.buffer.write(b'a\r\n\xff'); sys.stderr.write('e'); sys.exit(3)"
    done = stoke("run", *["--quiet"] * quiet, "-c", code)
    assert (done.returncode, done.stdout) == (3, b"a\r\n\xff")
    assert done.stderr.count(NOT_KEPT) == 1 and WHY[disk.how] in done.stderr
    assert b"export STOKE_STATE_DIR=" in done.stderr
    if quiet:
        assert done.stderr.endswith(b"\ne")
    job = only_job()
    assert (job.state, job.exit_code, job.provisional) == (JobState.FAILED, 3, True)
    shown = stoke("logs", job.id)
    assert (shown.returncode, shown.stdout) == (0, b"a\r\n\xff")
    assert shown.stderr.count(NOT_KEPT) == 1

    disk.hint()
    assert job.id.encode() in stoke("jobs").stdout
    # A listing waits for a second at most; a process of its own reads the rest then.
    until(lambda: not only_job().provisional, "the saved log")
    job = only_job()
    assert (job.state, job.exit_code, job.provisional) == (JobState.FAILED, 3, False)
    assert (kept(STDOUT), kept(STDERR)) == (b"a\r\n\xff", b"e")
    assert not list(state_dir().glob("*.lock"))


def test_f13_following_continues_after_the_saved_part(
    disk: Disk, stoke: Stoke, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    code = """
import os, sys, time
print('kept', flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
print('not kept')
sys.exit(4)
"""
    go_on = tmp_path / "go on"
    done = stoke("run", "--detach", "-c", code, "--", str(go_on))
    job_id = done.stdout.decode().strip()
    until(lambda: stoke("logs", job_id).stdout == b"kept\n", "the log so far")
    disk.spoil()
    followed = terminal("logs", "-f", "--tail", "1", job_id)
    followed.until(b"kept\r\n")
    assert b"not kept" not in followed.screen
    go_on.touch()
    assert followed.wait() == 0
    assert followed.screen.endswith(b"\nnot kept\r\n")
    assert (WHY[disk.how] in followed.screen) and only_job().exit_code == 4
    disk.hint()
    assert stoke("logs", job_id).stdout == b"kept\nnot kept\n"
    assert (kept(STDOUT), only_job().provisional) == (b"kept\nnot kept\n", False)


def test_f13_a_disk_that_fills_up_meanwhile_holds_no_run_up_for_good(
    own_home: Path, stoke: Stoke
) -> None:
    """It waits for room for a while, and shows the log from elsewhere then."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = state_dir() / "jobs"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k,mode=700", "none", folder], check=True)
    try:
        done = stoke("run", "-c", "for number in range(20000): print('%099d' % number)")
        assert done.returncode == 0
        expected = b"".join(b"%099d\n" % number for number in range(20000))
        assert done.stdout == expected
        assert done.stderr.count(NOT_KEPT) == 1
        assert (only_job().state, only_job().provisional) == (JobState.SUCCEEDED, True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert stoke("jobs").returncode == 0
    until(lambda: not only_job().provisional, "the saved log")
    assert kept(STDOUT) == expected


def test_f13_of_several_jobs(disk: Disk, stoke: Stoke) -> None:
    disk.spoil()
    ids = [
        stoke("run", "--detach", "-c", f"print({name!r})").stdout.decode().strip()
        for name in ("one", "two")
    ]
    done = stoke("logs", "-f", "--json", *ids)
    assert done.returncode == 0
    assert b'"one"' in done.stdout and b'"two"' in done.stdout
    assert done.stderr.count(NOT_KEPT) == 2


def test_f13_no_room_for_showing_it_either(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()  # Nothing copies a folder as a file.
    location = LogLocation(tmp_path)
    with pytest.raises(EngineError, match="no room at all"):
        location.fallback_folder(EngineError("no room at all"))
    assert location.current == tmp_path


def test_a_job_that_fills_the_disk_of_the_state_is_seen_and_stopped(
    own_home: Path, stoke: Stoke
) -> None:
    """The history has a reserve for that; a later command allocates it again."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = state_dir()
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", folder], check=True)
    try:
        code = """
import os, sys, time
print('fills', flush=True)
filling = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for size in (65536, 1):
    try:
        while True: os.write(filling, bytes(size))
    except OSError: pass
open(sys.argv[2], 'w').close()
while True: time.sleep(0.1)
"""
        full = own_home / "full"
        command = ("run", "--detach", "-c", code, "--", str(folder / "filling"), str(full))
        job_id = stoke(*command).stdout.decode().strip()
        until(full.exists, "a full disk")
        assert os.statvfs(folder).f_bavail == 0
        listed = stoke("jobs")
        assert (listed.returncode, job_id.encode() in listed.stdout) == (0, True), listed.stderr
        told = stoke("doctor").stdout
        assert b"is on a disk with" in told and b"make room there" in told
        assert stoke("show", job_id).returncode == 0
        ended = stoke("stop", "--now", job_id)
        assert ended.returncode == 0, ended.stderr
        assert f"{job_id} stopped".encode() in ended.stderr
        (folder / "filling").unlink()
        assert stoke("logs", job_id).stdout == b"fills\n"
        until(lambda: not only_job().provisional, "the saved log")
        assert only_job().state is JobState.STOPPED
        assert (folder / "history.reserve").stat().st_size == 256 * 1024
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)

"""Another user of the machine: what this user can read, and files planted where stoke looks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.local.caches import TAG, LocalCaches
from stoke.backend.api import Volume
from stoke.errors import EngineError
from stoke.files.paths import NotOursError, cache_dir, make_private, state_dir
from stoke.history.database import History
from stoke.request.default_index import default_index
from tests.hints import command, is_hint
from tests.lab import until

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like /tmp, in which all users can create files."""
    with tempfile.TemporaryDirectory(prefix="stoke-", dir="/var/tmp") as made:
        folder = Path(made)
        folder.chmod(0o1777)
        monkeypatch.setenv("STOKE_STATE_DIR", str(folder / "state"))
        monkeypatch.setenv("STOKE_CACHE_DIR", str(folder / "cache"))
        yield folder


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def as_nobody(action: Callable[[], object]) -> bool:
    """Return whether a process of another user can do it."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.umask(0)
            action()
        except OSError:
            os._exit(1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def caches() -> LocalCaches:
    return LocalCaches(cache_dir() / "scopes", lambda _: [])


def test_nothing_is_open_whatever_the_umask(shared: Path, umask: int) -> None:
    folder = caches().make("default", "python")
    History().close()
    default_index()
    make_private(state_dir() / "jobs" / "a")
    found = [shared / "cache", shared / "state", *shared.rglob("*")]
    assert folder in found
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077, f"{path} has mode {mode:o}"


def test_no_folder_that_is_made_on_the_way_is_open(shared: Path, umask: int) -> None:
    make_private(shared / "a/b/c")
    for path in (shared / "a", shared / "a/b", shared / "a/b/c"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["cache", "cache/scopes", "cache/scopes/default"])
def test_a_planted_cache_is_refused(shared: Path, name: str) -> None:
    if name != "cache":
        make_private((shared / name).parent)
    planted = shared / name
    planted.mkdir()
    os.chown(planted, NOBODY, NOBODY)
    with pytest.raises(NotOursError, match=str(NOBODY)) as refused:
        caches().make("default", "python")
    assert str(planted) in refused.value.what
    assert "STOKE_CACHE_DIR" in (refused.value.hint or "")


def test_files_of_another_user_in_a_shared_folder_are_refused(shared: Path) -> None:
    (shared / "mine").mkdir(mode=0o700)
    plans: list[Callable[[], object]] = [
        lambda: os.makedirs(shared / "state/jobs", 0o777),
        lambda: os.symlink(shared / "mine", shared / "state"),
        lambda: os.symlink("/root", shared / "state"),
        lambda: os.symlink(shared / "not-there", shared / "state"),
        lambda: (shared / "state").write_text("a file"),
    ]
    for plan in plans:
        assert as_nobody(plan)
        with pytest.raises(EngineError) as refused:
            make_private(state_dir() / "jobs/a")
        assert "STOKE_STATE_DIR" in (refused.value.hint or "")
        with pytest.raises(EngineError):
            History()
        assert not (shared / "not-there").exists()
        assert os.listdir(shared / "mine") == []
        subprocess.run(["rm", "-rf", shared / "state"], check=True)


def test_a_cache_with_files_of_another_user_is_removed_as_the_hint_says(shared: Path) -> None:
    """A job's program that ran as root left them there."""
    folder = shared / "cache/scopes/default/python"
    theirs = folder / "by-root"
    theirs.mkdir(parents=True)
    (theirs / "file").touch()
    for path in (shared / "cache", *(shared / "cache").rglob("*")):
        if theirs not in (path, *path.parents):
            os.chown(path, NOBODY, NOBODY)
    report = shared / "report"

    def remove() -> None:
        try:
            LocalCaches(shared / "cache/scopes", lambda _: []).remove(
                Volume("local", "default", "python", str(folder))
            )
        except EngineError as error:
            report.write_text(f"{error.what}\n{error.hint}")

    assert as_nobody(remove)
    what, hint = report.read_text().split("\n")
    assert what == f"cannot remove all of {folder}"
    program, *words = command(is_hint(hint, "remove it: sudo rm -r {}"), "sudo")
    assert program == "rm"
    subprocess.run([program, *words], check=True)
    assert not folder.exists()


def test_a_folder_below_another_users_is_refused(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is our own, but the other user can replace it at any moment."""
    assert as_nobody(lambda: os.mkdir(shared / "his", 0o777))
    monkeypatch.setenv("STOKE_CACHE_DIR", str(shared / "his/cache"))
    (shared / "his/cache").mkdir(mode=0o700)
    with pytest.raises(NotOursError):
        make_private(cache_dir())


def test_the_shared_folder_itself_is_refused_and_stays_as_it_is(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_STATE_DIR", str(shared))
    with pytest.raises(NotOursError) as refused:
        make_private(state_dir() / "jobs")
    assert f"{shared}/stoke" in (refused.value.hint or "")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


def test_a_formerly_open_cache_is_closed_and_its_environments_are_not_used(shared: Path) -> None:
    """Folders as an older stoke made them with umask 000, and code planted there."""
    before = os.umask(0)
    try:
        (shared / "cache/scopes/default/python").mkdir(parents=True)
        (shared / "cache/scopes/default/python" / TAG).write_text("x")
    finally:
        os.umask(before)
    planted = shared / "cache/scopes/default/python/venvs/k/bin/python"

    def plant() -> None:
        planted.parent.mkdir(parents=True)
        planted.write_text("#!/bin/sh\ntouch /tmp/pwned\n")
        (shared / "cache/default-index").write_text("http://evil.example/simple")

    assert as_nobody(plant)
    assert "evil" not in (default_index() or "")
    assert planted.exists()
    (shared / "cache").chmod(0o777)
    folder = caches().make("default", "python")
    assert not planted.exists()
    assert not as_nobody(plant)
    assert not as_nobody(lambda: os.listdir(folder))
    for level in (folder, *folder.parents[:3]):
        assert not level.stat().st_mode & 0o022


def test_an_index_that_another_user_named_is_not_used(shared: Path) -> None:
    make_private(cache_dir())
    (cache_dir() / "default-index").write_text("http://evil.example/simple")
    os.chown(cache_dir() / "default-index", NOBODY, NOBODY)
    assert "evil" not in (default_index() or "")


def test_a_history_of_another_user_is_refused(shared: Path) -> None:
    make_private(state_dir())
    (state_dir() / "history.sqlite").write_bytes(b"")
    os.chown(state_dir() / "history.sqlite", NOBODY, NOBODY)
    with pytest.raises(NotOursError):
        History()


def test_the_command_prints_a_hint(shared: Path) -> None:
    assert as_nobody(lambda: os.mkdir(shared / "cache", 0o777))
    done = subprocess.run(
        [Path(sys.executable).with_name("stoke"), "run", "-c", "print('ran')"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 125, done.stderr
    assert "ran" not in done.stdout
    assert f"{shared}/cache belongs to user {NOBODY}" in done.stderr
    assert "export STOKE_CACHE_DIR=" in done.stderr


@pytest.mark.parametrize("kind", ["hard link", "symbolic link"])
@pytest.mark.parametrize("opened", ["state", "cache"])
def test_links_to_a_file_of_ours_do_not_change_it(shared: Path, kind: str, opened: str) -> None:
    """Another user who can write to the folders plants links under the names that stoke writes to."""

    def run() -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("stoke")
        return subprocess.run(
            [program, "run", "-c", "print('ran')"], capture_output=True, text=True, timeout=120
        )

    assert run().stdout == "ran\n"
    ours = shared / "ours.txt"
    ours.write_text("text\n" * 1000)
    before = ours.stat()
    # The supervisor removes the files of an ended job later.
    until(lambda: not [*(shared / "state").glob("local-removed/*")], "the removal")
    names = [path for path in (shared / opened).rglob("*") if path.is_file()]
    assert len(names) > 1
    for name in names:
        name.unlink()
        if kind == "hard link":
            os.link(ours, name)  # Its owner is the victim.
        else:
            os.symlink(ours, name)
            os.chown(name, NOBODY, NOBODY, follow_symlinks=False)
        os.chmod(name.parent, 0o777)
    done = run()
    assert done.returncode in (0, 125) and "Traceback" not in done.stderr
    after = ours.stat()
    assert ours.read_text() == "text\n" * 1000
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


def test_a_folder_reached_over_another_users_link_is_refused(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / "mine").mkdir(mode=0o700)
    assert as_nobody(lambda: os.symlink(shared / "mine", shared / "link"))
    for variable, folder in (("STOKE_STATE_DIR", state_dir), ("STOKE_CACHE_DIR", cache_dir)):
        monkeypatch.setenv(variable, str(shared / "link/below"))
        with pytest.raises(NotOursError):
            make_private(folder())
    assert os.listdir(shared / "mine") == []

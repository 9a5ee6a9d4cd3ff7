"""Hints about the folders that stoke writes to, followed until it can."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.backend.registry import load_backend
from stoke.config.model import Config
from stoke.files.paths import history_file, is_there, job_dir, make_private, state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.schema import MIGRATIONS
from stoke.logs.reader import save
from stoke.logs.spool import STDOUT, SpoolWriter
from stoke.race.ephemeral_scope import EphemeralScope
from stoke.request import presets
from tests.backends.docker.deliveries import delivery, ended, unreported
from tests.hints import exported, is_hint, refused
from tui import ui_state

FOLDER = "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder"


def job(job_id: str = "fit-aaaaaa") -> Job:
    return Job(job_id, "fit", "local", "default", JobState.RUNNING, time.time())


def note(history: History, text: str = "x" * 100_000) -> None:
    history.add(job(f"fit-{os.urandom(3).hex()}"), text, None)


def keep_history() -> None:
    with History() as history:
        note(history)


def keep_log() -> None:
    writer = SpoolWriter(make_private(job_dir("fit-aaaaaa")))
    writer.add(STDOUT, 1, b"x" * 200_000 + b"\n")
    writer.close()


def open_scope() -> None:
    # The history is on another disk.
    path = Path(os.environ["HISTORY_ELSEWHERE"])
    with History(path) as history, EphemeralScope(load_backend("local", Config()), history):
        pass


def run_job() -> None:
    backend = load_backend("local", Config())
    made = delivery("#" * 60_000 + "\npass")
    backend.submit(made, unreported)
    assert ended(backend, made.job_id).exit_code == 0


def keep_preset() -> None:
    presets.save(presets.path_of("mine"), "{}" * 5000)


def keep_settings() -> None:
    ui_state.save("screens", {"text": "x" * 10_000})


@pytest.fixture
def full(own_home: Path) -> Iterator[Callable[[], Path]]:
    """Call it: the folder of everything has no room left, and the file that it returns takes it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", own_home], check=True)

    def fill() -> Path:
        ballast = own_home / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
        return ballast

    yield fill
    subprocess.run(["umount", "--lazy", own_home], check=True)


@pytest.mark.parametrize(
    ("write", "template"),
    [
        (keep_history, FOLDER),
        (keep_log, FOLDER),
        (keep_settings, FOLDER),
        (open_scope, FOLDER),
        (run_job, FOLDER),
        (
            keep_preset,
            "make room there, or name another configuration: export STOKE_CONFIG=/some/config.toml",
        ),
    ],
)
def test_a_full_disk(
    full: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[], None],
    template: str,
) -> None:
    # What was there before: a history, and the folders.
    with History() as history:
        note(history, "x")
    make_private(state_dir() / "ephemeral")
    make_private(state_dir() / "local")
    make_private(job_dir("fit-aaaaaa"))
    monkeypatch.setenv("HISTORY_ELSEWHERE", str(tmp_path / "history.sqlite"))
    ballast = full()
    said = refused(write, template)
    with monkeypatch.context() as elsewhere:
        for name, value in exported(said, tmp_path / "other").items():
            elsewhere.setenv(name, value)
        write()
    ballast.unlink()
    write()


def test_a_log_is_saved_in_another_place(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    writer.add(STDOUT, 1, b"text\n")
    writer.close()
    refused(lambda: save(tmp_path / "spool", tmp_path / "missing/log"), "choose another file name")
    assert save(tmp_path / "spool", tmp_path / "log") == 5


@pytest.mark.parametrize("variable", ["STOKE_STATE_DIR", "STOKE_CACHE_DIR"])
def test_the_doctor_on_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(variable, str(tmp_path / "file/x"))
    backend = load_backend("local", Config())
    (broken,) = [one for one in backend.check() if not one.works]
    said = is_hint(broken.hint, "export {}=/some/folder")
    for name, value in exported(said, tmp_path / "other").items():
        monkeypatch.setenv(name, value)
    assert all(one.works for one in backend.check())


def test_a_folder_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a user whom the system's list of users does not have."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    for name in ("HOME", "STOKE_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    user = 123_456
    os.setresuid(user, user, 0)
    try:
        said = refused(state_dir, "name one: export HOME=/some/folder")
    finally:
        os.setresuid(0, 0, 0)
    for name, value in exported(said, tmp_path / "other").items():
        monkeypatch.setenv(name, value)
    assert make_private(state_dir()).is_dir()


# --- the history -----------------------------------------------------------------------------------


def open_elsewhere(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in exported(said, tmp_path / "other").items():
        monkeypatch.setenv(name, value)
    keep_history()
    assert history_file().is_relative_to(tmp_path / "other")


def test_a_history_of_a_newer_stoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upgrading is what a test cannot do: another history it can."""
    keep_history()
    with sqlite3.connect(history_file()) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    said = refused(
        History, "upgrade stoke, or keep another history: export STOKE_STATE_DIR=/some/folder"
    )
    open_elsewhere(said, tmp_path, monkeypatch)


def test_a_history_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_private(state_dir())
    history_file().mkdir()
    said = refused(
        History, "make the folder writable, or name another: export STOKE_STATE_DIR=/some/folder"
    )
    open_elsewhere(said, tmp_path, monkeypatch)


def test_the_program_that_holds_a_history_is_seen_and_waited_for() -> None:
    keep_history()
    holder = sqlite3.connect(history_file(), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Exception, match="another program holds") as caught:
        History(read_only=True).list()
    said = is_hint(getattr(caught.value, "hint", None), "wait for it, or see which one: fuser {}")
    shown = subprocess.run(
        shlex.split(said.rpartition(": ")[2]), stdout=subprocess.PIPE, check=True
    )
    assert str(os.getpid()) in shown.stdout.decode().split()
    holder.close()
    keep_history()


# --- folders of other users ------------------------------------------------------------------------

NOBODY = 65534


def test_a_folder_for_all_users_gets_one_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "the shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("STOKE_STATE_DIR", str(shared))
    said = refused(lambda: make_private(state_dir()), "name a folder in it: export {}={}")
    for name, value in exported(said).items():
        monkeypatch.setenv(name, value)
    make_private(state_dir())
    assert state_dir() == shared / "stoke"


def test_a_folder_of_another_user_is_replaced_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `sudo`: the test is root."""
    if os.geteuid() != 0:
        pytest.skip("giving a folder away needs root")
    folder = make_private(state_dir() / "my jobs")
    os.chown(folder, NOBODY, NOBODY)
    template = "name a folder of your own: export {}=/some/folder; or remove it: sudo rm -r {}"
    said = refused(lambda: make_private(folder), template)
    with monkeypatch.context() as elsewhere:
        for name, value in exported(said.partition(";")[0], tmp_path / "other").items():
            elsewhere.setenv(name, value)
        make_private(state_dir() / "my jobs")
    subprocess.run(["sh", "-ec", said.partition("sudo ")[2]], check=True)
    make_private(folder)
    assert folder.stat().st_uid == 0


def test_a_home_of_another_user_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    monkeypatch.delenv("STOKE_STATE_DIR")
    monkeypatch.setenv("HOME", "/root")
    os.seteuid(NOBODY)
    try:
        said = refused(
            lambda: is_there(history_file()),
            "if HOME is another user's folder, set your own: export HOME=/some/folder",
        )
        for name, value in exported(said).items():
            monkeypatch.setenv(name, value)
        assert not is_there(history_file())
    finally:
        os.seteuid(0)

"""Files written in one step, and file locks between processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stoke.files.atomic import replacing, write_atomically
from stoke.files.file_lock import is_locked, take_lock

HOLDER = """
import sys
from pathlib import Path
from stoke.files.file_lock import take_lock
lock = take_lock(Path(sys.argv[1]), wait=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_file_is_replaced_whole_and_private(folder: Path) -> None:
    path = folder / "note"
    write_atomically(path, "é")
    assert path.read_bytes() == "é".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == "é".encode()
    assert path.read_bytes() == b"new"
    assert os.listdir(folder) == ["note"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    path = folder / "note"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    (folder / "inner").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(folder / "inner", b"x")
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(folder)) == ["inner", "note"]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(folder: Path) -> None:
    (folder / "other").write_bytes(b"precious")
    (folder / f".note.{os.getpid()}.new").symlink_to(folder / "other")
    write_atomically(folder / "note", b"x")
    assert (folder / "other").read_bytes() == b"precious"
    assert not (folder / "note").is_symlink()


def test_a_lock_is_held_until_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_locked(path)
    with pytest.raises(FileNotFoundError):
        take_lock(path, wait=False, create=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    assert is_locked(path)
    assert take_lock(path, wait=False) is None
    holder.send_signal(signal.SIGKILL)
    lock = take_lock(path, wait=True)  # Waits for the kernel to release it.
    holder.communicate()
    assert lock is not None and is_locked(path)
    os.close(lock)
    assert not is_locked(path)


def test_the_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    program = (
        "import resource, sys, pathlib\n"
        "from stoke.files.atomic import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try:\n    write_atomically(pathlib.Path(sys.argv[1]), 'x' * 100)\n"
        "except OSError as error:\n    print(error.filename)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{path}\n"

"""A history that cannot be opened or written, and the hints for it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoke.errors import EngineError
from stoke.history.database import History
from tests.history.records import job


def break_header(path: Path) -> None:
    path.write_bytes(b"this was a database once" + path.read_bytes()[24:])


def break_tables(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [break_header, break_tables])
def test_a_damaged_file_is_named_and_the_hint_mends(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "my state" / "h.sqlite"
    with History(path) as history:
        for number in range(50):
            history.add(job(f"fit-{number:06}", number), "x" * 200, None)
    damage(path)

    with pytest.raises(EngineError) as caught, History(path) as history:
        history.list()

    assert str(path) in caught.value.what
    assert "damaged" in caught.value.what
    command = (caught.value.hint or "").partition(": ")[2]
    assert shlex.split(command)[0] == "mv"
    subprocess.run(["sh", "-ec", command], check=True, timeout=30)
    with History(path) as history:
        history.add(job(), None, None)
        assert len(history.list()) == 1


@pytest.fixture
def unprivileged() -> Any:
    """Run a function as a user other than root, in this process."""

    def run(function: Callable[[], None]) -> None:
        if os.geteuid() != 0:
            function()
            return
        os.seteuid(65534)
        try:
            function()
        finally:
            os.seteuid(0)

    return run


def test_a_folder_that_cannot_be_written_is_named_with_a_way_out(
    unprivileged: Callable[[Callable[[], None]], None],
) -> None:
    """The folder would be in the root folder, which only root may write."""
    folder = Path("/stoke-cannot-make-this") / "state"

    def open_there() -> None:
        with pytest.raises(EngineError) as caught:
            History(folder / "h.sqlite")
        assert str(folder) in caught.value.what
        assert "export STOKE_STATE_DIR=" in (caught.value.hint or "")

    unprivileged(open_there)


def test_a_file_that_cannot_be_written_is_named_with_a_way_out(
    unprivileged: Callable[[Callable[[], None]], None],
) -> None:
    # Not in tmp_path, which is closed to other users.
    folder = Path(tempfile.mkdtemp())
    path = folder / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
    path.chmod(0o444)
    folder.chmod(0o555)

    def write() -> None:
        with pytest.raises(EngineError) as caught, History(path) as history:
            history.add(job("fit-bbbbbb"), None, None)
        assert str(path) in caught.value.what
        assert "export STOKE_STATE_DIR=" in (caught.value.hint or "")

    try:
        unprivileged(write)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_full_disk_is_reported_and_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
        pages = history._db.execute("PRAGMA page_count").fetchone()[0]
        history._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(EngineError) as caught:
            history.add(job("fit-bbbbbb"), "x" * 10**6, None)
        assert str(path) in caught.value.what and "full" in caught.value.what
        assert [found.id for found in history.list()] == ["fit-aaaaaa"]


def test_stored_files_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    """Specs hold what people wrote."""
    before = os.umask(0o022)
    try:
        with History(tmp_path / "state" / "h.sqlite"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0

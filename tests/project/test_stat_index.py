"""Unchanged files are not read again, and changed ones always are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.project import contents, stat_index
from stoke.project import snapshot as snapshots
from stoke.project.stat_index import StatIndex
from tests.project.trees import make_tree, snapshot

OLD = time.time() - 3600


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that snapshots read."""
    read: list[str] = []
    real = contents.hash_file

    def counted(root: str, path: str) -> tuple[str, os.stat_result]:
        read.append(path)
        return real(root, path)

    monkeypatch.setattr(snapshots, "hash_file", counted)
    return read


def make_old(root: Path, *paths: str) -> None:
    """The time of a change cannot be set, so the index gets a later time of reading instead."""
    for path in paths:
        os.utime(root / path, (OLD, OLD))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_index, "YOUNG", -3600.0)


def test_an_unchanged_file_is_read_once(tmp_path: Path, read: list[str], later: None) -> None:
    root = make_tree(tmp_path / "p", "a.py", "b.py")
    first = snapshot(root)
    assert sorted(read) == ["a.py", "b.py"]
    assert snapshot(root).manifest == first.manifest
    assert len(read) == 2
    (root / "a.py").write_text("a.pY")
    changed = snapshot(root)
    assert read[2:] == ["a.py"] and changed.manifest.digest != first.manifest.digest
    (root / "c.py").write_text("new")
    snapshot(root)
    assert read[3:] == ["c.py"]


def test_a_young_file_is_read_again(tmp_path: Path, read: list[str]) -> None:
    """A second change within the same tick of the clock leaves the times as they were."""
    root = make_tree(tmp_path / "p", "a.py")
    snapshot(root)
    snapshot(root)
    assert read == ["a.py", "a.py"]


def test_a_change_with_the_same_size_and_time_is_detected(
    tmp_path: Path, read: list[str], later: None
) -> None:
    root = make_tree(tmp_path / "p", "a.py")
    make_old(root, "a.py")
    before = snapshot(root).manifest.digest
    (root / "a.py").write_text("A.PY")
    make_old(root, "a.py")
    assert snapshot(root).manifest.digest != before
    replacement = root.parent / "new"
    replacement.write_text("new!")
    make_old(root.parent, "new")
    replacement.rename(root / "a.py")
    snapshot(root)
    assert read == ["a.py"] * 3


@given(
    st.binary(max_size=200) | st.sampled_from([b'{"version":1,"files":{"a":[1]}}', b"[]", b"{}"])
)
def test_a_damaged_index_is_an_empty_one(data: bytes) -> None:
    index = StatIndex("/nowhere")
    index._path.parent.mkdir(parents=True, exist_ok=True)
    index._path.write_bytes(data)
    assert StatIndex("/nowhere").find("a", os.stat("/")) is None


def test_indexes_are_bounded(tmp_path: Path, later: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_index, "MAX_ROOTS", 3)
    for number in range(5):
        snapshot(make_tree(tmp_path / f"p{number}", "a.py"))
    folder = StatIndex("/x")._path.parent
    assert len(list(folder.iterdir())) == 3
    assert StatIndex(str(tmp_path / "p4"))._known


def test_a_state_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "file"))
    assert snapshot(make_tree(tmp_path / "p", "a.py")).manifest.entries

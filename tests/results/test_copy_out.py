"""Copying results out: nothing is overwritten unasked, and no link is followed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stoke.errors import EngineError
from stoke.results.collect import Collected, ResultFile
from stoke.results.compare import compare_results
from stoke.results.copy_out import copy_out
from tests.hints import refused

Files = dict[str, bytes]


def collected(folder: Path, files: Files) -> Collected:
    made = []
    for path, data in sorted(files.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        made.append(ResultFile(path, len(data), hashlib.sha256(data).hexdigest()))
    return Collected(tuple(made))


def copy(tmp_path: Path, files: Files, force: bool = False) -> int:
    results = collected(tmp_path / "from", files)
    return copy_out(
        results, tmp_path / "from", tmp_path / "to", force=force, progress=lambda *_: None
    )


def test_files_are_copied_once(tmp_path: Path) -> None:
    files = {"a": b"1", "d/e/b\udcff": b"2" * 3_000_000}
    assert copy(tmp_path, files) == 2
    assert {path: (tmp_path / "to" / path).read_bytes() for path in files} == files
    assert copy(tmp_path, files) == 0


def test_a_differing_file_stops_everything_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to/b").write_bytes(b"mine")
    template = "name another folder, or replace them: --force"
    refused(lambda: copy(tmp_path, {"a": b"1", "b": b"2"}), template)
    assert not (tmp_path / "to/a").exists() and (tmp_path / "to/b").read_bytes() == b"mine"
    assert copy(tmp_path, {"a": b"1", "b": b"2"}, force=True) == 2
    assert (tmp_path / "to/b").read_bytes() == b"2"


@pytest.mark.parametrize("force", [False, True])
def test_no_link_in_the_folder_is_followed(tmp_path: Path, force: bool) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to/d").symlink_to(tmp_path / "elsewhere")
    refused(lambda: copy(tmp_path, {"d/x": b"1"}, force), "name another folder")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "to/a").symlink_to(tmp_path / "precious")
    assert copy(tmp_path, {"a": b"new"}, force=True) == 1
    assert (tmp_path / "precious").read_bytes() == b"old"
    assert not (tmp_path / "to/a").is_symlink()


def test_a_result_that_changed_since_is_not_copied(tmp_path: Path) -> None:
    results = collected(tmp_path / "from", {"a": b"1"})
    (tmp_path / "from/a").write_bytes(b"2")
    with pytest.raises(EngineError, match="has changed"):
        copy_out(results, tmp_path / "from", tmp_path / "to", force=True, progress=lambda *_: None)
    assert list((tmp_path / "to").iterdir()) == []


def test_results_are_compared_by_name_size_and_digest(tmp_path: Path) -> None:
    first = collected(tmp_path / "1", {"same": b"s", "gone": b"g", "other": b"abc"})
    second = collected(tmp_path / "2", {"same": b"s", "new": b"n", "other": b"abd"})
    found = compare_results(first, second)
    assert found.same == 1
    assert found.changes[2].sides(str)[0].startswith("3 ba7816bf8f01")
    assert [(one.path, one.change) for one in found.changes] == [
        ("gone", "removed"),
        ("new", "added"),
        ("other", "changed"),
    ]

"""The runner's project phase, on every Python: what it stores, what it refuses, what it survives."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoke.remote.common.trees import remove_tree
from stoke.remote.events import Event
from tests.remote import test_hostile_volume as hostile
from tests.remote.test_runner_pythons import Runner, pythons
from tests.snapshots import Snapshot, snapshot, snapshot_of

MAIN = b"import os, sys; print(sorted(os.listdir('.')), open('data').read(), sys.argv)"
TREE = snapshot({"main.py": MAIN, "data": b"first", "sub/deep/empty": None})


def run(
    runner: Runner, made: Snapshot, pack: bytes | None, **payload: Any
) -> tuple[int, bytes, bytes, list[Event]]:
    project = {
        "digest": made.manifest.digest,
        "copy": "0" * 16,
        "directory": ".",
        "import_path": [],
        "programs": [],
        "compiled": [],
    }
    start = {"kind": "script", "name": "main.py"}
    remove_tree(str(runner.folder / "work"))
    code = payload.pop("code", "")
    return runner.run(code, pack, **{"project": project, "start": start, **payload})


def error_of(events: list[Event]) -> str:
    (error,) = [event for event in events if event["event"] == "error"]
    assert error["phase"] == "project"
    return str(error["text"])


def stored(folder: Path) -> set[str]:
    """The hashes that the store of a cache has, each checked."""
    found = set()
    for path in (folder / "cache/snapshots/objects").glob("*/*"):
        assert path.stat().st_mode & 0o777 == 0o444
        sha256 = path.parent.name + path.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        found.add(sha256)
    return found


@pytest.fixture
def here(tmp_path: Path) -> Runner:
    return Runner(sys.executable, tmp_path)


@pytest.mark.parametrize("python", pythons())
def test_files_are_stored_once_and_copied_for_each_job(python: str, tmp_path: Path) -> None:
    runner = Runner(python, tmp_path)
    out = b"['data', 'main.py', 'sub'] first ['main.py']\n"
    code, printed, err, events = run(runner, TREE, TREE.pack())
    assert (code, printed, err) == (0, out, b""), events
    (phase,) = [
        event for event in events if (event.get("phase"), "hit" in event) == ("project", True)
    ]
    assert (phase["hit"], phase["files"]) == (False, 2)
    assert phase["bytes"] == sum(map(len, TREE.contents.values()))
    assert stored(tmp_path) == TREE.contents.keys()
    assert not (tmp_path / "pack").exists()
    (tmp_path / "work/project/data").write_bytes(b"changed")
    assert run(runner, TREE, None)[:2] == (0, out)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_pack_that_is_cut_anywhere_leaves_nothing_that_counts(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(sys.executable, Path(folder))
        pack = TREE.pack()
        at = data.draw(st.integers(0, len(pack) - 1))
        code, printed, _, events = run(runner, TREE, pack[:at])
        assert (code, printed) == (125, b"")
        assert "arrived" in error_of(events)
        assert stored(Path(folder)) < TREE.contents.keys()
        assert run(runner, TREE, pack)[0] == 0
        assert stored(Path(folder)) == TREE.contents.keys()


def test_a_content_with_another_hash_is_refused(here: Runner) -> None:
    pack = TREE.pack().replace(b"first", b"FIRST")
    code, _, _, events = run(here, TREE, pack)
    assert (code, error_of(events)[:11]) == (125, "the content")
    assert len(stored(here.folder)) < len(TREE.contents)


@pytest.mark.parametrize("head", [b"", b"\n", b"{}\n", b'[["x", 1]]\n', b"[[1]]\n", b"\xff\n"])
def test_a_damaged_list_of_contents_is_refused(here: Runner, head: bytes) -> None:
    code, _, _, events = run(here, TREE, head)
    assert code == 125
    assert "project" in error_of(events)


FILE = ("f", 0o644, 5, hashlib.sha256(b"first").hexdigest())
REFUSED: dict[str, list[list[Any]]] = {
    "above": [["../x", *FILE]],
    "above within": [["a/../../x", *FILE]],
    "absolute": [["/tmp/stoke-hostile", *FILE]],
    "empty": [["", *FILE]],
    "empty within": [["a//b", *FILE]],
    "dot": [["a/./b", *FILE]],
    "NUL": [["a\0b", *FILE]],
    "half a surrogate pair": [["a\ud800", *FILE]],
    "folder above": [["../x", "d"]],
    "link above": [["../x", "l", "y"]],
    "twice": [["a", *FILE], ["a", *FILE]],
    "a file as a folder": [["a", *FILE], ["a/b", *FILE]],
    "through a link": [["a", "l", ".."], ["a/b", *FILE]],
    "a link through a link": [["a", "l", ".."], ["a/b", "l", "c"]],
    "link out": [["a", "l", "../outside"]],
    "absolute link": [["a", "l", "/etc/passwd"]],
    "link out of a folder": [["s/a", "l", "../../outside"]],
    "links that lead out together": [["d/e/up", "l", "../.."], ["x", "l", "d/e/up/../outside"]],
    "other kind": [["a", "x"]],
    "no size": [["a", "f", 0o644]],
    "a negative size": [["a", "f", 0o644, -1, FILE[3]]],
    "no hash": [["a", "f", 0o644, 5, "../../x"]],
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_leaves_the_folder(here: Runner, name: str) -> None:
    (here.folder / "outside").write_text("precious")
    made = snapshot_of(REFUSED[name], {"data": b"first"})
    code, printed, _, events = run(here, made, made.pack())
    assert (code, printed) == (125, b""), events
    text = error_of(events)
    assert any(word in text for word in ("project", "manifest")), text
    assert "the runner failed" not in text
    assert set(os.listdir(here.folder)) - {"home"} == {"outside", "cache", "work", "pack"}
    assert set(os.listdir(here.folder / "work")) <= {"project"}
    assert (here.folder / "outside").read_text() == "precious"
    assert not os.path.lexists("/tmp/stoke-hostile")


def test_two_jobs_that_store_the_same_both_run(here: Runner) -> None:
    folders = [here.folder / name for name in ("one", "two")]
    results: list[int] = []

    def submit(folder: Path) -> None:
        folder.mkdir()
        (folder / "cache").symlink_to(here.folder / "cache")
        results.append(run(Runner(sys.executable, folder), TREE, TREE.pack())[0])

    (here.folder / "cache").mkdir()
    threads = [threading.Thread(target=submit, args=[folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0, 0]
    assert stored(here.folder) == TREE.contents.keys()


def test_a_thousand_files_are_copied_completely(here: Runner) -> None:
    files = {f"{number % 7}/{number}": b"%d" % number * 50 for number in range(1000)}
    code = b"import os; print(all(open(f'{n % 7}/{n}').read() == str(n) * 50 for n in range(1000)))"
    made = snapshot({**files, "main.py": code})
    assert run(here, made, made.pack())[:2] == (0, b"True\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_cache_still_provides_its_contents(here: Runner) -> None:
    cache = here.folder / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", cache], check=True)
    try:
        assert run(here, TREE, TREE.pack())[0] == 0
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        assert run(here, TREE, None)[0] == 0
        after = snapshot({"main.py": MAIN, "data": b"second"})
        pack = after.pack(without=TREE.contents)
        code, printed, _, events = run(here, after, pack, on_cache_trouble="uncached")
        assert (code, printed) == (0, b"['data', 'main.py'] second ['main.py']\n"), events
        (note,) = [event["text"] for event in events if event["event"] == "note"]
        assert "new files are not cached" in note
        assert run(here, after, pack)[0] == 125
    finally:
        subprocess.run(["umount", "--lazy", cache], check=True)


def test_entries_of_hostile_jobs_in_the_store_are_replaced(here: Runner) -> None:
    run(here, TREE, TREE.pack())
    (here.folder / "outside").mkdir()
    (here.folder / "outside/precious").write_text("precious")
    cache = here.folder / "cache"
    digest = TREE.manifest.digest
    places = [
        "snapshots", "snapshots/objects", f"snapshots/objects/{digest[:2]}",
        f"snapshots/objects/{digest[:2]}/{digest[2:]}", "snapshots/used",
        f"snapshots/used/{digest}", "snapshots.lock",
    ]  # fmt: skip
    for thing in hostile.THINGS:
        if thing in (hostile.closed_file, hostile.closed_folder, hostile.deep, hostile.many_values):
            continue
        for place in places:
            remove_tree(str(cache / place))
            (cache / place).parent.mkdir(parents=True, exist_ok=True)
            thing(str(cache / place))
            code, _, _, events = run(here, TREE, None)
            assert code == 0 or "no longer in the cache" in error_of(events), (thing, place)
            code, _, _, events = run(here, TREE, TREE.pack())
            assert code == 0, (thing.__name__, place, events)
    assert os.listdir(here.folder / "outside") == ["precious"]
    assert (here.folder / "outside/precious").read_text() == "precious"

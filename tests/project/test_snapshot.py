"""Snapshots of folders: links, modes, names, files that cannot be read, limits."""

from __future__ import annotations

import os
import shlex
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.project import contents
from stoke.project.listing import ProjectListing
from stoke.project.snapshot import take_snapshot
from stoke.project.walk import SPECIAL, largest, link_target
from stoke.request.spec import Project
from tests.hints import refused
from tests.project.trees import LIMIT, git, listed, make_tree, paths, reasons, snapshot


def test_modes_and_contents_are_those_of_the_files(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "run.sh", "a.py")
    (root / "run.sh").chmod(0o711)
    (root / "a.py").chmod(0o660)
    taken = snapshot(root)
    assert {file.path: file.mode for file in taken.manifest.files} == {
        "a.py": 0o644, "run.sh": 0o755,
    }  # fmt: skip
    assert snapshot(root).manifest.digest == taken.manifest.digest
    (root / "a.py").chmod(0o755)
    assert snapshot(root).manifest.digest != taken.manifest.digest


def test_names_of_all_kinds(tmp_path: Path) -> None:
    names = [b"new\nline", b'"quoted"', b"it's", b"\xff\xfe", b"-rf", b" ", b"a\\b", b"*", b"..."]
    root = make_tree(tmp_path / "p")
    git(root, "init")
    for name in names:
        (root / os.fsdecode(name)).write_bytes(name)
    expected = {os.fsdecode(name) for name in names}
    assert paths(root) == expected
    assert {file.path for file in snapshot(root).manifest.files} == expected


def test_links_inside_are_kept_and_absolute_ones_made_relative(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "data/a.csv", "src/main.py")
    (root / "src/data").symlink_to("../data")
    (root / "src/absolute").symlink_to(root / "data/a.csv")
    (root / "round").symlink_to("../p/data")
    (root / "dangling").symlink_to("missing")
    (root / "loop").symlink_to("loop")
    (root / "here").symlink_to(".")
    assert dict(listed(root).links) == {
        "src/data": "../data", "src/absolute": "../data/a.csv", "round": "data",
        "dangling": "missing", "loop": "loop", "here": ".",
    }  # fmt: skip


def test_a_link_that_leads_outside_is_refused_by_name(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "a.py")
    (root / "out").symlink_to("/etc")
    (root / "up").symlink_to("..")
    (root / "through").symlink_to("out/passwd")
    patterns: list[str] = []
    for _ in range(3):
        hint = refused(lambda: listed(root, exclude=tuple(patterns)), "leave it out: {}")
        patterns.append(shlex.split(hint)[-1])
    assert sorted(patterns) == ["/out", "/through", "/up"]
    assert paths(root, exclude=tuple(patterns)) == {"a.py"}


LINKS = st.lists(st.sampled_from(["..", ".", "a", "b", "in", "p", "x"]), min_size=1, max_size=6)


@given(LINKS.map("/".join), st.booleans())
def test_a_kept_link_leads_to_the_same_file_in_a_copy(target: str, absolute: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(os.path.realpath(folder))
        here, there = make_tree(top / "p", "a/b/x", "x"), make_tree(top / "q", "a/b/x", "x")
        for root in (here, there):
            (root / "a/in").symlink_to("b")
        target = f"{here}/{target}" if absolute else target
        kept = link_target(str(here), "a/link", target)
        resolved = os.path.realpath(here / "a" / target)
        inside = resolved == str(here) or resolved.startswith(f"{here}/")
        assert (kept is not None) == inside
        if kept is not None:
            (here / "a/link").symlink_to(target)
            (there / "a/link").symlink_to(kept)
            expected = os.path.relpath(os.path.realpath(here / "a/link"), here)
            assert os.path.relpath(os.path.realpath(there / "a/link"), there) == expected


@pytest.mark.parametrize("in_repository", [True, False])
def test_pipes_and_sockets_are_left_out_with_a_note(tmp_path: Path, in_repository: bool) -> None:
    root = make_tree(tmp_path / "p", "a.py")
    if in_repository:
        git(root, "init")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        assert paths(root) == {"a.py"}
        assert reasons(root) == {"pipe": SPECIAL, "socket": SPECIAL}
        (note,) = snapshot(root).notes
        assert note == (
            "pipes, sockets and devices do not travel: pipe, socket",
            "leave them out without this note: --exclude /pipe --exclude /socket",
        )
        assert snapshot(root, exclude=("/pipe", "/socket")).notes == ()


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "p", "a.py", "we ird[1]")
    real = os.open

    def denied(path: object, *arguments: int, **named: int) -> int:
        if str(path).endswith("ird[1]"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    # The tests run as root, who may read everything.
    monkeypatch.setattr("stoke.project.contents.os.open", denied)
    hint = refused(lambda: snapshot(root), "leave it out: {}")
    pattern = shlex.split(hint)[-1]
    assert {file.path for file in snapshot(root, exclude=(pattern,)).manifest.files} == {"a.py"}


def test_a_file_that_disappears_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"gone\.py disappeared"):
        contents.hash_file(str(tmp_path), "gone.py")


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * (3 * contents.CHUNK))
    hint = refused(
        lambda: _read_while_it_changes(tmp_path), "run it again, or leave the file out: {}"
    )
    assert "log" not in paths(tmp_path, exclude=(shlex.split(hint)[-1],))


def _read_while_it_changes(folder: Path) -> None:
    ended = threading.Event()

    def append() -> None:
        while not ended.is_set():
            with (folder / "log").open("ab") as file:
                file.write(b"more")
            if (folder / "log").stat().st_size > 200 * contents.CHUNK:
                return

    writer = threading.Thread(target=append)
    writer.start()
    try:
        # One reading may fall between two writes.
        for _ in range(1000):
            contents.hash_file(str(folder), "log")
    finally:
        ended.set()
        writer.join()


def test_above_the_limit_the_largest_entries_are_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "src/main.py", "assets/small")
    for name, size in (("assets/models/big.bin", 900), ("assets/other.bin", 60), ("b.bin", 200)):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    with pytest.raises(RequestError) as caught:
        take_snapshot(Project(root=str(root)), "pass", 1000)
    assert "5 files take 1.2 KiB, and the limit is 1.0 KiB" in caught.value.why
    assert caught.value.why.endswith("the largest: assets/models/big.bin 900 B, b.bin 200 B")
    option = (caught.value.hint or "").partition("job does not need: ")[2].partition(";")[0]
    (pattern,) = shlex.split(option)[1:]
    assert "assets/models/big.bin" not in paths(root, exclude=(pattern,))
    assert "export STOKE_PROJECT__MAX_SIZE=1m" in (caught.value.hint or "")


def test_nothing_is_read_above_the_limit(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p")
    with (root / "huge").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(RequestError, match=r"the limit is 50\.0 MiB; the largest: huge 4\.0 TiB"):
        take_snapshot(Project(root=str(root)), "pass", 50 * 1024**2)


def test_largest_names_the_subfolder_with_most_bytes() -> None:
    sizes = [("a/b/c", 95), ("a/d", 5), ("e/f", 50), ("e/g", 50), ("h", 3)]
    assert sorted(largest(sizes, 3)) == [("a/b/c", 95), ("e/", 100), ("h", 3)]


def test_the_working_directory_exists_in_the_snapshot(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "build/x.o", "a.py", "src/b.py")
    git(root, "init")
    (root / ".gitignore").write_text("build/\n")
    assert paths(root, directory="build") == {"a.py", "src/b.py", ".gitignore", "build/"}
    assert paths(root, directory="src") == {"a.py", "src/b.py", ".gitignore"}


def test_the_script_has_the_code_of_the_request(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "a.py")
    (root / "a.py").write_bytes("# -*- coding: latin-1 -*-\nprint('é')\n".encode("latin-1"))
    code = "# -*- coding: latin-1 -*-\nprint('é')\n"
    assert snapshot(root, code, script="a.py").virtual == {}
    edited = snapshot(root, code.replace("é", "ü"), script="a.py")
    assert list(edited.virtual.values()) == [code.replace("é", "ü").encode("latin-1")]
    (root / "a.py").unlink()
    assert {file.path for file in snapshot(root, code, script="a.py").manifest.files} == {"a.py"}


def test_further_contents_join_and_replace_files(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "p", "a.py", ".stoke/x")
    (root / ".stoke/x").chmod(0o755)
    extra = {".stoke/x": b"new", ".stoke/dist/METADATA": b"Name: p\n"}
    taken = take_snapshot(Project(root=str(root)), "pass", LIMIT, extra)
    found = {file.path: (file.mode, file.size) for file in taken.manifest.files}
    assert found == {
        "a.py": (0o644, 4), ".stoke/x": (0o755, 3), ".stoke/dist/METADATA": (0o644, 8),
    }  # fmt: skip


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        listed(tmp_path / "missing")


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=8).filter(
            lambda name: (
                b"/" not in name and b"\0" not in name and name not in (b".", b"..", b".git")
            )
        ),
        st.binary(max_size=50),
        max_size=6,
    )
)
def test_files_with_any_name_travel(files: dict[bytes, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / os.fsdecode(b"n" + name)).write_bytes(data)
        listing: ProjectListing = listed(Path(folder))
        assert dict(listing.sizes()) == {
            os.fsdecode(b"n" + name): len(data) for name, data in files.items()
        }

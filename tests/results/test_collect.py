"""Whatever a job's results folder holds, collecting writes only inside of its own folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.remote.common.trees import remove_tree
from stoke.results.collect import Collected, ResultFile, TooLargeError, collect


def entry(
    path: bytes, content: bytes = b"", kind: EntryKind = EntryKind.FILE, target: bytes = b""
) -> ResultEntry:
    size = len(content)
    return ResultEntry(path, kind, size, 0o644, 1e9, target, lambda: iter([content] * bool(size)))


def gather(folder: Path, *entries: ResultEntry, limit: int = 1 << 30) -> Collected:
    return collect(entries, folder, limit)


NAMES = st.one_of(
    st.sampled_from([b"", b".", b"..", b"a", b"b", b"\xff", b"\x1b[2J", b"-rf", b"x" * 256, b"\0"]),
    st.binary(min_size=1, max_size=12),
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(b"/".join)
ENTRIES = st.lists(
    st.builds(entry, PATHS, st.binary(max_size=40), st.sampled_from(list(EntryKind)), PATHS),
    max_size=25,
)


@given(ENTRIES)
def test_nothing_is_ever_written_outside_or_as_a_link(entries: list[ResultEntry]) -> None:
    with tempfile.TemporaryDirectory() as whole:
        inside = Path(whole, "around", "inside")
        inside.mkdir(parents=True)
        found = gather(inside, *entries)
        assert os.listdir(whole) == ["around"] and os.listdir(inside.parent) == ["inside"]
        there = set()
        for folder, folders, files in os.walk(os.fsencode(inside)):
            for name in (*folders, *files):
                assert not os.path.islink(os.path.join(folder, name))
            there |= {
                os.path.relpath(os.path.join(folder, one), os.fsencode(inside)) for one in files
            }
        assert there == {os.fsencode(file.path) for file in found.files}
        for path, size, sha256 in found.files:
            data = (inside / path).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)


@given(ENTRIES)
def test_every_file_is_taken_or_refused_by_name(entries: list[ResultEntry]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = gather(Path(folder), *entries)
    told = {file.path for file in found.files} | {path for path, _ in found.refused}
    assert {os.fsdecode(one.path) for one in entries if one.kind is not EntryKind.FOLDER} <= told


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"/etc/passwd", "absolute"),
        (b"../up", "leads out"),
        (b"a/../../up", "leads out"),
        (b"a//b", "leads out"),
        (b"", "leads out"),
        (b"a\0b", "leads out"),
        (b"n" * 256, "255 bytes"),
        (b"/".join([b"d" * 200] * 20), "3,000 bytes"),
    ],
)
def test_a_path_that_leads_out_is_refused_with_the_reason(
    tmp_path: Path, path: bytes, why: str
) -> None:
    found = gather(tmp_path, entry(path, b"x"), entry(b"good", b"y"))
    assert [file.path for file in found.files] == ["good"]
    ((_, reason),) = found.refused
    assert why in reason


def test_a_very_deep_path_is_taken(tmp_path: Path) -> None:
    path = b"/".join([b"d"] * 1400)
    try:
        assert gather(tmp_path, entry(path, b"deep")).files[0].size == 4
    finally:
        remove_tree(str(tmp_path / "d"))  # It is too deep for shutil.


def test_two_entries_with_one_path_and_a_file_as_a_folder(tmp_path: Path) -> None:
    found = gather(tmp_path, entry(b"a", b"1"), entry(b"a", b"2"), entry(b"a/b", b"3"))
    assert found.files == (ResultFile("a", 1, hashlib.sha256(b"1").hexdigest()),)
    assert [path for path, _ in found.refused] == ["a", "a/b"]
    assert all("another entry" in why for _, why in found.refused)


def test_a_hard_link_becomes_a_file_of_its_own(tmp_path: Path) -> None:
    link = entry(b"c", kind=EntryKind.HARD_LINK, target=b"a")
    out = entry(b"d", kind=EntryKind.HARD_LINK, target=b"../../etc/shadow")
    found = gather(tmp_path, entry(b"a", b"same"), link, out)
    assert [file[:2] for file in found.files] == [("a", 4), ("c", 4)]
    (tmp_path / "a").write_bytes(b"changed")
    assert (tmp_path / "c").read_bytes() == b"same"
    assert found.refused == (("d", "it is a hard link to a file outside of the results"),)


def test_the_limit_counts_hard_links_and_ends_the_collection(tmp_path: Path) -> None:
    link = entry(b"c", kind=EntryKind.HARD_LINK, target=b"a")
    with pytest.raises(TooLargeError, match=r"results\.max_size"):
        gather(tmp_path, entry(b"a", b"12345"), link, limit=9)


def test_a_partial_copy_is_left_out_without_a_word(tmp_path: Path) -> None:
    assert gather(tmp_path, entry(b"x/.stoke-partial-00", b"half")) == Collected(())


def test_many_refused_entries_are_counted(tmp_path: Path) -> None:
    links: Iterator[ResultEntry] = (
        entry(b"l%d" % number, kind=EntryKind.LINK) for number in range(1500)
    )
    found = collect(links, tmp_path, 1)
    assert (len(found.refused), found.refused_count) == (1000, 1500)

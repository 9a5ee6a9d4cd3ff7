"""Archives of workspaces: exact where they are ours, harmless where they are not."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.remote.bundle import packing_source
from stoke.remote.common.archives import (
    BLOCK,
    MAX_NAME,
    ArchiveError,
    Counts,
    open_inside,
    pack,
    parts_of,
    summary,
    unpack,
)
from stoke.remote.common.trees import FOLDER
from stoke.remote.housekeeping.workspace_volume import WorkspaceVolume


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder to unpack into, beside one that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def outside_is_whole(target: Path) -> bool:
    above = target.parent
    outside = above / "outside"
    return (
        sorted(os.listdir(above)) == ["home", "outside", "target"]
        and os.listdir(outside) == ["precious"]
        and (outside / "precious").read_text() == "precious"
        and not (outside / "precious").stat().st_mode & 0o111
    )


def given(target: Path, data: bytes, any_link: bool = False, size: int = 1000) -> Counts:
    """Unpack a stream that arrives in pieces of `size` bytes."""
    counts = Counts()
    folder = os.open(target, FOLDER)
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    try:
        unpack(folder, pieces, counts, any_link=any_link)
    finally:
        os.close(folder)
    return counts


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "") -> bytes:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size, made.mode = kind, link, len(data), 0o777
    head = made.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return head + data + bytes(-len(data) % BLOCK)


def packed(folder: Path) -> Iterator[bytes]:
    top = os.open(folder, FOLDER)
    counts = Counts()
    yield from pack(top, ".", "", counts)
    yield summary(counts)
    os.close(top)


END = summary(Counts())

HOSTILE: dict[str, bytes] = {
    "up": entry("../outside/precious", data=b"bad"),
    "up inside": entry("a/../../outside/precious", data=b"bad"),
    "absolute": entry("/etc/stoke-test", data=b"bad"),
    "empty": entry("", data=b"bad"),
    "dot": entry(".", data=b"bad"),
    "NUL": entry("a\0b", data=b"bad")[:100] + entry("a\0b", data=b"bad")[100:],
    "device": entry("device", tarfile.CHRTYPE),
    "FIFO": entry("fifo", tarfile.FIFOTYPE),
    "link, then through it": entry("l", tarfile.SYMTYPE, link="../outside")
    + entry("l/new", data=b"bad"),
    "absolute link": entry("l", tarfile.SYMTYPE, link="/etc/passwd"),
    "link through a link": entry("a/b/l", tarfile.SYMTYPE, link="../..")
    + entry("m", tarfile.SYMTYPE, link="a/b/l/../outside"),
    "hard link out": entry("h", tarfile.LNKTYPE, link="../outside/precious"),
    "hard link through a link": entry("l", tarfile.SYMTYPE, link="x")
    + entry("h", tarfile.LNKTYPE, link="l"),
    "hard link to nothing": entry("h", tarfile.LNKTYPE, link=""),
    "folder up": entry("../new", tarfile.DIRTYPE),
    "unknown kind": entry("x", b"Q"),
    "sparse": entry("x", tarfile.GNUTYPE_SPARSE, data=b"x" * 100)[:BLOCK],
    "deep": entry("d/" * 300 + "x", data=b"bad"),
}


@pytest.mark.parametrize("any_link", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_entry_is_refused_by_name_and_the_next_one_arrives(
    target: Path, name: str, any_link: bool
) -> None:
    counts = given(target, HOSTILE[name] + entry("fine", data=b"fine") + END, any_link)
    assert counts.problems or (any_link and "link" in name) or name in ("NUL",)
    assert (target / "fine").read_text() == "fine"
    assert outside_is_whole(target)
    for folder, folders, files in os.walk(target):
        for one in (*folders, *files):
            path = Path(folder) / one
            assert any_link or not path.is_symlink() or path.resolve().is_relative_to(target)
            assert path.is_symlink() or path.is_dir() or path.is_file()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * BLOCK,
        bytes(BLOCK) * 20,
        entry("x", data=b"1234")[:BLOCK],
        entry("x" * 300)[: BLOCK + 10],
        entry("x", tarfile.GNUTYPE_LONGNAME, data=b"n" * (MAX_NAME + 1)),
        entry("x", data=b"1"),
        entry("summary", b"Z", data=b"{}"),
        entry("summary", b"Z", data=b"[" * 100_000),
        entry("summary", b"Z", data=b"x" * (2 << 20)),
        io.BytesIO(b"not a tar at all" * 100).getvalue(),
    ],
    ids=range(11),
)
def test_a_cut_or_foreign_stream_is_an_error_and_leaves_no_part(target: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError):
        given(target, data)
    assert not [one for one in os.listdir(target) if one.startswith(".")]
    assert outside_is_whole(target)


def test_damaged_streams_do_no_harm(target: Path, tmp_path: Path) -> None:
    source = target / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "file").write_bytes(os.urandom(2000))
    (source / ("n" * 200)).write_text("long")
    (source / "link").symlink_to("folder/file")
    os.link(source / "folder" / "file", source / "hard")
    whole = b"".join(packed(source))
    chance = random.Random(7)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        # A header is believed only with its checksum.
        for at in range(0, len(damaged) - BLOCK, BLOCK):
            if bytes(damaged[at + 257 : at + 262]) == b"ustar":
                damaged[at + 148 : at + 156] = b" " * 8
                total = sum(damaged[at : at + BLOCK])
                damaged[at + 148 : at + 156] = b"%06o\0 " % total
        try:
            given(target / "source", bytes(damaged), size=chance.randint(1, 5000))
        except ArchiveError:
            pass
        assert outside_is_whole(target)


def test_a_copy_has_hard_links_long_names_and_no_problems(target: Path, tmp_path: Path) -> None:
    source = target / "source"
    source.mkdir()
    (source / "one").write_bytes(b"x" * 100_000)
    os.link(source / "one", source / "two")
    (source / "closed").mkdir()
    (source / "closed" / "x").write_text("x")
    (source / "closed").chmod(0o555)
    os.utime(source / "closed", (1e9, 1e9))
    (target / "copy").mkdir()
    counts = given(target / "copy", b"".join(packed(source)), size=777)
    assert counts.problems == []
    copy = target / "copy"
    assert (copy / "one").stat().st_ino == (copy / "two").stat().st_ino
    assert (copy / "closed").stat().st_mode & 0o777 == 0o555
    assert (copy / "closed").stat().st_mtime == 1e9
    assert (copy / "closed" / "x").read_text() == "x"


def test_other_programs_read_what_is_packed(target: Path) -> None:
    (target / "folder").mkdir()
    (target / "folder" / ("n" * 250)).write_text("long")
    top = os.open(target, FOLDER)
    data = b"".join(pack(top, "folder", "as/named", Counts())) + bytes(2 * BLOCK)
    os.close(top)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["as/named", "as/named/" + "n" * 250]


def test_a_file_that_shrinks_is_filled_and_reported(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target / "log").write_bytes(b"x" * 1_000_000)
    top = os.open(target, FOLDER)
    counts = Counts(lambda counts: os.truncate(target / "log", 1000))
    data = b"".join(pack(top, "log", "log", counts))
    os.close(top)
    assert len(data) == BLOCK + -(-1_000_000 // BLOCK) * BLOCK
    assert counts.problems == ["log: became shorter while it was read; zeros fill the rest"]


def test_problems_are_counted_beyond_a_limit(target: Path) -> None:
    for number in range(150):
        os.mkfifo(target / str(number))
    top = os.open(target, FOLDER)
    counts = Counts()
    list(pack(top, ".", "", counts))
    os.close(top)
    assert len(counts.as_json()["problems"]) == 101
    assert counts.as_json()["problems"][-1] == "and 50 more"


@pytest.mark.parametrize("path", ["..", "a/../b", "a\0b", "x/" * 300])
def test_a_path_out_of_a_workspace_is_refused(path: str) -> None:
    with pytest.raises(ArchiveError):
        parts_of(path)


@pytest.mark.parametrize("make", [True, False])
def test_no_folder_is_opened_through_a_link(target: Path, make: bool) -> None:
    (target / "l").symlink_to("../outside")
    (target / "file").write_text("x")
    top = os.open(target, FOLDER)
    for parts, why in ((["l"], "symbolic link"), (["l", "new"], "link"), (["file"], "no.*folder")):
        with pytest.raises(ArchiveError, match=why.replace("no.*folder", "is not a folder")):
            open_inside(top, parts, make)
    os.close(top)
    assert outside_is_whole(target)


def test_where_a_copy_goes(target: Path) -> None:
    (target / "folder").mkdir()
    (target / "file").write_text("x")
    volume = WorkspaceVolume(str(target))
    place: Callable[[str], tuple[str, str]] = lambda path: (  # noqa: E731
        volume.target(path, "src")["folder"],
        volume.target(path, "src")["name"],
    )
    assert place("") == place("/") == ("", "src")
    assert place("folder") == place("/folder/") == ("folder", "src")
    assert place("new") == ("", "new")
    assert place("file") == ("", "file")
    assert place("folder/new") == ("folder", "new")
    assert place("a/b/") == ("a/b", "src")
    volume.close()


# ---------------------------------------------------------------------------- copies that were cut


def written(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What the packing program writes, run as a pod runs it."""
    program = tmp_path / "pack.py"
    program.write_bytes(packing_source())
    command = [sys.executable, "-I", "-S", str(program), *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def test_a_copy_that_was_cut_continues_at_any_byte(tmp_path: Path, target: Path) -> None:
    (target / "a").write_bytes(os.urandom(5_000))
    (target / "b" / "c").mkdir(parents=True)
    (target / "b" / "c" / "large").write_bytes(os.urandom(700_000))
    os.link(target / "a", target / "b" / "same")
    whole = written(tmp_path, str(target), "", "").stdout
    at = [1, 512, 5_000, len(whole) // 2, len(whole) - 1, len(whole)]
    for size in at:
        digest = hashlib.sha256(whole[:size]).hexdigest()
        done = written(tmp_path, str(target), "", "", str(size), digest)
        assert (done.returncode, done.stdout) == (0, whole[size:]), size


def test_a_copy_does_not_continue_with_other_files(tmp_path: Path, target: Path) -> None:
    (target / "a").write_bytes(bytes(100_000))
    whole = written(tmp_path, str(target), "", "").stdout
    for change in (lambda: (target / "a").write_bytes(b"1" * 100_000), (target / "a").unlink):
        change()
        for size in (50_000, len(whole)):
            digest = hashlib.sha256(whole[:size]).hexdigest()
            done = written(tmp_path, str(target), "", "", str(size), digest)
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr == b"its files have changed since the copy was cut\n"

"""Packs, manifests and records of stored contents on the submitting machine."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.files.paths import job_dir, state_dir
from stoke.project import pack, stored_contents
from stoke.project.manifest import Manifest, make_manifest
from stoke.project.manifest_store import (
    read_manifest,
    read_virtual,
    recorded_manifest,
    release_manifest,
    save_manifest,
)
from stoke.project.pack import WrongContentError, of_bytes, read_pack, write_pack
from tests.hints import exported, refused
from tests.project.trees import make_tree, snapshot

CONTENTS = st.lists(st.binary(max_size=100), max_size=6, unique=True)


def pack_of(*contents: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pack")
        named = {hashlib.sha256(data).hexdigest(): (len(data), of_bytes(data)) for data in contents}
        assert write_pack(path, named) == path.stat().st_size
        return path.read_bytes()


@settings(max_examples=50)
@given(CONTENTS)
def test_a_pack_gives_back_its_contents(contents: list[bytes]) -> None:
    packed = pack_of(*contents)
    assert [data for _, data in read_pack(io.BytesIO(packed))] == contents
    head = packed.partition(b"\n")[0]
    assert len(packed) == len(head) + 1 + sum(map(len, contents))


@settings(max_examples=50)
@given(CONTENTS.filter(any), st.data())
def test_a_damaged_pack_gives_no_wrong_content(contents: list[bytes], data: st.DataObject) -> None:
    packed = bytearray(pack_of(*contents))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(packed)))
    for damaged in (bytes(packed), bytes(packed[:cut])):
        try:
            read = dict(read_pack(io.BytesIO(damaged)))
        except (ValueError, RecursionError):
            continue
        assert all(hashlib.sha256(one).hexdigest() == name for name, one in read.items())


def test_a_content_that_changed_leaves_no_pack(tmp_path: Path) -> None:
    with pytest.raises(WrongContentError):
        write_pack(tmp_path / "pack", {"0" * 64: (1, of_bytes(b"x"))})
    assert not list(tmp_path.glob("*pack*"))


def test_a_full_disk_is_named_with_the_variable_that_moves_the_file() -> None:
    with open("/dev/full", "wb") as file:
        write = pack._writer(file, Path("/dev/full"))
        hint = refused(
            lambda: write(b"x", flush=True),
            "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
        )
        with suppress(OSError):
            file.close()
    assert exported(hint) == {"STOKE_STATE_DIR": "/some/folder"}


def manifest_of(tmp_path: Path, name: str = "a.py") -> Manifest:
    return snapshot(make_tree(tmp_path / "p" / name, name)).manifest


def test_a_manifest_is_removed_with_the_last_job_that_names_it(tmp_path: Path) -> None:
    manifest, other = manifest_of(tmp_path), manifest_of(tmp_path, "b.py")
    virtual = {hashlib.sha256(b"x").hexdigest(): b"x"}
    for job in ("one", "two"):
        save_manifest(manifest, virtual, job)
    save_manifest(other, {}, "three")
    assert read_manifest(manifest.digest) == manifest
    assert read_virtual(manifest.digest) == virtual
    release_manifest("one")
    assert read_manifest(manifest.digest) == manifest
    release_manifest("one")
    release_manifest("two")
    assert read_manifest(manifest.digest) is None and read_virtual(manifest.digest) == {}
    assert read_manifest(other.digest) == other
    assert os.listdir(state_dir() / "projects/manifests") == [other.digest]


def test_a_damaged_manifest_is_a_missing_one(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    save_manifest(manifest, {}, "one")
    path = state_dir() / "projects/manifests" / manifest.digest
    for data in (b"", b"{}", make_manifest([]).data, manifest.data[:-1]):
        path.write_bytes(data)
        assert read_manifest(manifest.digest) is None
    with pytest.raises(RequestError, match="not on this machine"):
        recorded_manifest(manifest.digest)
    release_manifest("one")
    assert not (job_dir("one") / "project.manifest").exists()


HASHES = st.sets(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=5)


def test_stored_contents_are_recorded_by_backend_scope_and_volume() -> None:
    a, b = "a" * 64, "b" * 64
    stored_contents.add_stored("docker", "default", "engine", [a])
    stored_contents.add_stored("docker", "default", "engine", [b])
    assert stored_contents.read_stored("docker", "default", "engine") == {a, b}
    for other in (
        ("local", "default", "engine"),
        ("docker", "x", "engine"),
        ("docker", "default", ""),
    ):
        assert stored_contents.read_stored(*other) == set()
    stored_contents.add_stored("docker", "default", "other", [a])
    stored_contents.add_stored("docker", "x", "engine", [a])
    stored_contents.forget_stored("docker", "default")
    assert stored_contents.read_stored("docker", "default", "engine") == set()
    assert stored_contents.read_stored("docker", "default", "other") == set()
    assert stored_contents.read_stored("docker", "x", "engine") == {a}


@given(HASHES, st.integers(0, 200))
def test_a_damaged_record_claims_no_contents_that_were_not_stored(
    hashes: set[str], cut: int
) -> None:
    stored_contents.forget_stored("b", "s")
    stored_contents.add_stored("b", "s", "v", sorted(hashes))
    path = stored_contents._file("b", "s", "v")
    path.write_bytes(path.read_bytes()[:cut] + b"\xff")
    assert stored_contents.read_stored("b", "s", "v") <= hashes
    more = "f" * 64
    stored_contents.add_stored("b", "s", "v", [more])
    assert stored_contents.read_stored("b", "s", "v") <= {*hashes, more}
    assert more in stored_contents.read_stored("b", "s", "v")


def test_the_record_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_contents, "MAX_SIZE", 1000)
    for number in range(100):
        stored_contents.add_stored("b", "s", "v", [f"{number:064x}"])
    known = stored_contents.read_stored("b", "s", "v")
    assert f"{99:064x}" in known and len(known) < 20

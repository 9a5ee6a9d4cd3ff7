"""The canonical form of a manifest."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.project.manifest import FILE, FOLDER, LINK, ManifestEntry, make_manifest, parse_manifest

NAMES = st.binary(min_size=1, max_size=30).map(lambda name: os.fsdecode(name.replace(b"\0", b"0")))
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
ENTRIES = st.one_of(
    st.builds(
        lambda path, mode, size, sha256: ManifestEntry(path, FILE, mode, size, sha256),
        NAMES,
        st.sampled_from([0o644, 0o755]),
        st.integers(0, 1 << 50),
        HASHES,
    ),
    st.builds(lambda path, target: ManifestEntry(path, LINK, target=target), NAMES, NAMES),
    st.builds(lambda path: ManifestEntry(path, FOLDER), NAMES),
)


@given(st.lists(ENTRIES, max_size=8, unique_by=lambda entry: entry.path))
def test_a_manifest_survives_its_canonical_form_in_any_order(entries: list[ManifestEntry]) -> None:
    manifest = make_manifest(entries)
    assert parse_manifest(manifest.data) == manifest
    assert make_manifest(entries[::-1]).digest == manifest.digest
    assert manifest.contents().keys() == {manifest.digest, *(one.sha256 for one in manifest.files)}


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b'{"version":2,"entries":[]}',
        b'{"version":1,"entries":[["a","x"]]}',
        b'{"version":1,"entries":[["a","f",420,1]]}',
        b'{"version": 1, "entries": []}',
        b"nothing",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_manifest(data)

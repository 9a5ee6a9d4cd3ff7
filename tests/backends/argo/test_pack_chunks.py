"""Chunks of a long pack: they are the pack again, and most stay the same when a file changes."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.argo import pack_chunks
from backends.argo.bundle import MAX_CARRIED
from backends.argo.pack_chunks import chunks_of, chunks_of_inputs
from stoke.errors import RequestError
from tests.snapshots import snapshot


def written(tmp_path: Path, files: dict[str, bytes]) -> tuple[Path, dict[str, bytes]]:
    made = snapshot(dict(files))
    path = tmp_path / "pack"
    path.write_bytes(made.pack())
    return path, made.contents


def read_back(data: bytes) -> dict[str, bytes]:
    """What a job finds in the chunks, as the pod's first program joins them."""
    pack = b""
    while data:
        stream = zlib.decompressobj()
        pack += stream.decompress(data)
        assert stream.eof
        data = stream.unused_data
    head, _, rest = pack.partition(b"\n")
    found = {}
    for sha256, size in json.loads(head):
        found[sha256], rest = rest[:size], rest[size:]
    assert not rest
    return found


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(0, 2_000_000), max_size=5), seed=st.integers(0, 99))
def test_the_chunks_hold_all_contents(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    numbers = random.Random(seed)
    files = {f"{number}": numbers.randbytes(size) for number, size in enumerate(sizes)}
    path, contents = written(tmp_path_factory.mktemp("pack"), files)
    chunks = chunks_of(path)
    assert all(0 < len(chunk.data) <= MAX_CARRIED for chunk in chunks)
    assert read_back(b"".join(chunk.data for chunk in chunks)) == contents


def test_a_changed_file_changes_few_chunks(tmp_path: Path) -> None:
    numbers = random.Random(1)
    files = {f"{number}": numbers.randbytes(100_000) for number in range(200)}
    before = {chunk.name for chunk in chunks_of(written(tmp_path, files)[0])}
    after = {chunk.name for chunk in chunks_of(written(tmp_path, {**files, "7": b"new"})[0])}
    assert len(before) > 20
    # At most two for each of the list, the old and the new file, the old and the new manifest.
    assert len(after - before) <= 10


def test_a_pack_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_chunks, "MOST_CHUNKS", 2)
    path, _ = written(tmp_path, {"a": random.Random(1).randbytes(3 * MAX_CARRIED)})
    with pytest.raises(RequestError, match=r"more than 2\.0 MiB compressed"):
        chunks_of(path)


@pytest.mark.parametrize("size", [0, 1, MAX_CARRIED, 3 * MAX_CARRIED + 5])
def test_the_chunks_of_inputs_are_the_file_again(tmp_path: Path, size: int) -> None:
    path = tmp_path / "inputs"
    path.write_bytes(random.Random(1).randbytes(size))
    chunks = chunks_of_inputs(path, 5)
    assert all(len(chunk.data) <= MAX_CARRIED for chunk in chunks)
    assert zlib.decompress(b"".join(chunk.data for chunk in chunks)) == path.read_bytes()


def test_inputs_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "inputs"
    path.write_bytes(random.Random(1).randbytes(2 * MAX_CARRIED))
    with pytest.raises(RequestError, match="the most that a cluster takes with a job"):
        chunks_of_inputs(path, 2)

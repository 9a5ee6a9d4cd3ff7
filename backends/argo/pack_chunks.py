"""A pack that is too long for a bundle, as ConfigMaps that jobs share; long inputs and the CA bundle
likewise.

A chunk is named by the hash of what it holds. Those of a pack hold contents whose own hashes begin
alike. So a job whose project differs in one file needs two or three new chunks; the others are still
there from an earlier job. Each is owned by the workflows that mount it, and Kubernetes deletes it with
the last one.

Measured for 50 MB that cannot be compressed, on a cluster of one node: creating 50 ConfigMaps took
4.8 s and mounting them 1 s. A pod with the cache volume, and a stream into it by exec, took 2.8 s, but
needs the right to run commands in every pod of the namespace, and the job would have to run on the
node of that pod.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from backends.argo import bundle
from backends.argo.cluster import ApiError
from backends.argo.names import PACK_CHUNK
from backends.argo.resources import KubernetesResources
from backends.common.names import MANAGED
from stoke.errors import RequestError
from stoke.text.units import human_bytes

CONTENT_BYTES = 1024**2
"""Bytes of contents in a chunk before compression, at most twice the average."""
LEVEL = 3  # of compression; 6 takes three times as long for a tenth of the bytes
MOST_CHUNKS = 256
READ_SIZE = 1024**2
AT_ONCE = 4  # requests
UPLOAD_SECONDS = 120.0  # for one chunk, on a slow link
FEW = 4
"""Up to so many chunks, each is looked for by its name: a list has all those of the namespace."""
LEAVE_OUT = "leave files out: --exclude GLOB, or use another backend: -b docker"


@dataclass(frozen=True)
class Chunk:
    """The data of one ConfigMap; all of them in order are the compressed pack."""

    data: bytes
    series: str = ""
    """Tells copies of the same data apart (see ca_bundle.py)."""

    @property
    def name(self) -> str:
        return bundle.PART_PREFIX + hashlib.sha256(self.data).hexdigest()[:40] + self.series

    def manifest(self, owner: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "labels": {MANAGED: "true", PACK_CHUNK: "true"},
                "ownerReferences": [dict(owner)],
            },
            "binaryData": {bundle.KEY: bundle.as_text(self.data)},
            "immutable": True,
        }


def chunks_of(pack: Path) -> list[Chunk]:
    """Return the chunks of a pack. Raises `RequestError` if it is too long for a cluster."""
    chunks: list[Chunk] = []
    with pack.open("rb") as file:
        for data in _pieces(file):
            if len(chunks) == MOST_CHUNKS:
                limit = human_bytes(MOST_CHUNKS * bundle.MAX_CARRIED)
                raise RequestError(
                    "project",
                    f"has more than {limit} compressed, the most that a cluster takes with a job",
                    LEAVE_OUT,
                )
            chunks.append(Chunk(data))
    return chunks


def chunks_of_inputs(inputs: Path, most: int) -> list[Chunk]:
    """Return the chunks of the results that a job gets of earlier ones, `most` at the most."""
    chunks: list[Chunk] = []
    with inputs.open("rb") as file:
        for data in _cut(_compressed(iter(partial(file.read, READ_SIZE), b""))):
            if len(chunks) == most:
                limit = human_bytes(MOST_CHUNKS * bundle.MAX_CARRIED)
                raise RequestError(
                    "after",
                    "the results of the jobs that it follows, with its project, have more than "
                    f"{limit} compressed, the most that a cluster takes with a job",
                    "write them to a claim that both jobs mount: --mount claim:NAME:/path:rw",
                )
            chunks.append(Chunk(data))
    return chunks


def chunks_of_bytes(data: bytes) -> list[Chunk]:
    return [Chunk(one) for one in _cut(_compressed([data]))]


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the data of each chunk."""
    places: dict[str, tuple[int, int]] = {}
    rows = json.loads(file.readline())
    start = at = file.tell()
    for sha256, size in rows:
        places[sha256] = at, size
        at += size
    ordered = sorted(places)
    head = json.dumps([[sha256, places[sha256][1]] for sha256 in ordered]).encode() + b"\n"
    yield from _cut(_compressed([head]))
    # The fewest bits of a hash that distinguish that many groups.
    bits = max(0, ((at - start) // CONTENT_BYTES).bit_length())
    for _, group in itertools.groupby(ordered, lambda one: int(one[:8], 16) >> (32 - bits)):
        yield from _cut(_compressed(_read(file, [places[sha256] for sha256 in group])))


def _read(file: BinaryIO, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for at, left in places:
        file.seek(at)
        while left and (piece := file.read(min(left, READ_SIZE))):
            left -= len(piece)
            yield piece


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(LEVEL)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces and cut them where a ConfigMap is full."""
    data = b""
    for piece in pieces:
        data += piece
        while len(data) > bundle.MAX_CARRIED:
            yield data[: bundle.MAX_CARRIED]
            data = data[bundle.MAX_CARRIED :]
    yield data


def volume_of(chunks: Iterable[Chunk]) -> dict[str, Any]:
    """Return the source of the volume with one file a chunk."""
    return {
        "projected": {
            "sources": [
                {
                    "configMap": {
                        "name": chunk.name,
                        "items": [{"key": bundle.KEY, "path": bundle.part_name(number)}],
                    }
                }
                for number, chunk in enumerate(chunks)
            ]
        }
    }


def upload(
    resources: KubernetesResources, chunks: Iterable[Chunk], owner: Mapping[str, Any]
) -> int:
    """Create the chunks that are not there, and own all of them; return how many were created."""
    wanted = {chunk.name: chunk for chunk in chunks}
    there = set(wanted)
    if len(wanted) > FEW:
        listed = resources.list_config_maps(f"{PACK_CHUNK}=true")
        there = {one["metadata"]["name"] for one in listed}

    def ensure(chunk: Chunk) -> bool:
        if chunk.name in there and resources.add_owner(chunk.name, owner):
            return False
        try:
            resources.create("configmaps", chunk.manifest(owner), UPLOAD_SECONDS)
        except ApiError as error:
            # Another job has just created it.
            if error.status != 409 or not resources.add_owner(chunk.name, owner):
                raise
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(ensure, wanted.values()))

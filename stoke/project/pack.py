"""Write and read packs: the contents that travel with one job.

The first line of a pack is the JSON list of `[sha256, size]`; the contents follow in that order,
without anything between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stoke.errors import EngineError
from stoke.files.atomic import replacing

MAX_INDEX = 256 * 1024**2
Content = Callable[[Callable[[bytes], object]], str]
"""Gives the content to a function, in pieces, and returns its SHA-256."""


@dataclass(frozen=True)
class ProjectDelivery:
    """What a backend hands to a job besides its payload, which names the snapshot's digest.

    `pack` is a file on this machine with all contents that the job's cache volume is not known to have,
    or None if it has everything. The backend may delete it once the job has it.
    """

    digest: str
    pack: Path | None

    def remove_pack(self) -> None:
        """Delete the pack of a job that its engine has, or that failed."""
        if self.pack is not None:
            self.pack.unlink(missing_ok=True)


class WrongContentError(Exception):
    """A content is not the one that the pack promises. `sha256` is the promised one."""

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256


def write_pack(path: Path, contents: Mapping[str, tuple[int, Content]]) -> int:
    """Write a pack of {SHA-256: (size, content)}; return its bytes.

    Raises `WrongContentError`, what a content raises, and `EngineError` if the pack cannot be written.
    No file is left then.
    """
    index = [[sha256, size] for sha256, (size, _) in contents.items()]
    head = json.dumps(index, separators=(",", ":")).encode() + b"\n"
    with replacing(path) as file:
        write = _writer(file, path)
        write(head)
        for sha256, (_, content) in contents.items():
            if content(write) != sha256:
                raise WrongContentError(sha256)
        write(b"", flush=True)
        return file.tell()


def _writer(file: BinaryIO, path: Path) -> Callable[..., None]:
    def write(data: bytes, flush: bool = False) -> None:
        try:
            file.write(data)
            if flush:
                file.flush()
        except OSError as error:
            raise EngineError(
                f"cannot write the project's files to {path}: {error.strerror}",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            ) from error

    return write


def of_bytes(data: bytes) -> Content:
    def content(write: Callable[[bytes], object]) -> str:
        write(data)
        return hashlib.sha256(data).hexdigest()

    return content


def read_pack(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield each content of a pack with its SHA-256. Raises `ValueError` for a damaged pack."""
    head = file.readline(MAX_INDEX)
    for row in json.loads(head):
        match row:
            case [str(sha256), int(size)]:
                data = file.read(size)
            case _:
                raise ValueError("is no pack")
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"the content {sha256} of the pack is damaged")
        yield sha256, data

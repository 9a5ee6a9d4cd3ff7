"""The manifest of a snapshot: every entry of the project, without the contents.

Its canonical form is JSON: `{"version": 1, "entries": [...]}`, the entries sorted by path, each one of

    [path, "f", mode, size, sha256]    a file; mode is 0o644 or 0o755
    [path, "l", target]                a symbolic link that stays inside the project
    [path, "d"]                        an empty folder

Paths are relative, with "/" between names. A name that is not UTF-8 holds surrogates, as `os.fsdecode`
makes them, and JSON escapes those. The digest of a snapshot is the SHA-256 of these bytes, so the
manifest is stored and sent like the content of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

VERSION = 1
FILE, LINK, FOLDER = "f", "l", "d"


class ManifestEntry(NamedTuple):
    """A file, a link or an empty folder of a snapshot. `sha256` is that of a file's content."""

    path: str
    kind: str
    mode: int = 0
    size: int = 0
    sha256: str = ""
    target: str = ""

    def to_json(self) -> list[str | int]:
        if self.kind == FILE:
            return [self.path, FILE, self.mode, self.size, self.sha256]
        return [self.path, LINK, self.target] if self.kind == LINK else [self.path, FOLDER]


@dataclass(frozen=True)
class Manifest:
    """The entries of a snapshot, sorted by path."""

    entries: tuple[ManifestEntry, ...]

    @cached_property
    def data(self) -> bytes:
        """The canonical form."""
        rows = [entry.to_json() for entry in self.entries]
        return json.dumps({"version": VERSION, "entries": rows}, separators=(",", ":")).encode()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def files(self) -> Iterator[ManifestEntry]:
        return (entry for entry in self.entries if entry.kind == FILE)

    def contents(self) -> dict[str, int]:
        """Return the SHA-256 and the size of everything that the job needs, the manifest included."""
        return {self.digest: len(self.data)} | {file.sha256: file.size for file in self.files}


def make_manifest(entries: list[ManifestEntry]) -> Manifest:
    return Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest with this canonical form. Raises `ValueError` for anything else."""
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"is not a manifest of version {VERSION}")
    manifest = Manifest(tuple(map(_parse_entry, document.get("entries", ()))))
    if manifest.data != data:
        raise ValueError("is not a manifest in its canonical form")
    return manifest


def _parse_entry(row: object) -> ManifestEntry:
    match row:
        case [str(path), "f", int(mode), int(size), str(sha256)]:
            return ManifestEntry(path, FILE, mode, size, sha256)
        case [str(path), "l", str(target)]:
            return ManifestEntry(path, LINK, target=target)
        case [str(path), "d"]:
            return ManifestEntry(path, FOLDER)
    raise ValueError(f"{str(row)[:100]!r} is not an entry of a manifest")

"""Remember the hashes of files, so that an unchanged file is not read again.

A file counts as unchanged while its size, times and inode are the same. As in git's index, the hash of
a file that was changed in the last two seconds before it was read is not stored: a later change within
the same tick of the clock would not show in its times.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from stoke.errors import StokeError
from stoke.files.atomic import write_atomically
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import read_bytes

VERSION = 1
YOUNG = 2.0
"""Seconds."""
MAX_SIZE = 256 * 1024**2
MAX_FILES = 500_000
MAX_ROOTS = 100
"""The most indexes; the ones that were written longest ago are removed."""


class StatIndex:
    """The hashes of the files of one project."""

    def __init__(self, root: str) -> None:
        folder = state_dir() / "projects" / "index"
        self._path = folder / hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self._known = _read(self._path)
        self._current: dict[str, list[Any]] = {}
        self._changed = False

    def find(self, path: str, status: os.stat_result) -> str | None:
        """Return the SHA-256 of a file, or None if it has to be read."""
        row = self._known.get(path)
        if row is None or row[:4] != _identity(status):
            return None
        self._current[path] = row
        return str(row[4])

    def add(self, path: str, status: os.stat_result, sha256: str, read_at: float) -> None:
        """Store the hash of a file. `read_at` is when its reading began, in epoch seconds."""
        if max(status.st_mtime, status.st_ctime) < read_at - YOUNG:
            self._current[path] = [*_identity(status), sha256]
            self._changed = True

    def save(self) -> None:
        """Write the hashes of the files that were asked for. A failure only costs time later."""
        if not self._changed and len(self._current) == len(self._known):
            return
        if len(self._current) > MAX_FILES:
            return
        document = {"version": VERSION, "files": self._current}
        try:
            make_private(self._path.parent)
            write_atomically(self._path, json.dumps(document, separators=(",", ":")))
            _remove_oldest(self._path.parent)
        except (OSError, StokeError):
            pass


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path) -> dict[str, list[Any]]:
    """Return the stored rows; none where the file is missing or damaged."""
    try:
        document = json.loads(read_bytes(path, MAX_SIZE))
        files = document["files"] if document["version"] == VERSION else {}
        sound = all(
            type(row) is list and len(row) == 5 and type(row[4]) is str and len(row[4]) == 64
            for row in files.values()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return files if sound else {}


def _remove_oldest(folder: Path) -> None:
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if not entry.name.startswith(".")]
    if len(files) > MAX_ROOTS:
        files.sort(key=lambda entry: entry.stat().st_mtime)
        for entry in files[:-MAX_ROOTS]:
            os.unlink(entry.path)

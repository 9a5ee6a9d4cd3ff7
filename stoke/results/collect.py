"""Write a job's results into a fresh folder on this machine, taking only what is safe.

A job chooses every name in its results folder, and what is behind it. Taken are regular files and
folders with names inside the folder. Links, devices, pipes, sockets, absolute paths and paths with ".."
are refused by name. The names of what is taken are kept byte for byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.errors import EngineError
from stoke.remote.protocol import PARTIAL_RESULT
from stoke.text.units import human_bytes

MAX_ENTRIES = 250_000
MAX_PATH = 3_000
"""Bytes of a path: with the state folder in front of it, 4,096 are the most that Linux opens."""
MAX_NAME = 255
MOST_REFUSED = 1_000
"""Refused entries that are kept by name; the others are counted."""
_UNSAFE = re.compile(rb"(?:^|/)\.{0,2}(?:/|\Z)|\0")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1024**2
_NO_NAME = (errno.EILSEQ, errno.ENAMETOOLONG, errno.EINVAL)
"""Errors of file systems that cannot hold a name."""


class ResultFile(NamedTuple):
    """A collected file. `path` holds surrogates for bytes that are not UTF-8, as `os.fsdecode` does."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Collected:
    """What was taken, sorted by path, and the first refused entries: (path, why)."""

    files: tuple[ResultFile, ...]
    refused: tuple[tuple[str, str], ...] = ()
    refused_count: int = 0

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


class TooLargeError(EngineError):
    """The results exceed the limit; nothing of them is kept."""


Progress = Callable[[int, int], None]
"""Called with the files and the bytes so far."""


def collect(
    entries: Iterable[ResultEntry],
    target: Path,
    max_bytes: int,
    progress: Progress = lambda files, size: None,
) -> Collected:
    """Write entries below `target`, an empty folder that nothing else writes to.

    Raises `TooLargeError`, `OSError` if the folder cannot be written, and what the entries raise.
    """
    collector = _Collector(os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), max_bytes)
    try:
        for number, entry in enumerate(entries, 1):
            if number > MAX_ENTRIES:
                raise TooLargeError(f"the job has more than {MAX_ENTRIES:,} results")
            collector.take(entry)
            progress(len(collector.files), collector.bytes)
    finally:
        os.close(collector.top)
    files = (ResultFile(os.fsdecode(path), *facts) for path, facts in collector.files.items())
    return Collected(tuple(sorted(files)), tuple(collector.refused), collector.refused_count)


class _Collector:
    def __init__(self, top: int, max_bytes: int) -> None:
        self.top = top
        self.bytes = 0
        self.files: dict[bytes, tuple[int, str]] = {}
        self.refused: list[tuple[str, str]] = []
        self.refused_count = 0
        self._max_bytes = max_bytes
        self._folders = {b""}

    def take(self, entry: ResultEntry) -> None:
        path = entry.path
        if path.rpartition(b"/")[2].startswith(PARTIAL_RESULT.encode()):
            return  # The job was killed while it copied the file.
        reason = _refusal(entry)
        if reason is None:
            try:
                if entry.kind is EntryKind.FOLDER:
                    self._make_folder(path)
                elif entry.kind is EntryKind.FILE:
                    self._write(path, entry.size, entry.mode, entry.modified_at, entry.read())
                else:
                    reason = self._copy(path, entry)
            except FileExistsError:
                reason = "another entry has the same path, or that of a folder above it"
            except NotADirectoryError:
                reason = "it is below a file"
            except OSError as error:
                if error.errno not in _NO_NAME:
                    raise
                reason = f"this machine's disk cannot hold its name: {error.strerror}"
        if reason is not None:
            self.refused_count += 1
            if len(self.refused) < MOST_REFUSED:
                self.refused.append((os.fsdecode(path), reason))

    def _make_folder(self, path: bytes) -> None:
        """Make a folder and those above it."""
        if path in self._folders:
            return
        above = path.rpartition(b"/")[0]
        self._make_folder(above) if above.count(b"/") < 100 else self._make_folders_above(above)
        os.mkdir(path, 0o700, dir_fd=self.top)
        self._folders.add(path)

    def _make_folders_above(self, path: bytes) -> None:
        """Do so for a path that is too deep for recursion."""
        end = 0
        while end >= 0:
            end = path.find(b"/", end + 1)
            folder = path if end < 0 else path[:end]
            if folder not in self._folders:
                os.mkdir(folder, 0o700, dir_fd=self.top)
                self._folders.add(folder)

    def _write(
        self, path: bytes, size: int, mode: int, modified_at: float, pieces: Iterator[bytes]
    ) -> None:
        self._admit(size)
        self._make_folder(path.rpartition(b"/")[0])
        # The folder is fresh and only this process writes to it, so no part of the path is a link.
        file = os.open(path, _CREATE, 0o700 if mode & stat.S_IXUSR else 0o600, dir_fd=self.top)
        try:
            found = hashlib.sha256()
            for piece in pieces:
                found.update(piece)
                while piece:
                    piece = piece[os.write(file, piece) :]
            if 0 < modified_at < 1 << 33:
                os.utime(file, (modified_at, modified_at))
        finally:
            os.close(file)
        self.files[path] = size, found.hexdigest()
        self.bytes += size

    def _copy(self, path: bytes, link: ResultEntry) -> str | None:
        """Write a second name of a collected file as a file of its own; return why not, if so."""
        first = self.files.get(link.target)
        if first is None:
            return "it is a hard link to a file outside of the results"
        source = os.open(link.target, _READ, dir_fd=self.top)
        try:
            pieces = iter(lambda: os.read(source, _CHUNK), b"")
            self._write(path, first[0], link.mode, link.modified_at, pieces)
        finally:
            os.close(source)
        return None

    def _admit(self, size: int) -> None:
        if self.bytes + size > self._max_bytes:
            raise TooLargeError(
                f"the results have more than {human_bytes(self._max_bytes)} (results.max_size)"
            )


def _refusal(entry: ResultEntry) -> str | None:
    """Return why an entry is not taken, by its kind and its path alone."""
    if entry.kind in (EntryKind.LINK, EntryKind.OTHER):
        return f"it is a {entry.kind}" if entry.path else "the results folder itself is none"
    path = entry.path
    if path.startswith(b"/"):
        return "its path is absolute"
    if not path or _UNSAFE.search(path):
        return "its path leads out of the results folder"
    if len(path) > MAX_PATH:
        return f"its path has more than {MAX_PATH:,} bytes"
    if any(len(name) > MAX_NAME for name in path.split(b"/")):
        return f"a name in its path has more than {MAX_NAME} bytes"
    return None

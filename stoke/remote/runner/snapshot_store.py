"""The contents of project files on the cache volume, by their SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat

from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import PythonLayout
from stoke.remote.runner.errors import PhaseError, StoppedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from stoke.remote.runner.termination import Termination

HASH = re.compile("[0-9a-f]{64}")
MAX_HEADER = 256 * 1024**2
"""Bytes of a pack's first line, which is 80 for each content."""
MAX_MANIFEST = 256 * 1024**2  # bytes
CHUNK = 1024**2


class SnapshotStore:
    """Contents on the scope's cache volume, or in the job's private cache.

    Jobs of the scope can write to the volume. So a content is opened only if it is a regular file of
    the right size, and what has its name without being one is replaced.
    """

    def __init__(self, cache: str, shared: str, termination: Termination) -> None:
        """`cache` receives contents; what it lacks is read from `shared`, which may be the same."""
        self._cache = cache
        self._caches = list(dict.fromkeys([cache, shared]))
        self._termination = termination
        self._folders: set[str] = set()

    def receive(self, pack: str) -> int:
        """Store the contents of a pack; return their bytes.

        Each is written aside, checked against its hash, and renamed: what is left by an upload that
        was interrupted has no content's name. `PhaseError` for a damaged pack.
        """
        received = 0
        with open(pack, "rb") as file:
            for sha256, size in _read_header(file):
                if self._termination.reason:
                    raise StoppedError
                self._receive(file, sha256, size)
                received += size
        return received

    def _receive(self, file: BinaryIO, sha256: str, size: int) -> None:
        path = _path(self._cache, sha256)
        folder = os.path.dirname(path)
        self.make_folder(folder)
        # Unguessable, and of the form that housekeeping removes.
        aside = os.path.join(folder, os.urandom(8).hex() + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(aside, flags, 0o444)
        try:
            found = hashlib.sha256()
            left = size
            while left:
                piece = file.read(min(left, CHUNK))
                if not piece:
                    raise PhaseError("only a part of the project's files has arrived")
                found.update(piece)
                left -= len(piece)
                while piece:
                    piece = piece[os.write(target, piece) :]
            if found.hexdigest() != sha256:
                raise PhaseError("the content %s of the project arrived damaged" % sha256[:16])
            try:
                os.rename(aside, path)
            except (IsADirectoryError, NotADirectoryError):  # put there by a job
                remove_tree(path)
                os.rename(aside, path)
        except BaseException as error:
            remove_tree(aside)
            if isinstance(error, OSError) and error.filename is None:
                raise OSError(error.errno, error.strerror, path) from None
            raise
        finally:
            os.close(target)

    def open(self, sha256: str, size: int | None = None) -> int | None:
        """Return a descriptor to read a content, or None if the store does not have it."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        for cache in self._caches:
            try:
                file = os.open(_path(cache, sha256), flags)
            except OSError:
                continue
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and size in (None, status.st_size):
                return file
            os.close(file)
        return None

    def manifest(self, digest: str) -> bytes | None:
        """Return a snapshot's manifest, and count its use; None if the store does not have it."""
        file = self.open(digest)
        if file is None:
            return None
        with open(file, "rb") as stream:
            # A job may have put a file without end there.
            data = stream.read(MAX_MANIFEST) if os.fstat(file).st_size <= MAX_MANIFEST else b""
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        self._count_use(digest)
        return data

    def _count_use(self, digest: str) -> None:
        """Set the time of the snapshot's last use, from which housekeeping chooses what to remove."""
        folder = os.path.join(self._cache, PythonLayout.SNAPSHOT_USES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self.make_folder(folder)
            file = os.open(os.path.join(folder, digest), flags, 0o666)
            try:
                os.utime(file)
            finally:
                os.close(file)
        except OSError:  # on a full or read-only volume the use is not counted
            pass

    def make_folder(self, folder: str) -> None:
        """Make a folder below the cache, and replace what a job put in its place."""
        if folder in self._folders or folder == self._cache:
            return
        self.make_folder(os.path.dirname(folder))
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                remove_tree(folder)
                os.mkdir(folder)
        self._folders.add(folder)


def _path(cache: str, sha256: str) -> str:
    return "%s/%s/%s/%s" % (cache, PythonLayout.SNAPSHOT_OBJECTS, sha256[:2], sha256[2:])


def _read_header(file: BinaryIO) -> list[tuple[str, int]]:
    """Return (SHA-256, size) of each content in a pack."""
    line = file.readline(MAX_HEADER)
    try:
        if not line.endswith(b"\n"):
            raise ValueError
        rows = json.loads(line)
        for sha256, size in rows:
            if not (HASH.fullmatch(sha256) and type(size) is int and size >= 0):
                raise ValueError
    except (ValueError, TypeError):
        raise PhaseError("the list of the project's contents arrived damaged") from None
    return [(sha256, size) for sha256, size in rows]

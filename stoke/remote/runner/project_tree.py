"""Make a job's own copy of its project from the store, as a manifest describes it.

`stoke.project.manifest` has the format. Nothing in a manifest is trusted: every path and link has to
stay inside the folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading

from stoke.remote.common.trees import FOLDER
from stoke.remote.runner.errors import PhaseError, StoppedError
from stoke.remote.runner.snapshot_store import HASH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from stoke.remote.runner.project_copy import ProjectCopy
    from stoke.remote.runner.snapshot_store import SnapshotStore
    from stoke.remote.runner.termination import Termination

    File = tuple[bytes, int, int, str]  # path, mode, size, SHA-256

VERSION = 1
# An empty name, ".", "..", or a NUL: what a path between "/" must not have.
_UNSAFE = re.compile(rb"(?:^|/)\.{0,2}(?:/|\Z)|\0")
FILES_FOR_TWO = 200
"""With so many files, a second thread copies half of them: most of the time is the file system's."""
CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
"""Errors of `copy_file_range` on file systems, and in sandboxes, that do not have it."""
CHUNK = 1024**2


class ProjectTree:
    """The folder of a job's project, which this makes."""

    def __init__(
        self,
        folder: str,
        store: SnapshotStore,
        termination: Termination,
        copy: ProjectCopy | None = None,
    ) -> None:
        """`copy` is what has the folder, if it may have files of an earlier job."""
        self.folder = folder
        self._taken_over = copy
        self._real: str | None = None
        self._store = store
        self._termination = termination
        self._top = -1
        self._copy: Callable[[int, int, int], int] = getattr(os, "copy_file_range", _copy_by_hand)
        self.files = 0
        self.missing: list[bytes] = []  # files whose content the store does not have

    def make(self, manifest: bytes) -> None:
        """Make folders, then files, then links, so that no path leads through a link.

        `PhaseError` for a manifest that is damaged or leaves the folder, `UnusableCopyError` for a
        folder of an earlier job that cannot be used.
        """
        files, links, empty = _parse(manifest)
        self.files = len(files)
        if self._taken_over is None:
            os.mkdir(self.folder)
        self._top = os.open(self.folder, FOLDER)
        try:
            folders = _folders([*(path for path, *_ in files), *(path for path, _ in links)], empty)
            if self._taken_over is not None:
                wanted: dict[bytes, tuple[int, str] | bytes | None] = dict.fromkeys(folders)
                wanted.update((path, (mode, sha256)) for path, mode, _, sha256 in files)
                wanted.update(links)
                there = self._taken_over.keep(self._top, wanted)
                folders = [path for path in folders if path not in there]
                files = [file for file in files if file[0] not in there]
                links = [link for link in links if link[0] not in there]
            for path in folders:
                os.mkdir(path, dir_fd=self._top)
            self._copy_files(files)
            for path, target in links:
                os.symlink(target, path, dir_fd=self._top)
        except FileExistsError as error:
            name = os.fsdecode(error.filename or b"")
            raise PhaseError("the project has two entries with the path %r" % name) from None
        finally:
            os.close(self._top)
        if self._taken_over is not None:
            self._taken_over.save()
        for path, _ in links:
            self.inside(os.fsdecode(path))

    def inside(self, path: str) -> str:
        """Return the full path of an entry. `PhaseError` if it is not inside of the project."""
        if self._real is None:
            self._real = os.path.realpath(self.folder)
        whole = os.path.normpath(os.path.join(self._real, path))
        if (os.path.realpath(whole) + "/").startswith(self._real + "/"):
            return whole
        raise PhaseError("%r leads out of the project" % path)

    def _copy_files(self, files: list[File]) -> None:
        if len(files) < FILES_FOR_TWO:
            self._copy_some(files)
            return
        failures: list[BaseException] = []

        def copy_half() -> None:
            try:
                self._copy_some(files[len(files) // 2 :])
            except BaseException as error:
                failures.append(error)

        other = threading.Thread(target=copy_half)
        other.start()
        try:
            self._copy_some(files[: len(files) // 2])
        finally:
            other.join()
        for failure in failures:
            raise failure

    def _copy_some(self, files: list[File]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for path, mode, size, sha256 in files:
            if self._termination.reason:
                raise StoppedError
            source = self._store.open(sha256, size)
            if source is None:
                self.missing.append(path)
                continue
            try:
                target = os.open(path, flags, mode, dir_fd=self._top)
                try:
                    self._copy_content(source, target, size)
                    if self._taken_over is not None:
                        self._taken_over.add(path, mode, sha256, os.fstat(target))
                finally:
                    os.close(target)
            except FileExistsError:
                raise
            except OSError as error:
                where = os.path.join(self.folder, os.fsdecode(path))
                raise OSError(error.errno, error.strerror, where) from None
            finally:
                os.close(source)

    def _copy_content(self, source: int, target: int, left: int) -> None:
        while left > 0:
            copy = self._copy
            try:
                copied = copy(source, target, left)
            except OSError as error:
                if error.errno not in CANNOT_COPY or copy is _copy_by_hand:
                    raise
                self._copy = _copy_by_hand
                continue
            if not copied:
                raise OSError(errno.EIO, "its content became shorter while it was copied")
            left -= copied


def _folders(paths: list[bytes], empty: list[bytes]) -> list[bytes]:
    """Return the folders of a project, each after the one that holds it."""
    found: dict[bytes, None] = {}
    for path in [*empty, *dict.fromkeys(path.rpartition(b"/")[0] for path in paths)]:
        end = 0 if path and path not in found else -1
        while end >= 0:
            end = path.find(b"/", end + 1)
            found[path if end < 0 else path[:end]] = None
    return list(found)


def _copy_by_hand(source: int, target: int, left: int) -> int:
    piece = os.read(source, min(left, CHUNK))
    whole = len(piece)
    while piece:
        piece = piece[os.write(target, piece) :]
    return whole


def _parse(manifest: bytes) -> tuple[list[File], list[tuple[bytes, bytes]], list[bytes]]:
    """Return the files, the links and their targets, and the empty folders of a manifest."""
    files: list[File] = []
    links: list[tuple[bytes, bytes]] = []
    folders: list[bytes] = []
    try:
        document = json.loads(manifest)
        if document["version"] != VERSION:
            raise PhaseError(
                "this runner cannot read manifests of version %r" % document["version"]
            )
        for path, kind, *rest in document["entries"]:
            path = encoded(path)
            if _UNSAFE.search(path):
                raise PhaseError("%r is not a path inside of a project" % os.fsdecode(path))
            if kind == "f":
                files.append(_file(path, *rest))
            elif kind == "l":
                (target,) = rest
                links.append((path, encoded(target)))
            elif kind == "d" and not rest:
                folders.append(path)
            else:
                raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PhaseError("the manifest of the project is damaged") from None
    return files, links, folders


def _file(path: bytes, mode: Any, size: Any, sha256: Any) -> File:
    if type(mode) is not int or type(size) is not int or size < 0 or not HASH.fullmatch(sha256):
        raise ValueError
    return path, 0o755 if mode & 0o100 else 0o644, size, sha256


def encoded(path: str) -> bytes:
    """Return a path's bytes, also where the locale's encoding is not UTF-8."""
    return path.encode("utf-8", "surrogateescape")

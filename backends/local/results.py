"""Read the results folder of a local job, whose processes have ended."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from backends.local.folders import job_folder
from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.errors import EngineError
from stoke.remote.protocol import JobFolder

CHUNK = 1024**2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_folder(folder: Path) -> Generator[ResultEntry]:
    """Give every entry below a folder; open no link, no pipe and no other file system's folder."""
    try:
        top = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    except OSError:
        yield ResultEntry(b"", EntryKind.LINK)
        return
    try:
        device = os.fstat(top).st_dev
        waiting = [b""]
        while waiting:
            inner = waiting.pop()
            try:
                below = os.open(inner or b".", _FOLDER, dir_fd=top)
            except OSError:
                yield ResultEntry(inner, EntryKind.OTHER)
                continue
            try:
                names = sorted(map(os.fsencode, os.listdir(below)))
                for name in names:
                    path = inner + b"/" + name if inner else name
                    entry = _entry(path, name, below, device)
                    yield entry
                    if entry.kind is EntryKind.FOLDER:
                        waiting.append(path)
            finally:
                os.close(below)
    finally:
        os.close(top)


def _entry(path: bytes, name: bytes, folder: int, device: int) -> ResultEntry:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return ResultEntry(path, EntryKind.OTHER)
    mode = status.st_mode
    if stat.S_ISREG(mode):
        read = partial(_content, name, folder, status.st_size)
        kind, size = EntryKind.FILE, status.st_size
        return ResultEntry(path, kind, size, mode, status.st_mtime, read=read)
    if stat.S_ISDIR(mode) and status.st_dev == device:
        return ResultEntry(path, EntryKind.FOLDER)
    return ResultEntry(path, EntryKind.LINK if stat.S_ISLNK(mode) else EntryKind.OTHER)


def _content(name: bytes, folder: int, size: int) -> Iterator[bytes]:
    """Give exactly `size` bytes of a file. Raises `EngineError` if it cannot be read or changes."""
    try:
        file = os.open(name, _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "it is no longer a regular file")
            while size:
                piece = os.read(file, min(size, CHUNK))
                if not piece:
                    raise OSError(errno.EIO, "it became shorter")
                size -= len(piece)
                yield piece
        finally:
            os.close(file)
    except OSError as error:
        raise EngineError(f"cannot read the result {name!r}: {error.strerror}") from error


class LocalResults:
    """The part of the backend that gives results."""

    def results(
        self,
        job_id: str,
        progress: Callable[[str], None],  # noqa: ARG002
    ) -> Generator[ResultEntry] | None:
        folder = job_folder(job_id)
        return read_folder(folder / JobFolder.RESULTS) if folder.exists() else None

    def has_results(self, job_id: str) -> bool:
        with closing(read_folder(job_folder(job_id) / JobFolder.RESULTS)) as entries:
            return next(entries, None) is not None

    def forget_results(self, job_id: str) -> None:
        """Do nothing: they are removed with the job's folder."""

"""File locks on a cache volume, between jobs and housekeeping."""

from __future__ import annotations

import errno
import fcntl
import os

from stoke.remote.common.files import is_lock_file
from stoke.remote.common.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NOT_A_FILE = (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV)
"""Errors of opening a path that is a pipe, a folder, a symbolic link, a socket or a device."""


class FileLock:
    """An advisory lock on a file.

    Housekeeping removes lock files, holding their lock. So after acquiring it, a job checks that the
    file still has its name, and else opens the new file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open()

    def _open(self) -> int:
        try:
            return self._open_regular()
        except OSError as error:
            if error.errno not in NOT_A_FILE:
                raise
            remove_tree(self._path)  # put there by a job: our lock files are regular files
            return self._open_regular()

    def _open_regular(self) -> int:
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | flags, 0o666)
        except OSError as error:
            # Locking needs no writing, so a read-only volume serves what it holds.
            if error.errno in (errno.EROFS, errno.EACCES) and os.path.exists(self._path):
                file = os.open(self._path, os.O_RDONLY | flags)
            else:
                raise
        if not is_lock_file(os.fstat(file)):
            os.close(file)
            raise OSError(errno.EINVAL, "is not a lock file", self._path)
        return file

    def acquire(self, kind: int, waiting: Callable[[], None]) -> None:
        """Wait for the lock; `kind` is LOCK_SH or LOCK_EX. Call `waiting` once if it is not free."""
        while True:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(self._file, kind)
            if self._has_its_name():
                return
            os.close(self._file)
            self._file = self._open()

    def try_acquire(self) -> bool:
        """Take the lock exclusively; return False if another process has it."""
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._has_its_name():
                return True
            os.close(self._file)
            self._file = self._open()

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def count_use(self) -> None:
        """Append a byte: the file's size is the number of uses, its time that of the last one."""
        try:
            os.write(self._file, b".")
        except OSError:  # on a full or read-only volume the use is not counted
            pass

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

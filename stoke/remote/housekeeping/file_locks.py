"""File locks, taken without waiting."""

from __future__ import annotations

import errno
import fcntl
import os

from stoke.remote.common.files import is_lock_file
from stoke.remote.housekeeping.files import give_rights, is_folder, is_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def try_lock(path: str, move_away: Callable[[str], object]) -> int | None:
    """Return a descriptor that holds the exclusive lock of a file, made if need be.

    None if another process holds the lock, or if there can be no file. `move_away` removes what is no
    lock file, such as a folder, a link or a pipe: no job of ours holds that.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(1000):
        try:
            lock = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE):
                raise
            exists = os.path.lexists(path)
            if exists and error.errno == errno.EACCES and is_regular(path):
                give_rights(path)
            elif exists:
                move_away(path)
            elif error.errno != errno.ENOENT or not is_folder(os.path.dirname(path)):
                return None
            continue
        if not is_lock_file(os.fstat(lock)):
            os.close(lock)
            move_away(path)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if _is_same_file(lock, path):
            return lock
        os.close(lock)  # the file was removed before it was locked
    return None


def is_held(path: str) -> bool:
    """Return whether a process holds the lock of a file."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if is_lock_file(os.fstat(lock)):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _is_same_file(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False

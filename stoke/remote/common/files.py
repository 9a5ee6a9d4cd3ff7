"""Read regular files in folders that jobs write to, and recognize full disks."""

from __future__ import annotations

import errno
import os
import stat

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
MIN_FREE = 64 * 1024  # bytes; a volume with less counts as full


def read_regular(path: str, limit: int) -> bytes | None:
    """Return the bytes of a regular file, or None if it is longer than `limit` bytes.

    Follows no symbolic link and waits for no pipe: raises `OSError` for anything but a regular file.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        if status.st_size > limit:
            return None
        data = stream.read(limit + 1)
    return None if len(data) > limit else data


def is_below(path: str, folder: str) -> bool:
    """Return whether `path` is `folder` or inside it."""
    return (os.path.abspath(path) + "/").startswith(os.path.abspath(folder).rstrip("/") + "/")


def is_full(folder: str) -> bool:
    """Return whether the volume that holds `folder` has no bytes or no inodes left."""
    try:
        volume = os.statvfs(folder)
    except OSError:
        return False
    no_inodes = volume.f_files > 0 and volume.f_favail == 0
    return volume.f_bavail * volume.f_frsize < MIN_FREE or no_inodes


def is_lock_file(status: os.stat_result) -> bool:
    """Return whether a file can serve as a file lock: a regular file with one name.

    Of a file with two names, two file locks would be the same lock.
    """
    return stat.S_ISREG(status.st_mode) and status.st_nlink < 2

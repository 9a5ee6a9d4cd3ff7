"""Disk space kept for the history, so that jobs can be listed and stopped on a full disk.

SQLite needs 32 KiB beside the history even for reading, and some pages for each change. A job that
fills the disk is stopped with what this file frees; a later process allocates it again.
"""

from __future__ import annotations

import os
from pathlib import Path

from stoke.remote.common.files import is_full

NAME = "history.reserve"
SIZE = 256 * 1024
# Of a disk with less space than this, the reserve would be a noticeable part.
LEAST_FREE = 64 * SIZE


def keep_reserve(folder: Path) -> None:
    """Allocate the reserve, unless it is there or space is already short."""
    path = folder / NAME
    try:
        path.stat()
        return
    except OSError:
        pass
    try:
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE:
            return
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        # Random bytes, which a file system cannot compress.
        os.write(file, os.urandom(SIZE))
    except OSError:
        path.unlink(missing_ok=True)
    finally:
        os.close(file)


def free_reserve(folder: Path) -> bool:
    """Give the reserve to a history that finds no space. Return whether there was one."""
    if not is_full(str(folder)):
        return False
    try:
        (folder / NAME).unlink()
    except OSError:
        return False
    return True

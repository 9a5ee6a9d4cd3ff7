"""Advisory locks on files (flock(2)) between processes.

The kernel releases a lock when the process that holds it ends, so a held lock proves that its process
is alive, which a process id in a file does not.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take_lock(path: Path, *, wait: bool, create: bool = True) -> int | None:
    """Take the exclusive lock on a file; return the descriptor that holds it until it is closed.

    Without `wait`, return None if another process holds the lock. Raises `OSError` if the file cannot
    be opened; without `create` that includes a missing file.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        taken = lock_descriptor(descriptor, wait=wait)
    except BaseException:
        os.close(descriptor)
        raise
    if not taken:
        os.close(descriptor)
        return None
    return descriptor


def lock_descriptor(descriptor: int, *, wait: bool) -> bool:
    """Take the exclusive lock on an open file; return False if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def release_lock(descriptor: int) -> None:
    """Release a lock and close its descriptor.

    Closing alone releases it only once a child process that is just being started has closed its copy,
    which the kernel does shortly after `posix_spawn` has returned.
    """
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the exclusive lock on a file; a missing file is not locked."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)

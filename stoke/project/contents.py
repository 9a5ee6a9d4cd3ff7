"""Read the files of a project, and name the one that cannot be read as a whole."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Callable

from stoke.errors import RequestError

CHUNK = 1 << 20
ATTEMPTS = 3
_WILD = re.compile(r"([\\*?\[\]])")


class ChangingError(Exception):
    """A file changed while it was read."""


def read_file(
    root: str, path: str, write: Callable[[bytes], object] = lambda data: None
) -> tuple[str, os.stat_result]:
    """Give the content of a file to `write` in pieces; return its SHA-256 and its status.

    Raises `OSError`, and `ChangingError` if the file changes meanwhile, or is no regular file any more.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(f"{root}/{path}", flags)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ChangingError
        digest, length = hashlib.sha256(), 0
        # One byte more shows that the file grows, and ends the reading of one that grows for ever.
        while data := os.read(descriptor, min(CHUNK, before.st_size + 1 - length)):
            digest.update(data)
            length += len(data)
            write(data)
            if length > before.st_size:
                raise ChangingError
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    times = (before.st_mtime_ns, before.st_ctime_ns)
    if length != before.st_size or times != (after.st_mtime_ns, after.st_ctime_ns):
        raise ChangingError
    return digest.hexdigest(), before


def hash_file(root: str, path: str) -> tuple[str, os.stat_result]:
    """Return the SHA-256 and the status of a file. Raises `RequestError` if it cannot be read whole."""
    for _ in range(ATTEMPTS):
        try:
            return read_file(root, path)
        except ChangingError:
            continue
        except OSError as error:
            raise unreadable(path, error) from None
    raise changing(path)


def unreadable(path: str, error: OSError, more: int = 0) -> RequestError:
    others = f" (and {more} more)" if more else ""
    if isinstance(error, FileNotFoundError):
        return RequestError("project", f"{path} disappeared while it was read", _again(path))
    return RequestError(
        "project",
        f"cannot read {path}{others}: {error.strerror}",
        f"leave it out: {exclude_option(path)}",
    )


def changing(path: str) -> RequestError:
    return RequestError("project", f"{path} changes while it is read", _again(path))


def exclude_option(path: str) -> str:
    """Return the option that leaves out exactly this path, as it is typed in a shell."""
    return f"--exclude {shlex.quote(pattern_of(path))}"


def pattern_of(path: str) -> str:
    """Return the pattern of .gitignore that matches only this path of a project."""
    text = _WILD.sub(r"\\\1", path)
    return "/" + (text[:-1] + "\\ " if text.endswith(" ") else text)


def _again(path: str) -> str:
    return f"run it again, or leave the file out: {exclude_option(path)}"

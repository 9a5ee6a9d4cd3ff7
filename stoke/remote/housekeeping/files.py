"""Read folders and files that jobs wrote, within limits."""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
import time

from stoke.remote.common.files import read_regular
from stoke.remote.housekeeping.limits import MAX_NAMES, MAX_PACKAGE_NAME, MAX_PACKAGES, MAX_VALUES
from stoke.remote.protocol import MAX_METADATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def names_in(folder: str) -> list[str]:
    """Return the sorted names in a folder, at most `MAX_NAMES`; none if it is no folder or a link."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return []
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, MAX_NAMES))
    except OSError:
        return []


def give_rights(path: str) -> None:
    """Give the owner of a file or folder all rights to it, never through a symbolic link."""
    if not hasattr(os, "O_PATH"):
        return
    try:
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod("/proc/self/fd/%d" % handle, 0o700)
    except OSError:
        pass  # a link, or another user's file
    finally:
        os.close(handle)


def is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_small(path: str) -> bool:
    """Return whether it is a regular file, no larger than those files of ours that clearing keeps."""
    return is_regular(path) and os.lstat(path).st_size <= 4096


def read_text(path: str, limit: int = MAX_METADATA) -> str | None:
    """Return the text of a regular file; None if it is none, a link, or longer than `limit`."""
    try:
        data = read_regular(path, limit)
    except OSError:
        return None
    return None if data is None else data.decode("utf-8", "replace")


def read_json(path: str, limit: int = MAX_METADATA) -> Any:
    """Return the value in a JSON file. `ValueError` if it is unreadable, too large, or too deep."""
    text = read_text(path, limit) or ""
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise ValueError("too many values")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def package_names(value: Any) -> list[str]:
    """Check names of packages from a file. `ValueError` for what cannot be names of packages."""
    if not isinstance(value, (list, dict)) or len(value) > MAX_PACKAGES:
        raise ValueError("not packages")
    names = list(value)
    for name in names:
        if not isinstance(name, str) or len(name) > MAX_PACKAGE_NAME or not name.isprintable():
            raise ValueError("not a package")
    return names


def point_in_time(value: Any) -> float:
    """Return a value from a file as epoch seconds, not in the future. `ValueError` if it is none."""
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError("not a time")
    return min(max(seconds, 0.0), time.time())

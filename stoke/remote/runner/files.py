"""Read and write files on a cache volume and in the job's work folder."""

from __future__ import annotations

import json
import os

from stoke.remote.common.files import DISK_FULL, is_below, is_full, read_regular
from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import MAX_METADATA
from stoke.remote.runner.errors import CacheError, PhaseError
from stoke.remote.runner.file_lock import NOT_A_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_atomically(path: str, text: str) -> None:
    """Write a file aside and rename it, so that a reader finds all of the text or the old file."""
    # Unguessable: no pipe or other trap of a job can have this name.
    aside = "%s.%s.new" % (path, os.urandom(8).hex())
    try:
        with open(aside, "x", encoding="utf-8", newline="") as file:
            file.write(text)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        os.rename(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def read_fresh(path: str, not_before: float) -> str | None:
    """Return the text of a file that is from `not_before` (epoch seconds) or later, else None.

    None also for a path that is no regular file, or not text.
    """
    try:
        if os.lstat(path).st_mtime < not_before:
            return None
        data = read_regular(path, MAX_METADATA)
        return None if data is None else data.decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        if error.errno in NOT_A_FILE:
            return None
        raise


def read_json(path: str) -> Any:
    """Return the value in a JSON file; None if it is unreadable, too long, too deep, or not JSON."""
    try:
        return json.loads(read_regular(path, MAX_METADATA) or b"")
    except (OSError, ValueError, RecursionError):
        return None


def record_request(folder: str, request: str, key: str) -> None:
    """Record on the volume which environment answered a request, so that a hit can be predicted."""
    path = os.path.join(folder, request)
    try:
        if read_fresh(path, 0) != key:
            os.makedirs(folder, exist_ok=True)
            write_atomically(path, key)
    except OSError:  # on a full or read-only volume, nothing can be predicted
        pass


def digest(value: object) -> str:
    """Return the hash of a JSON value, in hexadecimal."""
    import hashlib  # loads OpenSSL, which a job without packages does not need

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def cache_trouble(error: PhaseError | OSError, cache: str) -> str | None:
    """Return why the cache cannot be used, or None if the error has another cause."""
    if isinstance(error, PhaseError):
        return error.text if isinstance(error, CacheError) else None
    if error.filename is not None:
        name = os.fsdecode(error.filename)
        if is_below(name, cache) or is_below(cache, name):
            return "%s: %s" % (name, error.strerror)
        return None
    # The error of a write names no file, so check the volume.
    if error.errno in DISK_FULL and is_full(cache):
        return "%s: %s" % (cache, error.strerror)
    return None

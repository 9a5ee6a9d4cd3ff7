"""Remember which contents the cache volumes have, so that they are not sent again.

For each backend, scope and volume there is a file with a SHA-256 a line. It says what is believed: if
something was pruned meanwhile, the job fails before its code, and `forget_stored` is called.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from stoke.errors import StokeError
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import read_bytes

MAX_SIZE = 64 * 1024**2
"""Bytes; a file that grew beyond it is begun anew."""
_LINE = re.compile(rb"^[0-9a-f]{64}$", re.MULTILINE)


def read_stored(backend: str, scope: str, volume: str) -> set[str]:
    """Return the hashes of the contents that a volume is believed to have."""
    try:
        data = read_bytes(_file(backend, scope, volume), MAX_SIZE)
    except OSError:
        return set()
    return {line.decode() for line in _LINE.findall(data)}


def add_stored(backend: str, scope: str, volume: str, hashes: Iterable[str]) -> None:
    """Record contents that a job has stored. A failure only costs time later."""
    path = _file(backend, scope, volume)
    try:
        make_private(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            # The first newline ends a line that a killed process left unfinished.
            lines = b"\n" + "".join(f"{sha256}\n" for sha256 in hashes).encode()
            if os.fstat(file.fileno()).st_size + len(lines) > MAX_SIZE:
                file.truncate(0)
            file.write(lines)  # One write, so that the lines of two processes do not mix.
    except (OSError, StokeError):
        pass


def forget_stored(backend: str, scope: str) -> None:
    """Forget what the volumes of a scope have: one was pruned or cleared, or a job missed something."""
    prefix = _prefix(backend, scope)
    try:
        with os.scandir(_folder()) as entries:
            found = [entry.path for entry in entries if entry.name.startswith(prefix)]
        for path in found:
            os.unlink(path)
    except OSError:
        pass


def _file(backend: str, scope: str, volume: str) -> Path:
    return _folder() / (_prefix(backend, scope) + _short_hash(volume))


def _prefix(backend: str, scope: str) -> str:
    return _short_hash(json.dumps([backend, scope])) + "-"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _folder() -> Path:
    return state_dir() / "projects" / "stored"

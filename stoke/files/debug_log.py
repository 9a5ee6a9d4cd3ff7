"""Write the debug log: a file with timings, requests to engines and decisions, secrets masked.

Every stoke process appends to the same file. Import this module only when the log is on (see
`stoke.files.debug`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from pathlib import Path
from urllib.parse import quote

from stoke.errors import EngineError
from stoke.files import debug
from stoke.files.paths import make_private, state_dir
from stoke.text.sanitize import MASK, clean_block, looks_secret, mask_secrets

MAX_SIZE = 5 * 1024**2
"""Bytes after which the file is renamed to `debug.log.1`, over the one before, and begun anew."""

_PACKAGES = ("stoke", "backends", "tui")
# The login of an address, and what follows the scheme of an Authorization header.
_LOGINS = re.compile(r"(?<=://)[^/\s@]+(?=@)|(?i:(?<=bearer )|(?<=basic ))[^\s,;'\"]+")


def start() -> None:
    """Turn the debug log on for this process. Raise `EngineError` if its file cannot be opened."""
    path = state_dir() / "debug.log"
    if debug.debug_file() == path:
        return
    try:
        handler = DebugFile(path)
    except OSError as error:
        raise EngineError(f"cannot write the debug log {path}: {error.strerror}") from error
    handler.setFormatter(MaskingFormatter())
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    debug.turn_on(path)
    # A short value is more likely a flag than a secret, and would mask parts of other words.
    debug.hide(value for name, value in os.environ.items() if looks_secret(name) and len(value) > 5)


class MaskingFormatter(logging.Formatter):
    """Format a record as harmless lines without secrets."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(process)d %(threadName)s %(name)s: %(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        secrets = debug.hidden()
        text = mask_secrets(text, [*secrets, *(quote(secret, safe="") for secret in secrets)])
        # Further lines are indented, so that no text can pass for a record.
        return clean_block(_LOGINS.sub(MASK, text)).replace("\n", "\n    ")


class DebugFile(logging.Handler):
    """Append records to a file that several processes write to, and rotate it by size.

    Each record is written under the file's lock, so that no process writes into a file that others
    have rotated away. A record that cannot be written is dropped: debugging must not change how a
    command ends.
    """

    def __init__(self, path: Path, max_size: int = MAX_SIZE) -> None:
        super().__init__()
        self._path = path
        self._max_size = max_size
        make_private(path.parent)
        self._file = self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode(errors="backslashreplace")
            self._lock_current()
            try:
                os.write(self._file, data)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except Exception:  # noqa: S110 - see the class
            pass

    def close(self) -> None:
        os.close(self._file)
        super().close()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)

    def _lock_current(self) -> None:
        """Lock the file that has the path now, after rotating it if it is full."""
        while True:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if _is_at(self._file, self._path):
                if os.fstat(self._file).st_size < self._max_size:
                    return
                os.replace(self._path, self._path.with_suffix(".log.1"))
            replaced, self._file = self._file, self._open()
            os.close(replaced)  # This releases its lock.


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False

"""The audit log: a line of JSON for each change and each refusal, in `api/audit.jsonl` of the state
folder."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from typing import Any

from stoke.api.tokens import api_folder
from stoke.text.times import rfc3339

LARGEST = 64 * 1024**2
"""Bytes after which the log is set aside as `audit.jsonl.1`, in place of the one before."""
LONGEST = 300


class AuditLog:
    """Appends to the log. Its lines are ASCII, so no text of a client can begin a line of its own."""

    def __init__(self) -> None:
        self._path = api_folder() / "audit.jsonl"
        self._lock = threading.Lock()
        self._told = False
        self._is_cut_off = False
        """Whether the last line has no end, because the disk was full."""

    def write(self, **entry: Any) -> None:
        """Write one entry. A log that cannot be written is reported once, on standard error."""
        shown = {
            name: value[:LONGEST] if isinstance(value, str) else value
            for name, value in entry.items()
            if value is not None
        }
        line = json.dumps({"at": rfc3339(time.time()), **shown}).encode() + b"\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            try:
                file = os.open(self._path, flags, 0o600)
                try:
                    if self._is_cut_off:
                        line = b"\n" + line
                    written = os.write(file, line)
                    if written < len(line):
                        self._is_cut_off = True
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    self._is_cut_off = False
                    size = os.fstat(file).st_size
                finally:
                    os.close(file)
                if size > LARGEST:
                    self._path.replace(self._path.with_suffix(".jsonl.1"))
                self._told = False
            except OSError as error:
                if not self._told:
                    sys.stderr.write(f"stoke: cannot write {self._path}: {error.strerror}\n")
                self._told = True

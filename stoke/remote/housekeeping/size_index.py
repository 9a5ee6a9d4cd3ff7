"""Remembered sizes of what does not change, so that measuring again is quick."""

from __future__ import annotations

import json
import os

from stoke.remote.common.trees import remove_tree
from stoke.remote.housekeeping.files import is_folder, read_json
from stoke.remote.housekeeping.limits import MAX_BYTES, MAX_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class SizeIndex:
    """Values by name, each valid as long as a fingerprint of the file or folder is the same.

    Jobs can write to the volume, so a damaged file is an empty index.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            stored = read_json(path, MAX_FILE)
            self._before = {str(name): tuple(row) for name, row in stored.items()}
        except (ValueError, TypeError, AttributeError):
            self._before = {}
        self._now: dict[str, tuple[Any, ...]] = {}

    def get(self, name: str, fingerprint: list[Any], kinds: tuple[type, ...]) -> list[Any] | None:
        """Return the values stored for `name` with this fingerprint, if they are of these types."""
        row = self._before.get(name)
        if row is None or len(row) != 2 or row[0] != fingerprint or not isinstance(row[1], list):
            return None
        values: list[Any] = row[1]
        if [type(value) for value in values] != list(kinds):
            return None
        if not all(0 <= value < MAX_BYTES for value in values if isinstance(value, (int, float))):
            return None
        self._now[name] = (fingerprint, values)
        return values

    def put(self, name: str, fingerprint: list[Any], values: list[Any]) -> None:
        self._now[name] = (fingerprint, values)

    def save(self) -> None:
        if self._now == self._before:
            return
        text = json.dumps(self._now, separators=(",", ":"))
        if len(text) > MAX_FILE:
            return  # too long to be read again
        # Unguessable for jobs; the end is one that pruning knows.
        aside = "%s.%s.new" % (self._path, os.urandom(8).hex())
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(aside, flags, 0o600), "w") as file:
                file.write(text)
            if is_folder(self._path):
                remove_tree(self._path)
            os.rename(aside, self._path)
        except OSError:  # on a full or read-only volume, the next run measures again
            try:
                os.unlink(aside)
            except OSError:
                pass

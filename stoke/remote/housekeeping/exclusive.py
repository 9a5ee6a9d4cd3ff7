"""One run of housekeeping at a time on a volume."""

from __future__ import annotations

import os
import time

from stoke.remote.housekeeping.errors import RefusedError
from stoke.remote.housekeeping.file_locks import try_lock
from stoke.remote.housekeeping.files import give_rights
from stoke.remote.housekeeping.volume import HOUSEKEEPING_LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.housekeeping.volume import CacheVolume

EXCLUSIVE_SECONDS = 900.0
"""How long to wait for another run. A job can hold its lock as well, without end."""


class ExclusiveRun:
    """Holds the exclusive housekeeping lock of a volume."""

    def __init__(self, volume: CacheVolume) -> None:
        self._volume = volume
        self._lock: int | None = None

    def __enter__(self) -> None:
        volume = self._volume
        give_rights(volume.path())
        began = time.monotonic()
        while True:
            self._lock = try_lock(volume.path(HOUSEKEEPING_LOCK), volume.move_to_trash)
            if self._lock is not None:
                return
            if time.monotonic() - began > EXCLUSIVE_SECONDS:
                raise RefusedError(
                    "%s has been held for %d minutes" % (HOUSEKEEPING_LOCK, EXCLUSIVE_SECONDS / 60),
                    "find the job of this scope that holds it, and stop that job: stoke jobs",
                )
            volume.set_activity("waiting for other housekeeping to end")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)

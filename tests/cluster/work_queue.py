"""A queue of workflows to look at, each at its time."""

from __future__ import annotations

import heapq
import threading
import time

from tests.cluster.workflow_fields import Key


class WorkQueue:
    """Holds each workflow once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, Key]] = []

    def add(self, key: Key, seconds: float) -> None:
        """Have a workflow looked at after `seconds`, or earlier if that is already due."""
        due = time.monotonic() + seconds
        with self._changed:
            for i, (other, waiting) in enumerate(self._due):
                if waiting == key:
                    if other <= due:
                        return
                    del self._due[i]
                    break
            self._due.append((due, key))
            heapq.heapify(self._due)
            self._changed.notify()

    def next(self) -> Key:
        """Wait for the next workflow that is due and take it from the queue."""
        with self._changed:
            while True:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[1]
                self._changed.wait(wait)

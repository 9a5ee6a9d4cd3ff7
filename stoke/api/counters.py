"""Counters of the server for Prometheus. They only rise while the server runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from stoke.cache.prometheus import lines


class Counters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()
        self._submissions: Counter[str] = Counter()
        self._log_bytes = 0
        self._began = time.time()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is the path's template: a client chooses paths, and so their
        number."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._seconds[method, route] += seconds  # type: ignore[assignment]

    def submission(self, outcome: str) -> None:
        """Count a submission: "accepted", "repeated" (its key was known) or "refused"."""
        with self._lock:
            self._submissions[outcome] += 1

    def log_bytes(self, number: int) -> None:
        with self._lock:
            self._log_bytes += number

    def exposition(self, streams: int, queued: int) -> str:
        with self._lock:
            return "".join(line + "\n" for line in self._lines(streams, queued))

    def _lines(self, streams: int, queued: int) -> Iterator[str]:
        yield from lines(
            "stoke_api_requests_total",
            "Requests that were answered.",
            [
                ({"method": method, "route": route, "status": str(status)}, number)
                for (method, route, status), number in sorted(self._requests.items())
            ],
            "counter",
        )
        yield from lines(
            "stoke_api_request_seconds_total",
            "Seconds until the head of the answer.",
            [
                ({"method": method, "route": route}, round(seconds, 6))
                for (method, route), seconds in sorted(self._seconds.items())
            ],
            "counter",
        )
        yield from lines(
            "stoke_api_submissions_total",
            "Submissions by their outcome.",
            [({"outcome": name}, number) for name, number in sorted(self._submissions.items())],
            "counter",
        )
        yield from lines(
            "stoke_api_log_bytes_total",
            "Bytes of logs that were sent.",
            [({}, self._log_bytes)],
            "counter",
        )
        yield from lines("stoke_api_streams", "Streams that are open.", [({}, streams)])
        yield from lines("stoke_api_queued_jobs", "Jobs that wait for their start.", [({}, queued)])
        yield from lines(
            "stoke_api_start_time_seconds", "When the server started.", [({}, self._began)]
        )

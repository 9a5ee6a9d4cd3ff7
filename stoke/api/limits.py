"""Limits of requests: their rate, the streams that are open at once, the size of a body."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from stoke.api.errors import ProblemError

MOST_CLIENTS = 10_000
"""Clients whose rate is remembered; the one that was seen first is forgotten for a new one."""
MOST_DISCARDED = 256 * 1024**2
DISCARD_SECONDS = 5.0
BODY_SECONDS = 30.0
"""How long the body of a request may take."""


class RateLimit:
    """A token bucket for each client: `rate` requests a second, `burst` of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Count a request. Return 0 if it may be served, else the seconds until the next one may."""
        now = time.monotonic()
        left, then = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        served = left >= 1
        self._buckets[client] = (left - 1 if served else left, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if served else (1 - left) / self._rate


class Streams:
    """Counts answers that stay open: logs that are followed, results that are sent."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        if self.open >= self._most:
            raise ProblemError(
                503,
                f"{self.open} streams are open, which is the most (api.streams)",
                headers={"Retry-After": "5"},
            )
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


async def _discard(request: Request) -> None:
    """Read the rest of a body and forget it: closing a connection with unread bytes would keep the
    answer from the client. Gives up on a very long or slow one."""
    size = 0
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > MOST_DISCARDED:
                    return
    except (TimeoutError, ClientDisconnect):
        return


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request. Raises `ProblemError` if it is too long, too slow or incomplete."""
    # What is left of the body is not read, so the connection cannot be used again.
    closing = {"Connection": "close"}
    too_long = ProblemError(413, f"The body is longer than {limit:,} bytes.", headers=closing)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        await _discard(request)
        raise too_long
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    pieces.clear()
                    await _discard(request)
                    raise too_long
                pieces.append(piece)
    except TimeoutError:
        raise ProblemError(
            408, f"The body did not come within {BODY_SECONDS:.0f} s.", headers=closing
        ) from None
    except ClientDisconnect:
        raise ProblemError(400, "The body is incomplete.", headers=closing) from None
    return b"".join(pieces)

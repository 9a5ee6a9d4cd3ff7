"""Answers that stay open, with limits to their number and to how slowly a client may read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

if TYPE_CHECKING:
    from stoke.api.server_state import Api

BYTES = "application/octet-stream"
STUCK_SECONDS = 60.0
"""How long a client may take for one piece of a stream."""


class LimitedStream(StreamingResponse):
    """A stream that counts as open while it is sent. A client that reads nothing of it is disconnected;
    meanwhile nothing more is read for it, so it costs no memory."""

    def __init__(self, api: Api, content: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._api = api
        self._slot = api.streams.one()
        # Here, so that a refusal is an answer of its own.
        self._slot.__enter__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def limited(message: Message) -> None:
            async with asyncio.timeout(STUCK_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, limited)
        finally:
            self._slot.__exit__(None, None, None)
            if hasattr(self.body_iterator, "aclose"):
                await self.body_iterator.aclose()


def stream(api: Api, content: AsyncIterator[bytes], headers: dict[str, str]) -> LimitedStream:
    """Return the answer. Raises `ProblemError` 503 if too many streams are open."""
    return LimitedStream(api, content, {"Cache-Control": "no-store", **headers})

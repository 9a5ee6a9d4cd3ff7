"""uvicorn's HTTP protocol, with limits to connections that send no request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""How long the head of a request may take to come."""
MAX_HEAD = 32 * 1024
"""Bytes of the head of a request."""
MOST_IDLE = 200
"""Connections that may be without a request at once. A further one takes the place of the oldest."""


def limited_protocol() -> type[H11Protocol]:
    """Return a protocol class for one server."""
    idle: dict[LimitedProtocol, None] = {}

    class LimitedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._head_timer is None and not self._is_over():
                self._wait_for_head()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._stop_waiting()
            super().handle_websocket_upgrade(event)

        def _is_over(self) -> bool:
            """Return whether the connection is closing, or is a WebSocket now."""
            return self.transport.is_closing() or self.transport.get_protocol() is not self

        def on_response_complete(self) -> None:
            self._stop_waiting()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
            idle[self] = None
            if len(idle) > MOST_IDLE:
                oldest = next(iter(idle))
                oldest._stop_waiting()
                oldest.transport.abort()

        def _stop_waiting(self) -> None:
            idle.pop(self, None)
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return LimitedProtocol


def uvicorn_options(**more: Any) -> dict[str, Any]:
    return {
        "http": limited_protocol(),
        "ws": "none",
        "h11_max_incomplete_event_size": MAX_HEAD,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 5,
        "server_header": False,
        "access_log": False,
        "log_config": None,
        "proxy_headers": False,
        "lifespan": "on",
        "loop": "asyncio",
        **more,
    }

"""A program's streams over one socket that never blocks: what `Channel`s over a connection share."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from stoke.errors import EngineError

READ_SIZE = 1 << 16
SEND_SECONDS = 20.0
_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket that would block raises."""


class SocketChannel:
    """The part of a `stoke.backend.capabilities.Channel` that reads and writes its connection.

    `connection` is a connected socket, and `response` the response of `http.client` that opened it.
    `what` completes "cannot ...". A subclass decodes what arrives, with `_take_pieces`.
    """

    def __init__(self, connection: Any, response: Any, what: str) -> None:
        connection.settimeout(0)
        self._socket = connection
        self._what = what
        # From now on the socket is read itself, and not through the buffer of its response.
        self._received = bytearray(_held(response))
        self._queue = bytearray()
        self._ended = False
        self._failure: OSError | None = None

    def readers(self) -> Sequence[int]:
        return [self._socket.fileno()]

    def writer(self) -> int | None:
        return self._socket.fileno() if self._queue else None

    def queue(self, data: bytes) -> None:
        self._queue += data

    def queued(self) -> int:
        return len(self._queue)

    def write(self) -> None:
        try:
            sent = self._send(self._queue[:READ_SIZE])
            del self._queue[:sent]
        except _WAITS:
            pass
        except OSError:
            self._queue.clear()  # It has ended, which `read` reports.

    def _send(self, data: bytearray) -> int:
        if not hasattr(self._socket, "sslobj"):
            return int(self._socket.send(data))
        # urllib3's TLS inside of a proxy's TLS loses what its socket does not take at once.
        self._socket.settimeout(SEND_SECONDS)
        try:
            return int(self._socket.send(data))
        finally:
            self._socket.settimeout(0)

    def read(self) -> list[tuple[int, bytes]]:
        """Return what has arrived, also if no descriptor tells of it: TLS may hold some of it.

        A lost connection is an error after everything before it has been returned, and none once the
        program's end is known.
        """
        self._receive()
        pieces = self._take_pieces()
        if self._failure is not None and not self._ended:
            self._ended = self._is_complete()
            if not (self._ended or pieces):
                raise self._lost(str(self._failure)) from self._failure
        return pieces

    def _receive(self) -> None:
        while not self._ended and self._failure is None:
            try:
                data = self._socket.recv(READ_SIZE)
            except _WAITS:
                return
            except OSError as error:
                self._failure = error
                return
            self._received += data or b""  # urllib3's TLS ends with 0.
            self._ended = not data
            if not self._has_more():
                return

    def _has_more(self) -> bool:
        """Whether TLS holds bytes, of which no descriptor tells."""
        if isinstance(self._socket, ssl.SSLSocket):
            return self._socket.pending() > 0
        above = getattr(self._socket, "sslobj", None)  # urllib3's
        return above is not None and bool(above.pending() or self._socket.incoming.pending)

    def _take_pieces(self) -> list[tuple[int, bytes]]:
        """Remove whole pieces of output from `_received` and return each with its stream."""
        raise NotImplementedError

    def _is_complete(self) -> bool:
        """Whether the program's end has been reported."""
        return False

    def _lost(self, why: str) -> EngineError:
        return EngineError(f"cannot {self._what}: lost the connection: {why}")

    @property
    def ended(self) -> bool:
        return self._ended

    def close(self) -> None:
        try:
            # Through urllib3's TLS inside of TLS, the socket is below it.
            plain = getattr(self._socket, "socket", self._socket)
            socket.socket.shutdown(plain, socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


def _held(response: Any) -> bytes:
    """Return what has arrived behind a response and is in its buffer. Never waits."""
    try:
        return bytes(response.fp.peek())
    except _WAITS:
        return b""

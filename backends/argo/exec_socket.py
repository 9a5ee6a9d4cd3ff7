"""A program in a pod's container: the API server's `exec` over one WebSocket (RFC 6455).

The connection is made by `Cluster`, as every request is: with its proxy, certificates and credentials.
The protocol `v4.channel.k8s.io` puts the number of a stream in front of each message: 0 stdin, 1
stdout, 2 stderr, 3 the exit status. `v5` adds the end of stdin, which no program of ours needs.
Source: k8s.io/apimachinery/pkg/util/remotecommand

The server never reports the end of a program that leaves input unread, so a client that sends stdin
must know from the output when the program has ended.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import struct
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from backends.argo.cluster import ApiError, Cluster, pods_path
from backends.argo.status import MAIN
from backends.common.socket_channel import SocketChannel
from stoke.errors import EngineError
from stoke.files.shapes import is_exit_code
from stoke.files.untrusted import parse_json

OPEN_SECONDS = 20.0
CLOSE_SECONDS = 1.0
SILENCE_SECONDS = 120.0
STDIN, STDOUT, STDERR, STATUS = range(4)
PIECE = 1 << 14
"""Bytes of stdin in one message."""
MOST_QUEUED = 1 << 18
MOST_MESSAGE = 1 << 24
MOST_PING = 125  # RFC 6455, section 5.5
MOST_STATUS = 1 << 16
MOST_ERRORS = 2000
PROTOCOLS = "v5.channel.k8s.io, v4.channel.k8s.io"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CONTINUATION, BINARY, CLOSE, PING, PONG = 0, 2, 8, 9, 10


class ExecSocket(SocketChannel):
    """The streams of a program in the main container of a pod. `what` completes "cannot ..."."""

    def __init__(self, cluster: Cluster, pod: str, command: Sequence[str], what: str) -> None:
        self._pod = pod
        self._response, connection = _opened(cluster, pod, command, what)
        super().__init__(connection, self._response._fp, what)
        self._message = bytearray()
        self._status = b""

    def queue(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            self._queue += _frame(BINARY, bytes([STDIN]) + data[at : at + PIECE])

    def output(self, stdin: Iterator[bytes] | None = None) -> Generator[bytes]:
        """Yield the program's stdout to its end, and send it `stdin` meanwhile.

        `EngineError` if the program fails, and `ApiError` with the reason "Cut" for a lost connection.
        """
        errors = b""
        stdin = stdin or iter(())
        while True:
            for stream, data in self.read():
                if stream == STDOUT:
                    yield data
                else:
                    errors = (errors + data)[-MOST_ERRORS:]
            if self.ended:
                return self._check_status(errors)
            while self.queued() < MOST_QUEUED and (piece := next(stdin, None)) is not None:
                self.queue(piece)
            self._wait()

    def _wait(self) -> None:
        """Wait until the connection can be read or written, and write what is queued."""
        poll = select.poll()
        for descriptor in self.readers():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if self._queue else 0))
        ready = poll.poll(SILENCE_SECONDS * 1000)
        if not ready:
            raise self._lost(f"nothing arrived for {SILENCE_SECONDS:.0f} seconds")
        if self._queue and ready[0][1] & ~select.POLLIN:
            self.write()

    def _check_status(self, errors: bytes) -> None:
        code = self.exit_code()
        if code is None and not self._status:
            raise self._lost("it was cut")
        if code != 0:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise EngineError(f"cannot {self._what}: {lines[-1] if lines else self._reason()}")

    def _reason(self) -> str:
        try:
            return str(parse_json(self._status)["message"])[:MOST_ERRORS]
        except (ValueError, KeyError, TypeError):
            return "it ended without a status"

    def _take_pieces(self) -> list[tuple[int, bytes]]:
        found = []
        while (frame := self._take_frame()) is not None:
            message = self._message_of(*frame)
            if not message:
                continue
            stream, data = message[0], message[1:]
            if stream == STATUS:
                self._status = (self._status + data)[:MOST_STATUS]
            elif data and stream in (STDOUT, STDERR):
                found.append((stream, data))
        return found

    def _take_frame(self) -> tuple[bool, int, bytes] | None:
        """Return whether the next frame ends its message, its kind, and its payload."""
        held = self._received
        if len(held) < 2:
            return None
        size, at = held[1] & 0x7F, 2
        if size >= 126:
            form = ">H" if size == 126 else ">Q"
            at += struct.calcsize(form)
            if len(held) < at:
                return None
            (size,) = struct.unpack_from(form, held, 2)
        if held[1] & 0x80 or size > MOST_MESSAGE:
            raise self._lost("a frame is not a server's")
        if len(held) < at + size:
            return None
        frame = bool(held[0] & 0x80), held[0] & 0x0F, bytes(held[at : at + size])
        del held[: at + size]
        return frame

    def _message_of(self, last: bool, kind: int, payload: bytes) -> bytes:
        """Return the message that a frame completes, if any; answer the frames of the protocol."""
        if kind == PING:
            # A server that does not read its answers gets no more of them.
            if len(payload) <= MOST_PING and len(self._queue) < 2 * MOST_QUEUED:
                self._queue += _frame(PONG, payload)
        elif kind == CLOSE:
            self._ended = True
        elif kind <= BINARY:
            self._message += payload
            if len(self._message) > MOST_MESSAGE:
                raise self._lost("a message is too long")
            if last:
                message = bytes(self._message)
                self._message.clear()
                return message
        return b""

    def _is_complete(self) -> bool:
        return bool(self._status)

    def _lost(self, why: str) -> EngineError:
        return ApiError(f"cannot {self._what}: lost the connection: {why}", reason="Cut")

    def exit_code(self) -> int | None:
        """Return the code in the status that the kubelet sent; None if the connection ended before."""
        try:
            status = parse_json(self._status)
            if status["status"] == "Success":
                return 0
            causes = status["details"]["causes"]
            code = next(int(one["message"]) for one in causes if one["reason"] == "ExitCode")
        except (ValueError, KeyError, TypeError, StopIteration, OverflowError):
            return None
        return code if is_exit_code(code) else None

    def close(self) -> None:
        try:
            self._socket.settimeout(CLOSE_SECONDS)
            self._socket.sendall(_frame(CLOSE, b""))
        except OSError:
            pass
        super().close()
        self._response.close()


def _opened(cluster: Cluster, pod: str, command: Sequence[str], what: str) -> tuple[Any, Any]:
    """Return the response that opens the WebSocket, and its connection."""
    from backends.argo.kubeconfig import reporting_socket

    path = pods_path(cluster.namespace, pod, "exec")
    key = base64.b64encode(os.urandom(16)).decode()
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": PROTOCOLS,
    }
    query = [("container", MAIN)]
    query += [(stream, "true") for stream in ("stdin", "stdout", "stderr")]
    query += [("command", word) for word in command]
    used: list[Any] = []
    with reporting_socket(used.append), cluster.translated("GET", path):
        until = time.monotonic() + OPEN_SECONDS
        response = cluster.opened("GET", path, query, headers, until=until, doing=what)
    accepted = hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()
    expected = base64.b64encode(accepted).decode()
    if response.status != 101 or response.headers.get("Sec-WebSocket-Accept") != expected:
        response.close()
        raise EngineError(
            f"cannot {what}: the server, or a proxy before it, opens no WebSocket",
            f"try without it: {cluster.kubectl} exec -n {cluster.namespace} {pod} -- true",
        )
    return response, used[-1]


def _frame(kind: int, payload: bytes) -> bytes:
    """Return a frame of a client, which is masked so that no proxy takes it for another request."""
    if len(payload) < 126:
        head = struct.pack(">BB", 0x80 | kind, 0x80 | len(payload))
    else:
        head = struct.pack(">BBH", 0x80 | kind, 0x80 | 126, len(payload))
    mask = os.urandom(4)
    size = len(payload)
    whole = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return head + mask + masked.to_bytes(size, "big")

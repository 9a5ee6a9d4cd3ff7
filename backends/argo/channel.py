"""A session in a pod: the API server's `exec` over one WebSocket (RFC 6455).

The connection is made by `Cluster`, as every request is: with its proxy, certificates and credentials.
The protocol `v4.channel.k8s.io` puts the number of a stream in front of each message: 0 stdin, 1
stdout, 2 stderr, 3 the exit status. `v5` adds the end of stdin, which `stoke.remote.session` does not
need.
Source: k8s.io/apimachinery/pkg/util/remotecommand
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Any

from backends.argo.bundle import FOLDER
from backends.argo.cluster import ApiError, Cluster, pods_path
from backends.argo.job_locations import JobLocation
from backends.argo.status import has_started, terminated
from stoke.backend.capabilities import NotStartedError
from stoke.errors import EngineError
from stoke.files.untrusted import parse_json
from stoke.remote.bundle import session_source
from stoke.remote.command import session_command
from stoke.remote.protocol import JobFolder

CONTAINER = "main"
OPEN_SECONDS = 20.0
CLOSE_SECONDS = 1.0
READ_SIZE = 1 << 16
STDIN, STATUS = 0, 3
PIECE = 1 << 14
"""Bytes of stdin in one message."""
MOST_MESSAGE = 1 << 24
MOST_STATUS = 1 << 16
PROTOCOLS = "v5.channel.k8s.io, v4.channel.k8s.io"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CONTINUATION, BINARY, CLOSE, PING, PONG = 0, 2, 8, 9, 10
_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def enter_pod(location: JobLocation, job_id: str, is_over: bool) -> PodChannel:
    """Start a session in the pod of a job; `is_over` is whether its workflow has ended."""
    pod = location.resources.pod(job_id)
    if is_over or (pod is not None and terminated(pod) is not None):
        raise EngineError(f"cannot enter {job_id}: its pod has ended")
    if pod is None or not has_started(pod):
        raise NotStartedError(f"{job_id} has not started yet")
    entry = f"{FOLDER}/{JobFolder.WORK}/{JobFolder.ENTRY}"
    try:
        return PodChannel(location.cluster, job_id, entry)
    except ApiError as error:
        if error.status != 403:
            raise
        raise EngineError(
            f"cannot enter {job_id}: you may not create and get pods/exec in "
            f"{location.cluster.namespace}",
            "have an administrator grant the right: stoke setup argo --apply",
        ) from error


class PodChannel:
    """The streams of `stoke.remote.session`; see `stoke.backend.capabilities.Channel`."""

    def __init__(self, cluster: Cluster, pod: str, entry: str) -> None:
        source = session_source()
        self._pod = pod
        self._socket: Any = None
        self._response = self._open(cluster, session_command("python3", len(source), entry))
        self._set_blocking(False)
        self._received = bytearray(self._early())
        self._queue = bytearray()
        self._message = bytearray()
        self._status = b""
        self._ended = False
        self.queue(source)

    def _open(self, cluster: Cluster, command: list[str]) -> Any:
        from backends.argo.kubeconfig import reporting_socket

        path = pods_path(cluster.namespace, self._pod, "exec")
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Protocol": PROTOCOLS,
        }
        query = [("container", CONTAINER)]
        query += [(stream, "true") for stream in ("stdin", "stdout", "stderr")]
        query += [("command", word) for word in command]
        with reporting_socket(self._take_socket), cluster.translated("GET", path):
            until = time.monotonic() + OPEN_SECONDS
            response = cluster.opened("GET", path, query, headers, until=until)
        accepted = hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()
        expected = base64.b64encode(accepted).decode()
        if response.status != 101 or response.headers.get("Sec-WebSocket-Accept") != expected:
            response.close()
            raise EngineError(
                f"cannot enter {self._pod}: the server, or a proxy before it, opens no WebSocket",
                f"try without it: {cluster.kubectl} exec -n {cluster.namespace} {self._pod} -- true",
            )
        return response

    def _early(self) -> bytes:
        """Return what came with the response; from now on the socket is read itself."""
        try:
            # This reads from the socket if the response's buffer is empty.
            data = bytes(self._response._fp.fp.peek(READ_SIZE))
        except _WAITS:
            return b""
        while getattr(self._socket, "pending", int)():
            data += self._socket.recv(READ_SIZE)
        return data

    def _set_blocking(self, blocking: bool) -> None:
        self._socket.setblocking(blocking)

    def _take_socket(self, opened: Any) -> None:
        self._socket = opened

    def readers(self) -> Sequence[int]:
        return [self._socket.fileno()]

    def writer(self) -> int | None:
        return self._socket.fileno() if self._queue else None

    def queue(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            self._queue += _frame(BINARY, bytes([STDIN]) + data[at : at + PIECE])

    def queued(self) -> int:
        return len(self._queue)

    def write(self) -> None:
        try:
            sent = self._socket.send(self._queue[:READ_SIZE])
            del self._queue[:sent]
        except _WAITS:
            pass
        except OSError:
            self._queue.clear()  # It has ended, which `read` reports.

    def read(self) -> list[tuple[int, bytes]]:
        while not self._ended:
            try:
                data = self._socket.recv(READ_SIZE)
            except _WAITS:
                break
            except OSError as error:
                raise ApiError(f"lost the connection to {self._pod}: {error}") from error
            self._ended = not data
            self._received += data
            # TLS may hold more than one record, about which no descriptor tells.
            if not data or not getattr(self._socket, "pending", int)():
                break
        found = []
        while (frame := self._take_frame()) is not None:
            message = self._message_of(*frame)
            if not message:
                continue
            stream, data = message[0], message[1:]
            if stream == STATUS:
                self._status = (self._status + data)[:MOST_STATUS]
            elif data and stream in (1, 2):
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
            raise ApiError(f"lost the connection to {self._pod}: a frame is not a server's")
        if len(held) < at + size:
            return None
        frame = bool(held[0] & 0x80), held[0] & 0x0F, bytes(held[at : at + size])
        del held[: at + size]
        return frame

    def _message_of(self, last: bool, kind: int, payload: bytes) -> bytes:
        """Return the message that a frame completes, if any; answer the frames of the protocol."""
        if kind == PING:
            self._queue += _frame(PONG, payload)
        elif kind == CLOSE:
            self._ended = True
        elif kind <= BINARY:
            self._message += payload
            if len(self._message) > MOST_MESSAGE:
                raise ApiError(f"lost the connection to {self._pod}: a message is too long")
            if last:
                message = bytes(self._message)
                self._message.clear()
                return message
        return b""

    @property
    def ended(self) -> bool:
        return self._ended

    def exit_code(self) -> int | None:
        """Return the code in the status that the kubelet sent; None if the connection ended before."""
        try:
            status = parse_json(self._status)
            if status["status"] == "Success":
                return 0
            causes = status["details"]["causes"]
            return next(int(one["message"]) for one in causes if one["reason"] == "ExitCode")
        except (ValueError, KeyError, TypeError, StopIteration):
            return None

    def close(self) -> None:
        try:
            self._set_blocking(True)
            self._socket.settimeout(CLOSE_SECONDS)
            self._socket.sendall(_frame(CLOSE, b""))
        except OSError:
            pass
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except (OSError, TypeError):
            pass
        self._response.close()


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

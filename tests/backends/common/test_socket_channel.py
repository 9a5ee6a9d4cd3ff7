"""Bytes both ways over plain sockets, TLS, and TLS inside of a proxy's TLS."""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from urllib3.util.ssltransport import SSLTransport

from backends.common.socket_channel import SocketChannel
from stoke.errors import EngineError
from tests.network import Authority


class Bytes(SocketChannel):
    """What arrives, as it is."""

    def _take_pieces(self) -> list[tuple[int, bytes]]:
        data = bytes(self._received)
        self._received.clear()
        return [(1, data)] if data else []


class Echo:
    """A server that returns what it gets; with `to`, one that passes it on."""

    def __init__(self, tls: ssl.SSLContext | None, to: Echo | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._tls = tls
        self._to = to
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        self._listener.close()
        if self._tls is not None:
            client = self._tls.wrap_socket(client, server_side=True)
        other = client if self._to is None else socket.create_connection(self._to.address)
        if other is not client:
            threading.Thread(target=_pass, args=(other, client), daemon=True).start()
        _pass(client, other)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        socket.socket.shutdown(target, socket.SHUT_RDWR)


@pytest.fixture(params=["plain", "tls", "tls in tls"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "plain":
        return socket.create_connection(Echo(None).address)
    authority = Authority(tmp_path / "authority", "127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(authority.file))
    server = Echo(authority.tls)
    if request.param == "tls in tls":
        server = Echo(authority.tls, server)
    plain = socket.create_connection(server.address)
    outer = trusting.wrap_socket(plain, server_hostname="127.0.0.1")
    if request.param == "tls":
        return outer
    return SSLTransport(outer, trusting, server_hostname="127.0.0.1")


def response(connection: Any) -> Any:
    """What `http.client` reads a response through, with the file that it has made of the socket."""
    return SimpleNamespace(fp=connection.makefile("rb"))


def transfer(channel: SocketChannel, wanted: int) -> bytes:
    """Do as a session does: read first, then wait."""
    found = b""
    while len(found) < wanted:
        for _, data in channel.read():
            found += data
        if len(found) >= wanted or channel.ended:
            break
        poll = select.poll()
        events = select.POLLIN | (select.POLLOUT if channel.writer() is not None else 0)
        poll.register(channel.readers()[0], events)
        ready = poll.poll(10_000)
        assert ready, f"{len(found)} of {wanted} bytes, and no descriptor tells of more"
        if ready[0][1] & select.POLLOUT:
            channel.write()
    return found


def test_bytes_pass_both_ways(connection: Any) -> None:
    channel = Bytes(connection, response(connection), "copy")
    for size in (1, 40_000, 700_000):
        data = os.urandom(size)
        channel.queue(data)
        assert transfer(channel, size) == data
        assert (channel.queued(), channel.writer()) == (0, None)
    channel.close()


def test_what_the_response_and_tls_hold_is_read_first(connection: Any) -> None:
    """As much as one TLS record holds, of which the response has taken a part."""
    data = os.urandom(16_000)
    connection.sendall(data)
    opened = response(connection)
    begin = opened.fp.read(100)
    assert isinstance(opened.fp, io.BufferedReader)
    channel = Bytes(connection, opened, "copy")
    assert begin + transfer(channel, len(data) - 100) == data
    channel.close()


def test_a_reset_is_an_error_after_everything_before_it() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    connection = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    channel = Bytes(connection, response(connection), "copy")
    server.sendall(b"before")
    assert transfer(channel, 6) == b"before"
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    with pytest.raises(EngineError, match=r"cannot copy: lost the connection: .*reset"):
        transfer(channel, 1)
    channel.queue(b"more")
    channel.write()
    assert channel.queued() == 0
    channel.close()
    listener.close()

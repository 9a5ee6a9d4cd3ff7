"""Clients that mean harm: what they send, how slowly, and how many of them there are."""

from __future__ import annotations

import json
import os
import random
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoke.api import limits, protocol
from tests.api.served import Client, Process, make_token, problem, serving
from tests.lab import until

SUBMIT = "/api/v1/tasks/submit"
MIB = 1024**2


def _resident(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def unharmed(client: Client) -> None:
    job = client.run({"code": "print('fine')"})
    assert client.log(job["id"]) == b"fine\n"


def test_a_body_of_100_megabytes_is_refused_without_being_kept(own_home: Path) -> None:
    secret = make_token("ci")
    server = Process()
    try:
        client = Client(server.address, secret)
        unharmed(client)
        before = _resident(server.process.pid)
        length = client.head("POST", SUBMIT, f"Content-Length: {100 * MIB}")
        chunked = client.head("POST", SUBMIT, "Transfer-Encoding: chunked")
        for head, piece, end in (
            (length, b"x" * MIB, b""),
            (chunked, b"100000\r\n" + b"x" * MIB + b"\r\n", b"0\r\n\r\n"),
        ):
            with client.connect() as connection:
                connection.sendall(head + b"\r\n")
                for _ in range(100):
                    connection.sendall(piece)
                connection.sendall(end)
                assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
            assert _resident(server.process.pid) - before < 64 * MIB
        assert client.post(SUBMIT, b" " * (17 * MIB)).status_code == 413
        unharmed(client)
    finally:
        server.kill()


def test_an_endless_body_is_given_up(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_DISCARDED", 20 * MIB)
    secret = make_token("ci")
    with serving() as address:
        client = Client(address, secret)
        with client.connect() as connection, pytest.raises(OSError):
            connection.sendall(client.head("POST", SUBMIT, "Transfer-Encoding: chunked") + b"\r\n")
            while True:
                connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
        unharmed(client)


DEEP = [
    b"[" * 100_000, b'{"a":' * 100_000, b'{"code": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"code": "1", "env": ' + b'{"A":' * 200 + b"1" + b"}" * 200 + b"}",
]  # fmt: skip
BROKEN = [
    b'{"code": "\xff"}', b"\xff\xfe\x00", b'{"code": "1"', b"nothing", b"[]", b"5", b'"text"',
    b"null", b'{"code": 1e999}', b"9" * 10_000, b'{"code": "1"}{"code": "2"}', b"\x00",
    b'{"code": "1", "cpu": NaN}', b'{"code": "1", "cpu": -Infinity}', b'{"cells": [], "nbformat": 4}',
]  # fmt: skip


@pytest.mark.parametrize("body", [*DEEP, *BROKEN], ids=range(len(DEEP) + len(BROKEN)))
def test_what_is_no_request_is_refused(client: Client, body: bytes) -> None:
    answer = client.post(SUBMIT, body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    found = problem(answer)
    assert found["field"] and len(answer.content) < 4000
    assert client.get("/api/v1/tasks").json()["total"] == 0


def test_texts_that_no_process_can_take_are_refused(client: Client) -> None:
    for code in ("\ud800", "a\0b"):
        body = json.dumps({"code": code}).encode()
        assert client.post(SUBMIT, body).status_code == 422
    for name in ("%ff%fe", "%00", "a%0d%0aSet-Cookie:%20b=c"):
        answer = client.post(f"{SUBMIT}?name={name}", {"code": "1"})
        assert answer.status_code in (202, 422)
        assert "Set-Cookie" not in answer.headers


HEADS = [
    b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"\r\n" * 10 + b"X\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: 1\r\n\r\n", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_what_is_no_http_is_refused(client: Client, head: bytes) -> None:
    if head.endswith(b"\r\n\r\n") and b"Host" in head:
        head = head[:-2] + b"Connection: close\r\n\r\n"
    answer = client.raw(head)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer
    assert client.get("/healthz").status_code == 200


def test_smuggled_requests_are_not_served(client: Client) -> None:
    inner = client.head("POST", SUBMIT, "Content-Length: 0") + b"\r\n"
    both = client.head(
        "POST", SUBMIT, f"Content-Length: {len(inner) + 5}", "Transfer-Encoding: chunked"
    ).replace(b"Connection: close\r\n", b"")
    answer = client.raw(both + b"\r\n0\r\n\r\n" + inner)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
    assert client.get("/api/v1/tasks").json()["total"] == 0


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PUT", "PATCH", "BREW"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    answer = client.raw(client.head(method) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 405 "), answer


def test_a_thousand_half_open_connections_keep_no_client_out(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    half: list[socket.socket] = []
    try:
        for number in range(1000):
            connection = client.connect()
            if number % 2:
                connection.sendall(b"GET /api/v1/tasks HTTP/1.1\r\nHost: a\r\nX-")
            half.append(connection)
        for _ in range(20):
            other = Client(client.address, client.secret)
            assert other.get("/api/v1/tasks").status_code == 200
        unharmed(client)
    finally:
        for connection in half:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_head_and_a_body_that_come_slowly_are_given_up(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    secret = make_token("ci")
    with serving() as address:
        client = Client(address, secret)
        for start in (b"", b"GET /api", client.head()[:60]):
            with client.connect() as connection:
                connection.sendall(start)
                assert connection.recv(100) == b""
        head = client.head("POST", SUBMIT, "Content-Length: 1000") + b"\r\n{"
        assert client.raw(head).startswith(b"HTTP/1.1 408 ")
        # A connection that is used again waits for its second request no longer.
        with client.connect() as connection:
            request = client.head("GET", "/healthz").replace(b"Connection: close\r\n", b"")
            connection.sendall(request + b"\r\n")
            until(lambda: b'{"status":"ok"}' in connection.recv(4096), "the answer")
            connection.sendall(b"GET /heal")
            assert connection.recv(100) == b""
        unharmed(client)


def test_a_body_that_ends_early_submits_nothing(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(client.head("POST", SUBMIT, "Content-Length: 100") + b'\r\n{"code": "1"')
    unharmed(client)
    assert client.get("/api/v1/tasks").json()["total"] == 1


def test_the_rate_of_a_token_is_limited(own_home: Path) -> None:
    busy, calm = make_token("busy"), make_token("calm")
    with serving(rate=5) as address:
        client = Client(address, busy)
        answers = [client.get("/api/v1/tasks") for _ in range(30)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and answers[9].status_code == 200
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert Client(address, calm).get("/api/v1/tasks").status_code == 200
        until(lambda: client.get("/api/v1/tasks").status_code == 200, "its next turn")


def _noise(seed: int) -> Iterator[bytes]:
    pick = random.Random(seed)
    whole = (
        b"POST /api/v1/tasks/submit HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b'Content-Length: 15\r\n\r\n{"code": "1  "}'
    )
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(pick.randint(1, 8)):
            data[pick.randrange(len(data))] = pick.randrange(256)
        yield bytes(data[: pick.randint(1, len(data))])


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_survived(client: Client, seed: int) -> None:
    def send(data: bytes) -> None:
        with client.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            while connection.recv(65536):
                pass

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda data: _quietly(send, data), _noise(seed)))
    unharmed(client)


def _quietly(send, data: bytes) -> None:  # type: ignore[no-untyped-def]
    try:
        send(data)
    except OSError:
        pass

"""The WebSocket of a program in a pod: what arrives early, in parts, or before a connection breaks."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from backends.argo import exec_socket
from backends.argo.cluster import ApiError, Cluster
from backends.argo.exec_socket import GUID, ExecSocket
from stoke.errors import EngineError
from tests.backends.argo.scripted_server import (
    Answer,
    Hold,
    Leave,
    Piece,
    Request,
    Reset,
    ScriptedServer,
    forbidden,
)

Streaming = tuple[Cluster, ScriptedServer]
FAILURE = {
    "status": "Failure",
    "message": "command terminated with non-zero exit code",
    "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
}


def frame(stream: int, data: bytes, kind: int = 2, last: bool = True) -> bytes:
    """A frame of a server. A stream below 0 continues a message."""
    payload = (bytes([stream]) if stream >= 0 else b"") + data
    first = (0x80 if last else 0) | kind
    if len(payload) < 126:
        return struct.pack(">BB", first, len(payload)) + payload
    if len(payload) < 1 << 16:
        return struct.pack(">BBH", first, 126, len(payload)) + payload
    return struct.pack(">BBQ", first, 127, len(payload)) + payload


def ended(status: object) -> bytes:
    return frame(3, json.dumps(status).encode())


SUCCESS = ended({"status": "Success"})


def websocket(first: bytes, *more: Piece) -> Answer:
    """An answer that opens the WebSocket; `first` comes together with it."""

    def answer(request: Request) -> Sequence[Piece]:
        key = (request.headers["sec-websocket-key"] + GUID).encode()
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
        head = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        )
        return [head.encode() + first, *more, Leave]

    return answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting in vain for a descriptor fails soon."""
    monkeypatch.setattr(exec_socket, "SILENCE_SECONDS", 10.0)


def output(streaming: Streaming, answer: Answer) -> Iterator[bytes]:
    cluster, server = streaming
    server.answers["/exec"] = [answer]
    with closing(ExecSocket(cluster, "pod", ["program", "a b"], "read it")) as program:
        yield from program.output()


@pytest.mark.parametrize("size", [1, 5_000, 12_000])
def test_what_comes_with_the_handshake_is_read_at_once(streaming: Streaming, size: int) -> None:
    """One TLS record: decrypted with the handshake, in a buffer of Python's or of OpenSSL's."""
    pieces = output(streaming, websocket(frame(1, b"x" * size), Hold))
    assert next(pieces) == b"x" * size
    pieces.close()  # type: ignore[attr-defined]
    query = streaming[1].requests[0].query
    assert (query["container"], query["stdin"]) == ("main", "true")
    streaming[1].wait_until_no_client_is_connected()


def test_frames_are_decoded_however_they_are_cut(streaming: Streaming) -> None:
    whole = (
        frame(1, b"one ")
        + frame(0, b"a ping", kind=9)
        + frame(2, b"an error\n")
        + frame(1, b"t", last=False)
        + frame(-1, b"wo ", kind=0)
        + frame(1, b"3" * 70_000)
        + SUCCESS
    )
    expected = b"one two " + b"3" * 70_000
    assert b"".join(output(streaming, websocket(whole))) == expected
    for size in (1, 7):
        pieces = [whole[at : at + size] for at in range(0, 60, size)]
        rest = whole[len(pieces) * size :]
        assert b"".join(output(streaming, websocket(b"", *pieces, rest))) == expected


@pytest.mark.parametrize(
    "end", [[], [Reset], [frame(-1, b"", kind=8), Hold]], ids=["end", "reset", "close"]
)
@pytest.mark.parametrize("status", [SUCCESS, ended(FAILURE)], ids=["success", "failure"])
def test_a_status_before_the_connection_breaks_is_the_end(
    streaming: Streaming, end: list[Piece], status: bytes
) -> None:
    has_arrived = threading.Event()
    sent = frame(1, b"all") + frame(2, b"first\nlast\n") + status
    pieces = output(streaming, websocket(sent, has_arrived, *end))
    assert next(pieces) == b"all"
    has_arrived.set()
    if status == SUCCESS:
        assert list(pieces) == []
        return
    with pytest.raises(EngineError, match=r"^cannot read it: last$"):
        next(pieces)


@pytest.mark.parametrize(
    "end", [[], [Reset], [frame(1, b"half")[:4]]], ids=["end", "reset", "half a frame"]
)
def test_an_end_without_a_status_is_a_cut(streaming: Streaming, end: list[Piece]) -> None:
    has_arrived = threading.Event()
    pieces = output(streaming, websocket(frame(1, b"one"), has_arrived, *end))
    assert next(pieces) == b"one"
    has_arrived.set()
    with pytest.raises(ApiError, match="cannot read it: lost the connection") as caught:
        next(pieces)
    assert caught.value.reason == "Cut"


@pytest.mark.parametrize(
    "message", ["-1e999", float("inf"), 1e308, 10**400, "9" * 5000, "12345678901", True, None, [7]]
)
def test_an_exit_code_that_is_none_is_a_failure(streaming: Streaming, message: object) -> None:
    cause = {"reason": "ExitCode", "message": message}
    failure = {"status": "Failure", "message": "m" * 9_000, "details": {"causes": [cause]}}
    with pytest.raises(EngineError, match="cannot read it: mmm") as raised:
        list(output(streaming, websocket(ended(failure), Leave)))
    assert len(raised.value.what) < 3_000


def test_pings_without_end_fill_no_memory(streaming: Streaming) -> None:
    cluster, server = streaming
    server.answers["/exec"] = [websocket(b"", Hold)]
    with closing(ExecSocket(cluster, "pod", ["program"], "read it")) as program:
        for _ in range(100):
            program._received += frame(-1, b"x" * 125, kind=9) * 100
            program._received += frame(-1, b"x" * 10_000, kind=9)
            assert program._take_pieces() == []
        assert 0 < program.queued() < 1_000_000


def test_silence_is_a_cut(streaming: Streaming, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_socket, "SILENCE_SECONDS", 0.2)
    with pytest.raises(ApiError, match="nothing arrived for 0 seconds"):
        list(output(streaming, websocket(frame(2, b"working"), Hold)))


def test_stdin_is_sent_in_masked_frames_until_the_output_is_enough(
    streaming: Streaming,
) -> None:
    """The server takes nothing and never ends, as that of Kubernetes after unread input."""
    cluster, server = streaming
    server.answers["/exec"] = [websocket(frame(1, b"enough\n"), Hold)]
    taken = []

    def stdin() -> Iterator[bytes]:
        for number in range(100_000):
            taken.append(number)
            yield bytes(100_000)

    with closing(ExecSocket(cluster, "pod", ["program"], "write it")) as program:
        assert next(program.output(stdin())) == b"enough\n"
    assert len(taken) < 1000


def test_a_refusal_names_what_was_to_be_done(streaming: Streaming) -> None:
    cluster, server = streaming
    server.answers["/exec"] = [forbidden("create", "pods/exec")]
    with pytest.raises(ApiError, match="cannot read it: you may not create pods/exec"):
        ExecSocket(cluster, "pod", ["program"], "read it")
    server.answers["/exec"] = [[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]]
    with pytest.raises(EngineError, match="opens no WebSocket"):
        ExecSocket(cluster, "pod", ["program"], "read it")

"""Streams: their end, silence, and closing them from another thread.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import threading

import pytest

from backends.argo.cluster import ApiError, Cluster, pods_path
from tests.backends.argo.api.kubeconfigs import NOTHING, PODS
from tests.backends.argo.scripted_server import (
    CHUNKED,
    LAST,
    Hold,
    Piece,
    Reset,
    ScriptedServer,
    chunk,
    forbidden,
    status,
)

Streaming = tuple[Cluster, ScriptedServer]


def test_a_stream_yields_all_data_and_ends(streaming: Streaming) -> None:
    cluster, server = streaming
    server.answers["/log"] = [[CHUNKED, chunk(b"one\n") + chunk(b"two\n"), chunk(b"three\n"), LAST]]
    stream = cluster.stream(pods_path("team-a", "job", "log"), {"follow": "true"})
    assert b"".join(stream) == b"one\ntwo\nthree\n"
    assert server.requests[0].query == {"follow": "true"}
    server.wait_until_no_client_is_connected()


@pytest.mark.parametrize("end", [[], [Reset], [b"5\r\nli"], [b"what?\r\n"]])
def test_c03_a_cut_is_no_end(streaming: Streaming, end: list[Piece]) -> None:
    cluster, server = streaming
    server.answers["/log"] = [[CHUNKED, chunk(b"one\n"), *end]]
    with pytest.raises(ApiError) as caught:
        list(cluster.stream(pods_path("team-a", "job", "log"), {}))
    assert (caught.value.status, caught.value.reason) == (0, "Cut")


def test_c03_a_stream_that_is_refused(streaming: Streaming) -> None:
    cluster, server = streaming
    server.answers["/log"] = [forbidden("get", "pods/log")]
    with pytest.raises(ApiError, match="may not get pods/log"):
        list(cluster.stream(pods_path("team-a", "job", "log"), {}))


def test_w03_a_stream_replaces_credentials_too(streaming: Streaming) -> None:
    cluster, server = streaming
    no = status(401, "Unauthorized", "no")
    server.answers["/log"] = [no, [CHUNKED, chunk(b"one\n"), LAST]]
    assert b"".join(cluster.stream(pods_path("team-a", "job", "log"), {})) == b"one\n"


def test_c21_a_silent_stream_times_out_if_asked_for(streaming: Streaming) -> None:
    cluster, server = streaming
    answers: list[list[Piece]] = [[Hold], [CHUNKED, Hold], [CHUNKED, chunk(b"one\n"), Hold]]
    for answer in answers:
        server.answers["/log"] = [answer]
        with pytest.raises(ApiError) as caught:
            list(cluster.stream(pods_path("team-a", "job", "log"), {}, silence=0.2))
        assert caught.value.reason == "Timeout"


@pytest.mark.parametrize(
    "answer",
    [[Hold], [CHUNKED, Hold], [CHUNKED, chunk(b"one\n"), Hold], [CHUNKED, b"9\r\non", Hold]],
)
def test_c23_closing_unblocks_a_reader_and_is_no_error(
    streaming: Streaming, answer: list[Piece]
) -> None:
    cluster, server = streaming
    server.answers["/log"] = [answer]
    stream = cluster.stream(pods_path("team-a", "job", "log"), {})
    got: list[bytes] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            got.extend(stream)
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    server.wait_for(1)
    stream.close()
    reader.join(20)
    assert not reader.is_alive() and errors == []
    server.wait_until_no_client_is_connected()
    stream.close()


def test_c23_closing_before_reading_connects_to_nothing(
    cluster: Cluster, server: ScriptedServer
) -> None:
    stream = cluster.stream(pods_path("team-a", "job", "log"), {})
    stream.close()
    assert list(stream) == []
    assert server.connections == 0


def test_requests_go_on_while_streams_are_open(streaming: Streaming) -> None:
    cluster, server = streaming
    server.answers["/log"] = [[CHUNKED, chunk(b"one\n"), Hold]]
    streams = [cluster.stream(pods_path("team-a", "job", "log"), {}) for _ in range(32)]
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    server.wait_for(32)
    assert cluster.request("GET", PODS) == NOTHING
    for stream in streams:
        stream.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

"""Requests to the API server, and its errors.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from backends.argo import cluster as cluster_module
from backends.argo.cluster import METADATA_LIST, ApiError, Cluster, workflows_path
from tests.backends.argo.api.kubeconfigs import NOTHING, PODS, config, write
from tests.backends.argo.scripted_server import (
    Hold,
    Keep,
    Piece,
    Request,
    Reset,
    ScriptedServer,
    forbidden,
    json_answer,
    status,
)


def test_a_request_has_credentials_and_query(cluster: Cluster, server: ScriptedServer) -> None:
    made = {"kind": "Workflow", "metadata": {"name": "job-aaaaaa"}}
    server.answers["/workflows"] = [json_answer(made, 201)]
    answer = cluster.request(
        "POST", workflows_path("team-a"), query={"dryRun": "All"}, body=made, accept=METADATA_LIST
    )
    (request,) = server.requests
    assert answer == made
    assert json.loads(request.body) == made
    assert request.query == {"dryRun": "All"}
    assert request.headers["authorization"] == "Bearer sesame"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == METADATA_LIST


def test_a_response_without_a_body_is_none(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/pods"] = [[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Keep]]
    assert cluster.request("DELETE", PODS) is None


def test_connections_are_used_again(cluster: Cluster, server: ScriptedServer) -> None:
    for _ in range(5):
        cluster.request("GET", PODS)
    assert server.connections == 1


def test_threads_share_a_cluster(cluster: Cluster, server: ScriptedServer) -> None:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(cluster.request("GET", PODS)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [NOTHING] * 16


def test_w08_a_connection_that_died_while_idle_is_replaced_for_a_get(
    cluster: Cluster, server: ScriptedServer
) -> None:
    server.answers["/pods"] = [json_answer(NOTHING), [], json_answer(NOTHING)]
    cluster.request("GET", PODS)
    assert cluster.request("GET", PODS) == NOTHING
    assert len(server.requests) == 3


@pytest.mark.parametrize("answer", [[], [Reset]])
def test_w08_nothing_that_changes_things_is_sent_twice(
    cluster: Cluster, server: ScriptedServer, answer: list[Piece]
) -> None:
    server.answers["/pods"] = [answer]
    with pytest.raises(ApiError) as caught:
        cluster.request("POST", PODS, body={})
    assert (caught.value.status, caught.value.reason) == (0, "Cut")
    assert len(server.requests) == 1


def test_a_cut_response_is_an_error(cluster: Cluster, server: ScriptedServer) -> None:
    cut: list[Piece] = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"]
    server.answers["/pods"] = [cut]
    for method, asked in (("GET", 2), ("DELETE", 1)):
        server.requests.clear()
        with pytest.raises(ApiError) as caught:
            cluster.request(method, PODS)
        assert caught.value.reason == "Cut"
        assert len(server.requests) == asked
    server.answers["/pods"] = [cut, json_answer(NOTHING)]
    assert cluster.request("GET", PODS) == NOTHING


def test_a_response_that_is_not_json_is_an_error(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/pods"] = [[b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>", Keep]]
    with pytest.raises(ApiError, match="JSON"):
        cluster.request("GET", PODS)


def test_w03_a_missing_right_is_named_with_how_to_try_it(
    cluster: Cluster, server: ScriptedServer
) -> None:
    server.answers["/workflows"] = [forbidden("list", "workflows", "argoproj.io")]
    with pytest.raises(ApiError) as caught:
        cluster.request("GET", workflows_path("team-a"))
    error = caught.value
    assert (error.status, error.reason) == (403, "Forbidden")
    assert "may not list workflows.argoproj.io" in error.what
    assert error.hint is not None
    assert error.hint.endswith(
        "kubectl --context scripted auth can-i list workflows.argoproj.io -n team-a"
    )


def test_a_quota_is_no_missing_right(cluster: Cluster, server: ScriptedServer) -> None:
    said = 'pods "x" is forbidden: exceeded quota: small, requested: cpu=4, used: cpu=1, limited: cpu=2'
    server.answers["/pods"] = [status(403, "Forbidden", said)]
    with pytest.raises(ApiError) as caught:
        cluster.request("POST", PODS, body={})
    assert caught.value.message == said
    assert said in caught.value.what and caught.value.hint is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [(404, "NotFound"), (409, "AlreadyExists"), (410, "Expired"), (422, "Invalid"), (500, "")],
)
def test_c03_the_servers_reason_and_words_are_kept(
    cluster: Cluster, server: ScriptedServer, code: int, reason: str
) -> None:
    server.answers["/pods"] = [status(code, reason, "because")]
    with pytest.raises(ApiError, match="because") as caught:
        cluster.request("GET", PODS)
    assert (caught.value.status, caught.value.reason) == (code, reason)


def test_c03_an_error_page_of_a_proxy_is_an_error(cluster: Cluster, server: ScriptedServer) -> None:
    page = b"<h1>Bad Gateway</h1>"
    head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n" % len(page)
    server.answers["/pods"] = [[head + page, Keep]]
    with pytest.raises(ApiError, match="Bad Gateway") as caught:
        cluster.request("GET", PODS)
    assert caught.value.status == 502


@pytest.mark.parametrize("code", [429, 503])
def test_w03_a_server_that_asks_to_wait_is_asked_again(
    cluster: Cluster, server: ScriptedServer, code: int
) -> None:
    server.answers["/pods"] = [
        status(code, "TooManyRequests", "later", 0),
        json_answer(NOTHING),
    ]
    assert cluster.request("GET", PODS) == NOTHING


def test_w03_a_wait_beyond_the_timeout_is_not_waited(
    cluster: Cluster, server: ScriptedServer
) -> None:
    server.answers["/pods"] = [status(429, "TooManyRequests", "later", 3600)]
    with pytest.raises(ApiError) as caught:
        cluster.request("GET", PODS, timeout=5)
    assert (caught.value.status, caught.value.retry_after) == (429, cluster_module.LONGEST_WAIT)
    assert len(server.requests) == 1


def test_c21_a_refused_connection_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    path = write(tmp_path / "config", config("gone", f"http://127.0.0.1:{port}"))
    with pytest.raises(ApiError, match=f"127.0.0.1:{port}.*refused") as caught:
        Cluster(context="gone", namespace=None, kubeconfig=path).request("GET", PODS)
    assert (caught.value.status, caught.value.reason) == (0, "Unreachable")


def test_c21_a_silent_server_times_out(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/pods"] = [[Hold]]
    with pytest.raises(ApiError, match="did not answer") as caught:
        cluster.request("GET", PODS, timeout=0.2)
    assert caught.value.reason == "Timeout"


def _say(request: Request) -> list[Piece]:
    return json_answer({"query": request.query})


def test_queries_are_quoted(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/pods"] = [_say]
    query = {"labelSelector": "a in (b,c),!d", "fieldSelector": "metadata.name=x&y"}
    assert cluster.request("GET", PODS, query=query) == {"query": query}

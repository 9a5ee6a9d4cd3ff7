"""An API server that means harm: memory and time are bounded, and the error is one of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.argo import cluster as cluster_module
from backends.argo import watch as watch_module
from backends.argo.cluster import ApiError, Cluster, workflows_path
from backends.argo.exec_socket import ExecSocket
from backends.argo.watch import Watch
from stoke.errors import EngineError
from tests.backends.argo.scripted_server import (
    CHUNKED,
    Piece,
    Request,
    ScriptedServer,
    chunk,
    json_answer,
    scripted_server,
    status,
)
from tests.malice import DRIPS, MALICE, bounded, whole

PATH = workflows_path("team-a")


def answering(make: Callable[[], Any]) -> Callable[[Request], Any]:
    return lambda request: make()


@pytest.mark.parametrize("kind", MALICE)
def test_an_answer_costs_no_more_than_an_error(
    server: ScriptedServer, cluster: Cluster, kind: str
) -> None:
    server.answers[""] = [answering(MALICE[kind])]
    with bounded(), pytest.raises(ApiError) as raised:
        cluster.request("GET", PATH)
    assert len(raised.value.what) < 6_000


@pytest.mark.parametrize("kind", DRIPS)
def test_an_answer_that_drips_ends(
    server: ScriptedServer, cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.common.answers.HEADER_SECONDS", 0.3)
    server.answers[""] = [answering(DRIPS[kind])]
    with bounded(seconds=20), pytest.raises(ApiError):
        cluster.request("GET", PATH, timeout=0.5)


@pytest.mark.parametrize("kind", ["status", "headers", "body", "size of a chunk"])
def test_a_list_or_watch_that_drips_ends(
    server: ScriptedServer, cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.common.answers.HEADER_SECONDS", 0.3)
    for name in ("LIST_SECONDS", "LATE_SECONDS"):
        monkeypatch.setattr(watch_module, name, 0.3)
    monkeypatch.setattr(watch_module, "WATCH_SECONDS", (0, 0))
    listed = json_answer({"metadata": {"resourceVersion": "1"}, "items": []})
    for answers in ([answering(DRIPS[kind])], [listed, answering(DRIPS[kind])]):
        server.answers[""] = [*answers]
        watch = Watch(cluster, PATH)
        with bounded(seconds=20):
            for _ in watch:
                if not watch._connected:
                    watch.close()
        assert not watch._connected


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_credentials_elsewhere(
    server: ScriptedServer, cluster: Cluster, code: int
) -> None:
    with scripted_server() as elsewhere:
        elsewhere.answers[""] = [json_answer({"metadata": {}})]
        location = b"Location: %s/there\r\n" % elsewhere.url.encode()
        server.answers[""] = [answering(lambda: [whole(b"", code, location)])]
        for call in (
            lambda: cluster.request("GET", PATH),
            lambda: cluster.request("POST", PATH, body={}),
            lambda: cluster.request("DELETE", PATH),
            lambda: list(cluster.stream(PATH, {})),
            lambda: ExecSocket(cluster, "pod", ["program"], "enter it"),
        ):
            with pytest.raises(EngineError):
                call()
        assert server.requests[0].headers["authorization"] == "Bearer sesame"
        assert elsewhere.connections == 0


@pytest.mark.parametrize("kind", sorted({*MALICE} - {"endless chunk", "endless chunks"}))
def test_a_malicious_list_costs_no_more_than_an_error(
    server: ScriptedServer, cluster: Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "MAX_LIST", 32 * 1024**2)
    server.answers[""] = [answering(MALICE[kind])]
    watch = Watch(cluster, PATH)
    with bounded():
        for _ in watch:
            if not watch._connected:
                watch.close()
    assert watch._objects == {} and not watch._connected


def test_a_retry_after_header_is_bounded(server: ScriptedServer, cluster: Cluster) -> None:
    server.answers[""] = [status(429, "TooManyRequests", "later", retry_after=10**300)]
    with pytest.raises(ApiError) as raised:
        cluster.request("GET", PATH)
    assert raised.value.retry_after == cluster_module.LONGEST_WAIT


@pytest.mark.parametrize("endless", ["list", "events"])
def test_an_endless_list_or_watch_is_bounded(
    server: ScriptedServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, endless: str
) -> None:
    monkeypatch.setattr(watch_module, "MOST_OBJECTS", 1_000)
    numbers = iter(range(10**9))

    def one() -> dict[str, Any]:
        uid = str(next(numbers))
        return {"metadata": {"uid": uid, "name": uid, "resourceVersion": uid}}

    def answer(request: Request) -> Iterator[Piece] | list[Piece]:
        if "watch" not in request.query:
            items = [one() for _ in range(2_000 if endless == "list" else 100)]
            return json_answer({"metadata": {"resourceVersion": "1"}, "items": items})
        return events()

    def events() -> Iterator[Piece]:
        import json

        yield CHUNKED
        while True:
            lines = (json.dumps({"type": "ADDED", "object": one()}) for _ in range(100))
            yield chunk("\n".join([*lines, ""]).encode())

    server.answers[""] = [answer]  # type: ignore[list-item]
    watch = Watch(cluster, PATH)
    with bounded():
        for _ in watch:
            if not watch._connected:
                watch.close()
    assert not watch._connected and len(watch._objects) <= 1_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"metadata": [1]},
        {"metadata": "x", "items": []},
        {"metadata": {}, "items": {"a": 1}},
        {"metadata": {}, "items": [1]},
        {"metadata": {}, "items": [{"metadata": 5}]},
    ],
)
def test_a_response_of_another_shape_is_an_error(
    server: ScriptedServer, cluster: Cluster, wrong: object
) -> None:
    server.answers[""] = [json_answer(wrong)]
    with pytest.raises(ApiError, match="unlike an API server"):
        cluster.request("GET", PATH)

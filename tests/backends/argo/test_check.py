"""What `stoke doctor` can see of Argo's controller, which runs where most users may not look."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.argo.admission import check_admission, check_gpus
from backends.argo.check import _controller, _proxy
from backends.argo.cluster import Cluster
from stoke.config.model import Config
from stoke.request.spec import IndexSettings
from tests.backends.argo.scripted_server import forbidden, json_answer, scripted_server, status
from tests.hints import is_hint


def workflow(name: str, age: float, phase: str | None = None) -> dict[str, Any]:
    created = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"workflows.argoproj.io/phase": phase} if phase else {}
    return {"metadata": {"name": name, "creationTimestamp": created, "labels": labels}}


@pytest.mark.parametrize(
    ("workflows", "works", "says"),
    [
        ([], None, "no workflow yet"),
        ([("just-now", 1)], None, "no workflow yet"),
        (
            [("fresh", 60, "Running")],
            True,
            "processed the newest workflow of this namespace, fresh",
        ),
        ([("a", 3600, "Succeeded")], None, "unknown whether it still runs"),
        ([("a", 60)], False, "no Argo controller has processed a"),
        (
            [("seen", 3600, "Succeeded"), ("a", 60), ("b", 90)],
            False,
            "old (nor 1 more)",
        ),
        ([("old", 3600), ("new", 60, "Pending")], True, "new"),
    ],
)
def test_a_controller_is_judged_by_the_newest_workflow(
    tmp_path: Path, workflows: list[tuple[Any, ...]], works: bool | None, says: str
) -> None:
    items = [workflow(*one) for one in workflows]  # now: their age counts from here
    with scripted_server() as server:
        server.answers = {"/workflows": [json_answer({"metadata": {}, "items": items})]}
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            found = _controller(cluster)
    assert found.works is works
    assert says in found.detail
    assert (found.hint is None) == (works is True)


def test_the_controller_is_unknown_without_the_right_to_list_workflows(tmp_path: Path) -> None:
    with scripted_server() as server:
        server.answers = {"/workflows": [forbidden("list", "workflows")]}
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            assert _controller(cluster).works is None


def made_of(*containers: str) -> dict[str, Any]:
    spec = {"containers": [{"name": name} for name in containers]}
    return {"metadata": {"name": "stoke-doctor"}, "spec": spec}


@pytest.mark.parametrize(
    ("answer", "works", "says", "advises"),
    [
        (json_answer(made_of("wait", "main")), True, "was admitted", None),
        (
            json_answer(made_of("wait", "main", "istio-proxy")),
            False,
            "istio-proxy",
            "sidecar.istio",
        ),
        (forbidden("create", "pods"), None, "you may not create pods", "stoke run"),
        (
            status(403, "Forbidden", 'admission webhook "team" denied the request: no label team'),
            False,
            "no label team",
            "labels",
        ),
        (status(400, "BadRequest", 'unknown field "spec.nodeSelectr"'), False, "nodeSelectr", None),
    ],
)
def test_policies_are_asked_by_a_dry_run(
    tmp_path: Path, answer: Any, works: bool | None, says: str, advises: str | None
) -> None:
    with scripted_server() as server:
        server.answers = {"/pods": [answer]}
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            found = check_admission(cluster, Config())
    assert server.requests[-1].query["dryRun"] == "All"
    assert found.works is works and says in found.detail
    assert advises in found.hint if advises and found.hint else found.hint is None


def test_gpus_of_the_nodes_are_counted(tmp_path: Path) -> None:
    nodes = [
        {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": count}}}
        for count in ("4", "0", "8")
    ]
    with scripted_server() as server:
        server.answers = {"/nodes": [json_answer({"items": nodes}), forbidden("list", "nodes")]}
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            found = [check_gpus(cluster, Config()) for _ in range(2)]
    assert (found[0].works, found[0].detail) == (True, "12 of nvidia.com/gpu on 2 nodes")
    assert found[1].works is None


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("address", "offered"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://127.0.0.1:3128", "http://HOST:PORT"),
        ("http://ada:correct-horse@proxy.example:3128", "http://HOST:PORT"),
        ("ada:correct-horse@proxy.example:3128", "http://HOST:PORT"),
        ("http://proxy.example:3128/$(id)", "'http://proxy.example:3128/$(id)'"),
    ],
    ids=["usable", "loopback", "with a login", "without a scheme", "hostile"],
)
def test_the_proxy_of_this_machine_is_offered_for_pods(
    monkeypatch: pytest.MonkeyPatch, address: str, offered: str
) -> None:
    assert _proxy(Config()) == []
    monkeypatch.setenv("HTTPS_PROXY", address)
    (found,) = _proxy(Config())
    assert found.works and "(HTTPS_PROXY)" in found.detail
    assert found.detail.endswith(f"export STOKE_INDEX__PROXY={offered}")


@pytest.mark.usefixtures("no_proxies")
def test_a_configured_proxy_on_a_loopback_address_is_no_use_to_pods() -> None:
    (found,) = _proxy(Config(index=IndexSettings(proxy="http://localhost:3128")))
    assert found.works is False and "http://localhost:3128" in found.detail
    template = "name one that they reach: export STOKE_INDEX__PROXY=http://HOST:PORT"
    named = is_hint(found.hint, template).partition("=")[2].replace("HOST:PORT", "proxy:3128")
    (found,) = _proxy(Config(index=IndexSettings(proxy=named)))
    assert found.works is True

"""Credentials from plugins: approved, replaced once refused, and never shown.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.argo.cluster import ApiError, Cluster
from backends.argo.kubeconfig import Plugin
from stoke.errors import EngineError
from tests.backends.argo.api.kubeconfigs import NOTHING, PODS, plugin_user
from tests.backends.argo.scripted_server import ScriptedServer, json_answer, status


def plugin_answering(folder: Path, *, count: Path, expires: str = "2100-01-01T00:00:00Z") -> Path:
    """A plugin whose n-th token is `n`; it says what it was told in `told`."""
    script = folder / "plugin.sh"
    answer = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
        f' "status": {{"expirationTimestamp": "{expires}", "token": "%s"}}}}'
    )
    script.write_text(
        f"echo x >> {count}\n"
        f'printf "%s" "$KUBERNETES_EXEC_INFO" > {folder}/told\n'
        f"printf '{answer}' \"$(wc -l < {count} | tr -d ' ')\"\n"
    )
    return script


def test_a_plugin_is_shown_before_it_is_run_and_run_once(
    server: ScriptedServer, tmp_path: Path
) -> None:
    script = plugin_answering(tmp_path, count=tmp_path / "count")
    user = plugin_user(script, env=[{"name": "REGION", "value": "here"}])
    shown: list[Plugin] = []
    cluster = Cluster(
        context=None,
        namespace=None,
        kubeconfig=server.kubeconfig(tmp_path, user=user),
        approve=shown.append,
    )
    assert cluster.plugin is not None and cluster.plugin.command == ("sh", str(script))
    assert cluster.plugin.variables == (("REGION", "here"),)
    assert not (tmp_path / "count").exists()
    for _ in range(3):
        cluster.request("GET", PODS)
    assert shown == [cluster.plugin]
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer 1"] * 3
    assert json.loads((tmp_path / "told").read_text())["spec"] == {"interactive": False}


def test_a_plugin_that_is_not_approved_is_not_run(server: ScriptedServer, tmp_path: Path) -> None:
    script = plugin_answering(tmp_path, count=tmp_path / "count")
    path = server.kubeconfig(tmp_path, user=plugin_user(script))

    def refuse(plugin: Plugin) -> None:
        raise EngineError(f"{plugin.command[0]} was not approved")

    cluster = Cluster(context=None, namespace=None, kubeconfig=path, approve=refuse)
    with pytest.raises(EngineError, match="not approved"):
        cluster.request("GET", PODS)
    assert not (tmp_path / "count").exists() and server.requests == []


def test_w03_a_token_that_is_refused_is_replaced_once(
    server: ScriptedServer, tmp_path: Path
) -> None:
    script = plugin_answering(tmp_path, count=tmp_path / "count")
    path = server.kubeconfig(tmp_path, user=plugin_user(script))
    cluster = Cluster(context=None, namespace=None, kubeconfig=path)
    no = status(401, "Unauthorized", "Unauthorized")
    server.answers["/pods"] = [no, json_answer(NOTHING)]
    assert cluster.request("GET", PODS) == NOTHING
    assert server.requests[-1].headers["authorization"] == "Bearer 2"
    server.answers["/pods"] = [no]
    with pytest.raises(ApiError, match="context scripted rejected your credentials") as caught:
        cluster.request("GET", PODS)
    assert caught.value.status == 401
    assert len(server.requests) == 4


def test_w03_a_token_that_has_run_out_is_not_tried(server: ScriptedServer, tmp_path: Path) -> None:
    script = plugin_answering(tmp_path, count=tmp_path / "count", expires="2020-01-01T00:00:00Z")
    path = server.kubeconfig(tmp_path, user=plugin_user(script))
    cluster = Cluster(context=None, namespace=None, kubeconfig=path)
    for _ in range(2):
        cluster.request("GET", PODS)
    assert [one.headers["authorization"] for one in server.requests] == ["Bearer 1", "Bearer 2"]


def test_w03_new_credentials_are_for_the_same_context(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """Another program may switch contexts, and renew the token, meanwhile."""
    path = Path(server.kubeconfig(tmp_path))
    cluster = Cluster(context=None, namespace=None, kubeconfig=str(path))
    cluster.request("GET", PODS)
    content = json.loads(path.read_text())
    content["users"][0]["user"]["token"] = "renewed"
    content["contexts"].append({"name": "other", "context": {"cluster": "nowhere"}})
    content["current-context"] = "other"
    path.write_text(json.dumps(content))
    server.answers["/pods"] = [status(401, "Unauthorized", "no"), json_answer(NOTHING)]
    cluster.request("GET", PODS)
    assert server.requests[-1].headers["authorization"] == "Bearer renewed"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("echo no such account >&2; exit 3", "no such account"),
        ("echo '{'", "did not answer"),
        ("echo '[]'", "did not answer"),
        ('echo \'{"apiVersion": "client.authentication.k8s.io/v1beta1", "status": {}}\'', "speaks"),
        ('echo \'{"apiVersion": "client.authentication.k8s.io/v1", "status": {}}\'', "neither"),
    ],
)
def test_a_failing_plugin_is_an_error_and_prints_nothing(
    server: ScriptedServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    body: str,
    word: str,
) -> None:
    (tmp_path / "plugin.sh").write_text(body)
    path = server.kubeconfig(tmp_path, user=plugin_user(tmp_path / "plugin.sh"))
    with pytest.raises(EngineError, match=word):
        Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)
    assert capfd.readouterr() == ("", "")


def test_a_plugin_that_is_missing_comes_with_its_hint(
    server: ScriptedServer, tmp_path: Path
) -> None:
    user = plugin_user(tmp_path, command="gke-auth-not-there", installHint="install it from there")
    path = server.kubeconfig(tmp_path, user=user)
    with pytest.raises(EngineError, match="gke-auth-not-there is not installed: install it from"):
        Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)


@contextmanager
def typed(text: bytes) -> Iterator[None]:
    """This program's own standard input holds `text`."""
    reading, writing = os.pipe()
    os.write(writing, text)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        for one in (reading, writing, kept):
            os.close(one)


def test_a_plugin_cannot_read_the_terminal(server: ScriptedServer, tmp_path: Path) -> None:
    script = plugin_answering(tmp_path, count=tmp_path / "count")
    script.write_text("read line && exit 9\n" + script.read_text())
    path = server.kubeconfig(tmp_path, user=plugin_user(script))
    with typed(b"what was meant for the screen\n"):
        Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)
    (tmp_path / "always").mkdir()
    user = plugin_user(script, interactiveMode="Always")
    path = server.kubeconfig(tmp_path / "always", user=user)
    with pytest.raises(EngineError, match="needs a terminal"):
        Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)


def test_a_plugin_gets_the_cluster_if_it_asks_for_it(
    server: ScriptedServer, tmp_path: Path
) -> None:
    script = plugin_answering(tmp_path, count=tmp_path / "count")
    path = server.kubeconfig(
        tmp_path,
        user=plugin_user(script, provideClusterInfo=True),
        cluster={
            "extensions": [
                {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "us"}}
            ]
        },
    )
    Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)
    told = json.loads((tmp_path / "told").read_text())["spec"]["cluster"]
    assert told == {"server": server.url, "config": {"audience": "us"}}

"""Which cluster, namespace and user a kubeconfig or a pod names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.argo import kubeconfig
from backends.argo.cluster import Cluster, pods_path, resource_path, workflows_path
from stoke.errors import EngineError
from tests.backends.argo.api.kubeconfigs import PODS, config, write
from tests.backends.argo.scripted_server import ScriptedServer


def test_nothing_is_read_or_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from backends.argo.cluster import Cluster;"
        "Cluster(context='none', namespace=None, kubeconfig='/does/not/exist');"
        "early = {'kubernetes', 'urllib3', 'yaml', 'hera'} & set(sys.modules);"
        "assert not early, early"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_namespace_is_the_one_asked_for_else_the_contexts_else_default(tmp_path: Path) -> None:
    content = config("one")
    content["contexts"].append(
        {"name": "two", "context": {"cluster": "one", "user": "one", "namespace": "team-b"}}
    )
    path = write(tmp_path / "config", content)
    assert Cluster(context="one", namespace=None, kubeconfig=path).namespace == "default"
    assert Cluster(context="two", namespace=None, kubeconfig=path).namespace == "team-b"
    assert Cluster(context="two", namespace="mine", kubeconfig=path).namespace == "mine"


def test_of_several_files_the_first_that_names_a_thing_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = config("one", "http://first")
    second = config("one", "http://second", **{"current-context": "two"})
    third = config("two", "http://third", **{"current-context": "one"})
    paths = [
        write(tmp_path / name, content)
        for name, content in [("a", first), ("b", second), ("c", third)]
    ]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([paths[0], "/does/not/exist", *paths[1:]]))
    cluster = Cluster(context=None, namespace=None)
    assert (cluster.context_name, cluster.server) == ("two", "http://third")
    assert Cluster(context="one", namespace=None).server == "http://first"


def test_without_any_the_default_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", config("home", **{"current-context": "home"}))
    assert Cluster(context=None, namespace=None).context_name == "home"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
        ("{}", "no current context"),
        (json.dumps(config("one")), "no current context"),
        (json.dumps(config("one", **{"current-context": "other"})), "'other'"),
        (
            json.dumps(config("one", clusters=[], **{"current-context": "one"})),
            "'one'",
        ),
    ],
)
def test_an_unusable_kubeconfig_is_reported(tmp_path: Path, content: str | None, word: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EngineError, match=word) as caught:
        Cluster(context=None, namespace=None, kubeconfig=str(path)).server  # noqa: B018
    assert caught.value.hint


def test_in_a_pod_its_service_account_is_used(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vouched = (certificates / "ca.crt").read_text()
    for name, content in [("token", "of-the-pod"), ("ca.crt", vouched), ("namespace", "jobs")]:
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(kubeconfig, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(kubeconfig, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    cluster = Cluster(context=None, namespace=None)
    assert (cluster.context_name, cluster.server) == ("in-cluster", "https://10.0.0.1:443")
    assert cluster.namespace == "jobs"
    found = kubeconfig.connect(kubeconfig.find(None, None), None)
    assert found.headers["Authorization"] == "bearer of-the-pod"


def test_a_server_below_a_path_is_reached_there(server: ScriptedServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path, cluster={"server": f"{server.url}/k8s/clusters/c-1/"})
    Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)
    assert server.requests[0].path == f"/k8s/clusters/c-1{PODS}"


def test_names_are_quoted_in_paths() -> None:
    assert workflows_path("team-a", "a/../b?c") == (
        "/apis/argoproj.io/v1alpha1/namespaces/team-a/workflows/a%2F..%2Fb%3Fc"
    )
    assert pods_path("n", "p", "log") == "/api/v1/namespaces/n/pods/p/log"
    assert resource_path("batch/v1", "n", "jobs") == "/apis/batch/v1/namespaces/n/jobs"

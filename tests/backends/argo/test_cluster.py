"""The connection to a cluster: kubectl's rules, credentials, and trouble told apart.

The numbers in the names are the contracts': C3 kinds of failure, C21 timeouts, C23 closing, W3
credentials and rights, W8 a connection that died while idle.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from backends.argo import cluster as cluster_module
from backends.argo import kubeconfig
from backends.argo.cluster import (
    METADATA_LIST,
    ApiError,
    Cluster,
    pods_path,
    resource_path,
    workflows_path,
)
from backends.argo.kubeconfig import Plugin
from stoke.errors import EngineError
from tests.backends.argo.scripted_server import (
    CHUNKED,
    LAST,
    Hold,
    Keep,
    Piece,
    Request,
    Reset,
    ScriptedServer,
    chunk,
    forbidden,
    json_answer,
    scripted_server,
    status,
)

PODS = pods_path("team-a")
NOTHING: dict[str, Any] = {"items": []}


@pytest.fixture(autouse=True)
def no_cluster_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.answers["/pods"] = [json_answer(NOTHING)]
    return server


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def config(name: str, server: str = "http://127.0.0.1:1", **more: Any) -> dict[str, Any]:
    """A kubeconfig with one of each, all called `name`."""
    return {
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {"token": f"token-of-{name}"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        **more,
    }


# --- which cluster -------------------------------------------------------------------------------


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


# --- requests ------------------------------------------------------------------------------------


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
    server.answers["/pods"] = [[b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"]]
    with pytest.raises(ApiError) as caught:
        cluster.request("GET", PODS)
    assert caught.value.reason == "Cut"


def test_a_response_that_is_not_json_is_an_error(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/pods"] = [[b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>", Keep]]
    with pytest.raises(ApiError, match="JSON"):
        cluster.request("GET", PODS)


# --- no -----------------------------------------------------------------------------------------


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


# --- credentials ---------------------------------------------------------------------------------


def plugin_user(script: Path, **more: Any) -> dict[str, Any]:
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": "sh", "args": [str(script)], **more}}


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


def test_a_plugin_is_told_of_the_cluster_where_it_asks(
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


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca.crt`, and its certificate for 127.0.0.1: `tls.crt` and `tls.key`.

    Without the extensions that Python wants from 3.13 on, as many a cluster's own.
    """
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "ca.cnf").write_text(
        "[req]\ndistinguished_name=name\nx509_extensions=more\nprompt=no\n"
        "[name]\nCN=authority\n[more]\nbasicConstraints=CA:TRUE\n"
    )
    (folder / "tls.cnf").write_text("subjectAltName=IP:127.0.0.1\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"]
    for command in (
        ["req", "-x509", *key, "ca.key", "-out", "ca.crt", "-days", "2", "-config", "ca.cnf"],
        ["req", *key, "tls.key", "-out", "tls.csr", "-subj", "/CN=scripted"],
        [
            *["x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2"],
            *["-CAcreateserial", "-extfile", "tls.cnf", "-out", "tls.crt"],
        ],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def safe_server(certificates: Path) -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
    with scripted_server(context) as server:
        server.answers["/pods"] = [json_answer(NOTHING)]
        yield server


def test_a_cluster_vouched_for_by_its_kubeconfig_is_trusted(
    safe_server: ScriptedServer, certificates: Path, tmp_path: Path
) -> None:
    trusted = {"certificate-authority": str(certificates / "ca.crt")}
    path = safe_server.kubeconfig(tmp_path, cluster=dict(trusted))
    assert Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS) == NOTHING


@pytest.mark.filterwarnings("error")
def test_unverified_tls_prints_no_warning(safe_server: ScriptedServer, tmp_path: Path) -> None:
    path = safe_server.kubeconfig(tmp_path, cluster={"insecure-skip-tls-verify": True})
    assert Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS) == NOTHING


def test_an_authority_that_kubectl_accepts_is_accepted(
    safe_server: ScriptedServer,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strict() -> ssl.SSLContext:
        """As it is from Python 3.13 on."""
        context = create_urllib3_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    trusted = str(certificates / "ca.crt")
    pool = urllib3.PoolManager(ssl_context=strict(), ca_certs=trusted)
    with pytest.raises(urllib3.exceptions.SSLError, match="verify failed"):
        pool.request("GET", safe_server.url, retries=False)
    monkeypatch.setattr("backends.argo.kubeconfig.create_urllib3_context", strict)
    path = safe_server.kubeconfig(tmp_path, cluster={"certificate-authority": trusted})
    assert Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS) == NOTHING


def test_a_certificate_of_another_authority_is_rejected(
    safe_server: ScriptedServer, tmp_path: Path
) -> None:
    path = safe_server.kubeconfig(tmp_path)
    with pytest.raises(ApiError, match="cannot verify") as caught:
        Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)
    assert caught.value.reason == "Untrusted"
    assert safe_server.requests == []


@pytest.mark.parametrize("behind", [b"", b"junk"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_compressed_answer_leaves_nothing_to_the_next_request(
    safe_server: ScriptedServer,
    certificates: Path,
    tmp_path: Path,
    chunked: bool,
    behind: bytes,
) -> None:
    trusted = {"certificate-authority": str(certificates / "ca.crt")}
    path = safe_server.kubeconfig(tmp_path, cluster=dict(trusted))
    cluster = Cluster(context=None, namespace=None, kubeconfig=path)
    # It is longer than a reader's buffer and comes in one record of TLS, where urllib3 does not see
    # that bytes are left.
    large = {"items": [], "random": random.Random(1).randbytes(9_000).hex()}
    body = gzip.compress(json.dumps(large).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"
    if chunked:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        body = chunk(body) + chunk(behind) + LAST
    else:
        body += behind
        head += b"Content-Length: %d\r\n\r\n" % len(body)
    safe_server.answers = {"/pods": [[head, body, Keep]], "/pods/fit": [json_answer(NOTHING)]}
    try:
        for _ in range(3):
            assert cluster.request("GET", PODS) == large
            # It is not repeated on another connection, as a GET would be.
            assert cluster.request("DELETE", f"{PODS}/fit") == NOTHING
    finally:
        cluster.close()
    assert behind or safe_server.connections == 1


@pytest.mark.parametrize(("method", "asked"), [("GET", 2), ("POST", 1)])
def test_a_connection_that_ends_within_tls_is_a_cut_one(
    safe_server: ScriptedServer, certificates: Path, tmp_path: Path, method: str, asked: int
) -> None:
    """What a write to one that is gone says too: then the kubeconfig's authority is not to blame."""
    trusted = {"certificate-authority": str(certificates / "ca.crt")}
    path = safe_server.kubeconfig(tmp_path, cluster=dict(trusted))
    cluster = Cluster(context=None, namespace=None, kubeconfig=path)
    safe_server.broken_handshakes = 1
    if method == "GET":
        assert cluster.request(method, PODS) == NOTHING
    else:
        with pytest.raises(ApiError, match="was cut") as caught:
            cluster.request(method, PODS, body={})
        assert caught.value.reason == "Cut"
    assert safe_server.connections == asked


@pytest.mark.parametrize("by", ["kubeconfig", "plugin"])
def test_client_keys_are_used_and_leave_no_file(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    def data(name: str) -> str:
        return base64.b64encode((certificates / name).read_bytes()).decode()

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    user: dict[str, Any] = {
        "client-certificate-data": data("tls.crt"),
        "client-key-data": data("tls.key"),
    }
    if by == "plugin":
        names = {"clientCertificateData": "tls.crt", "clientKeyData": "tls.key"}
        status = {key: (certificates / name).read_text() for key, name in names.items()}
        answer = {"apiVersion": "client.authentication.k8s.io/v1", "status": status}
        (tmp_path / "answer").write_text(json.dumps({**answer, "kind": "ExecCredential"}))
        (tmp_path / "plugin.sh").write_text(f"cat {tmp_path}/answer")
        user = plugin_user(tmp_path / "plugin.sh")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
    context.load_verify_locations(certificates / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with scripted_server(context) as server:
        server.answers["/pods"] = [json_answer(NOTHING)]
        trusted = {"certificate-authority-data": data("ca.crt")}
        path = server.kubeconfig(tmp_path, user=user, cluster=dict(trusted))
        for _ in range(2):
            cluster = Cluster(context=None, namespace=None, kubeconfig=path)
            assert cluster.request("GET", PODS) == NOTHING
            assert list(temporary.iterdir()) == []
        path = server.kubeconfig(tmp_path, cluster=dict(trusted))
        with pytest.raises(ApiError):
            Cluster(context=None, namespace=None, kubeconfig=path).request("GET", PODS)


# --- proxies -------------------------------------------------------------------------------------


class Tunnel:
    """An HTTP proxy that passes on what it is asked to CONNECT to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requested: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            target = head.split()[1].decode()
            self.requested.append(target)
            host, _, port = target.rpartition(":")
            server = socket.create_connection((host, int(port)))
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    tunnel = Tunnel()
    yield tunnel
    tunnel.close()


@pytest.mark.parametrize("by", ["kubeconfig", "environment"])
def test_a_proxy_is_used_and_streams_through_it_can_be_closed(
    safe_server: ScriptedServer,
    certificates: Path,
    tunnel: Tunnel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    place: dict[str, object] = {"certificate-authority": str(certificates / "ca.crt")}
    if by == "kubeconfig":
        place["proxy-url"] = tunnel.url
    else:
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
    path = safe_server.kubeconfig(tmp_path, cluster=place)
    cluster = Cluster(context=None, namespace=None, kubeconfig=path)
    assert cluster.request("GET", PODS) == NOTHING
    assert tunnel.requested == [safe_server.url.removeprefix("https://")]
    safe_server.answers["/log"] = [[Hold]]
    stream = cluster.stream(pods_path("team-a", "job", "log"), {})
    reader = threading.Thread(target=list, args=(stream,))
    reader.start()
    safe_server.wait_for(2)
    stream.close()
    reader.join(20)
    assert not reader.is_alive()
    cluster.close()


# --- streams -------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "tls"])
def streaming(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Cluster, ScriptedServer]]:
    if request.param == "tls":
        server = request.getfixturevalue("safe_server")
        folder = request.getfixturevalue("certificates")
        trusted: dict[str, object] = {"certificate-authority": str(folder / "ca.crt")}
    else:
        server, trusted = request.getfixturevalue("server"), {}
    path = server.kubeconfig(tmp_path, cluster=trusted)
    cluster = Cluster(context=None, namespace=None, kubeconfig=path)
    yield cluster, server
    cluster.close()


Streaming = tuple[Cluster, ScriptedServer]


def test_a_stream_gives_what_comes_and_ends(streaming: Streaming) -> None:
    cluster, server = streaming
    server.answers["/log"] = [[CHUNKED, chunk(b"one\n") + chunk(b"two\n"), chunk(b"three\n"), LAST]]
    stream = cluster.stream(pods_path("team-a", "job", "log"), {"follow": "true"})
    assert b"".join(stream) == b"one\ntwo\nthree\n"
    assert server.requests[0].query == {"follow": "true"}
    server.wait_until_nobody_is_connected()


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
    server.wait_until_nobody_is_connected()
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


def _say(request: Request) -> list[Piece]:
    return json_answer({"query": request.query})


def test_queries_are_quoted(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/pods"] = [_say]
    query = {"labelSelector": "a in (b,c),!d", "fieldSelector": "metadata.name=x&y"}
    assert cluster.request("GET", PODS, query=query) == {"query": query}

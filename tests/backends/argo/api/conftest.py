"""A server that has no pods, and one with TLS; no kubeconfig of the person who runs the tests."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.argo.cluster import Cluster
from tests.backends.argo.api.kubeconfigs import NOTHING
from tests.backends.argo.scripted_server import ScriptedServer, json_answer, scripted_server


@pytest.fixture(autouse=True)
def no_cluster_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.answers["/pods"] = [json_answer(NOTHING)]
    return server


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

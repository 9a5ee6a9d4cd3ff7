"""TLS, client certificates and proxies."""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from backends.argo.cluster import ApiError, Cluster, pods_path
from tests.backends.argo.api.kubeconfigs import NOTHING, PODS, plugin_user
from tests.backends.argo.scripted_server import (
    LAST,
    Hold,
    Keep,
    ScriptedServer,
    chunk,
    json_answer,
    scripted_server,
)


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
            assert cluster.request("DELETE", f"{PODS}/fit") is None
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

"""The commands on a company's network: what `stoke doctor` reports about the way to the package index,
and that its hints fix it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Stoke
from tests.hints import is_hint
from tests.network import AUTHORITY, Authority, Proxy
from tests.package_index import PackageIndex
from tests.terminals import PROGRAM

LOGIN = "ada:correct horse"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
NETWORK = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT")


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*NETWORK, *PROXIES, *(name.upper() for name in PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    # Nothing here is about engines.
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", "127.0.0.1")


@pytest.fixture
def safe_index(authority: Authority) -> Iterator[PackageIndex]:
    index = PackageIndex("127.0.0.1", tls=authority.tls)
    index.add("uv", "1.0")
    index.add("alpha", "1.0")
    yield index
    index.stop()


@pytest.fixture
def private_index() -> Iterator[PackageIndex]:
    index = PackageIndex("127.0.0.1", password=LOGIN)
    index.add("uv", "1.0")
    yield index
    index.stop()


@pytest.fixture
def plain_index() -> Iterator[PackageIndex]:
    index = PackageIndex("127.0.0.1")
    index.add("uv", "1.0")
    yield index
    index.stop()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy(login="ada:secret")
    yield proxy
    proxy.close()


def look(stoke: Stoke, what: str = "index", **env: str) -> dict[str, Any]:
    """Return the check result, after seeing that the exit code agrees with it."""
    done = stoke("doctor", "--json", env=env)
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["works"] else 1)
    (found,) = [one for one in report["stoke"] if one["what"] == what]
    assert found["works"] or not report["works"]
    answer: dict[str, Any] = found
    return answer


def advised(found: dict[str, Any], **values: str) -> dict[str, str]:
    """The variables that the hint says to export, with its capitals replaced by `values`."""
    assert not found["works"]
    hint = found["hint"]
    for name, value in values.items():
        hint = hint.replace(name, value)
    return dict(re.findall(r"([A-Z_]+)=(\S+)", hint.partition("export ")[2]))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_an_index_that_answers(stoke: Stoke, plain_index: PackageIndex) -> None:
    found = look(stoke, STOKE_INDEX__URL=plain_index.url)
    assert found["works"] and found["detail"] == f"{plain_index.url} answers"
    shown = stoke("doctor", env={"STOKE_INDEX__URL": plain_index.url}).stdout.decode()
    assert f"ok  index             {plain_index.url} answers" in shown


def test_every_index_is_checked_including_those_in_uvs_settings(
    stoke: Stoke, plain_index: PackageIndex, private_index: PackageIndex
) -> None:
    env = {"UV_DEFAULT_INDEX": plain_index.url, "UV_INDEX": f"inside={private_index.url}"}
    report = json.loads(stoke("doctor", "--json", env=env).stdout)
    asked = [one["works"] for one in report["stoke"] if one["what"] == "index"]
    assert asked == [True, False]


def test_an_index_of_uvs_configuration_is_asked_with_its_login(
    stoke: Stoke, private_index: PackageIndex, own_home: Path
) -> None:
    folder = own_home / "config" / "uv"
    folder.mkdir(parents=True)
    host = private_index.url.partition("://")[2]
    (folder / "uv.toml").write_text(f'index-url = "http://{LOGIN}@{host}"\n')
    found = look(stoke, XDG_CONFIG_HOME=str(own_home / "config"))
    assert found["works"] and found["detail"] == f"{private_index.url} answers"


def test_a_name_that_cannot_be_resolved(stoke: Stoke) -> None:
    found = look(stoke, STOKE_INDEX__URL="https://index.invalid/simple")
    assert "index.invalid cannot be resolved" in found["detail"] and "HTTPS_PROXY" in found["hint"]


def test_a_connection_that_is_refused(stoke: Stoke) -> None:
    found = look(stoke, STOKE_INDEX__URL=f"http://127.0.0.1:{closed_port()}/simple")
    assert "refuses the connection" in found["detail"] and "HTTP_PROXY" in found["hint"]


def test_a_server_that_says_nothing_is_given_up(stoke: Stoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        found = look(stoke, STOKE_INDEX__URL=address)
    assert not found["works"] and "without an answer" in found["detail"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_unreachable_proxy(stoke: Stoke, scheme: str) -> None:
    variable = f"{scheme}_proxy"
    gone = f"http://ada:secret@127.0.0.1:{closed_port()}"
    env = {variable: gone, "STOKE_INDEX__URL": f"{scheme}://index.invalid/simple"}
    found = look(stoke, **env)
    assert f"({variable}) refuses the connection" in found["detail"]
    assert found["hint"] == f"correct {variable}, or unset it"
    assert "secret" not in str(found)


@pytest.mark.parametrize("given", ["", "ada:wrong@"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_wants_another_login(
    stoke: Stoke,
    proxy: Proxy,
    safe_index: PackageIndex,
    authority: Authority,
    variable: str,
    given: str,
) -> None:
    env = {
        variable: f"http://{given}{proxy.host}",
        "STOKE_INDEX__URL": safe_index.url,
        "SSL_CERT_FILE": str(authority.file),
    }
    found = look(stoke, **env)
    assert f"the proxy {proxy.host} ({variable})" in found["detail"]
    assert "(407)" in found["detail"] and "wrong" not in str(found)
    right = advised(found, USER="ada", PASSWORD="secret")
    assert list(right) == [variable]
    assert look(stoke, **(env | right))["works"]


def test_the_configured_proxy_wants_a_login_which_it_cannot_hold(
    stoke: Stoke, proxy: Proxy, plain_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_INDEX__PROXY", proxy.url)
    found = look(stoke, STOKE_INDEX__URL=plain_index.url)
    assert found["hint"].startswith("unset index.proxy, and export HTTP_PROXY=")
    monkeypatch.delenv("STOKE_INDEX__PROXY")
    right = advised(found, USER="ada", PASSWORD="secret")
    assert look(stoke, STOKE_INDEX__URL=plain_index.url, **right)["works"]


def test_a_proxy_that_is_none(
    stoke: Stoke, plain_index: PackageIndex, safe_index: PackageIndex, authority: Authority
) -> None:
    env = {"HTTPS_PROXY": f"http://{plain_index.host}", "STOKE_INDEX__URL": safe_index.url}
    found = look(stoke, **env)
    # It answers 501 to CONNECT.
    assert not found["works"] and "HTTPS_PROXY" in found["detail"]
    template = "ask the proxy's administrators; if {} needs no proxy: export NO_PROXY={}"
    is_hint(found["hint"], template)
    past_it = env | advised(found) | {"SSL_CERT_FILE": str(authority.file)}
    assert look(stoke, **past_it)["works"]
    assert look(stoke, STOKE_INDEX__URL=plain_index.url, HTTPS_PROXY="http://127.0.0.1:9")["works"]


def test_no_proxy_is_kept_to(stoke: Stoke, plain_index: PackageIndex) -> None:
    env = {"HTTP_PROXY": "http://127.0.0.1:9", "STOKE_INDEX__URL": plain_index.url}
    assert not look(stoke, **env)["works"]
    assert look(stoke, NO_PROXY="127.0.0.1", **env)["works"]


def test_an_authority_that_is_not_trusted_is_named(
    stoke: Stoke, safe_index: PackageIndex, authority: Authority
) -> None:
    found = look(stoke, STOKE_INDEX__URL=safe_index.url)
    assert f"not trusted here: {AUTHORITY}" in found["detail"]
    right = advised(found) | {"STOKE_INDEX__CA_BUNDLE": str(authority.file)}
    assert "STOKE_INDEX__CA_BUNDLE" in found["hint"] and len(right) == 1
    assert look(stoke, STOKE_INDEX__URL=safe_index.url, **right)["works"]
    env = {"STOKE_INDEX__URL": safe_index.url, "REQUESTS_CA_BUNDLE": str(authority.file)}
    assert look(stoke, **env)["works"]
    assert AUTHORITY in look(stoke, "certificates", **env)["detail"]


def test_a_certificate_for_another_name(stoke: Stoke, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "127.0.0.2")
    index = PackageIndex("127.0.0.1", tls=other.tls)
    index.add("uv", "1.0")
    trust = {"SSL_CERT_FILE": str(other.file)}
    try:
        found = look(stoke, STOKE_INDEX__URL=index.url, **trust)
        assert "its certificate is not valid" in found["detail"] and "127.0.0.1" in found["detail"]
        assert "trusted" not in found["detail"]
        is_hint(found["hint"], "check this machine's clock, and the address")
        right = index.url.replace("127.0.0.1", "127.0.0.2")
        assert look(stoke, STOKE_INDEX__URL=right, **trust)["works"]
    finally:
        index.stop()


def test_a_server_of_another_kind(
    stoke: Stoke, safe_index: PackageIndex, authority: Authority
) -> None:
    trust = {"SSL_CERT_FILE": str(authority.file)}
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
        port = other.getsockname()[1]
        wrong = re.sub(r":\d+", f":{port}", safe_index.url)
        found = look(stoke, STOKE_INDEX__URL=wrong, **trust)
    is_hint(found["hint"], "check the address and the port")
    assert look(stoke, STOKE_INDEX__URL=safe_index.url, **trust)["works"]


def test_a_server_without_tls(stoke: Stoke, plain_index: PackageIndex) -> None:
    url = plain_index.url.replace("http:", "https:")
    found = look(stoke, STOKE_INDEX__URL=url)
    assert "does not speak TLS" in found["detail"] and "http://" in found["hint"]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_store_that_is_not_there(
    stoke: Stoke, plain_index: PackageIndex, tmp_path: Path, variable: str
) -> None:
    env = {"STOKE_INDEX__URL": plain_index.url}
    found = look(stoke, "certificates", **{variable: f"{tmp_path}/gone"}, **env)
    assert found["hint"].startswith(f"unset {variable}")
    assert look(stoke, "certificates", **env)["works"]


def test_an_index_that_wants_a_login(stoke: Stoke, private_index: PackageIndex) -> None:
    env = {"STOKE_INDEX__URL": private_index.url}
    found = look(stoke, **env)
    assert "requires a login (401)" in found["detail"]
    right = advised(found, **{"USER:PASSWORD": "LOGIN"}) | {"INDEX_LOGIN": LOGIN}
    assert right["STOKE_INDEX__CREDENTIALS"] == "env:INDEX_LOGIN"
    assert look(stoke, **env, **right)["works"]
    wrong = look(stoke, **env, **(right | {"INDEX_LOGIN": "ada:wrong"}))
    assert "refuses the login (401)" in wrong["detail"] and "env:INDEX_LOGIN" in wrong["hint"]
    del right["INDEX_LOGIN"]
    assert "INDEX_LOGIN is not set" in look(stoke, **env, **right)["detail"]


def test_a_login_of_variables_is_filled_in_as_for_a_job(
    stoke: Stoke, private_index: PackageIndex
) -> None:
    user, _, password = LOGIN.partition(":")
    address = private_index.url.replace("://", "://${INDEX_USER}:${INDEX_PASSWORD}@")
    env = {"STOKE_INDEX__URL": address, "INDEX_USER": user}
    assert look(stoke, **env, INDEX_PASSWORD=password)["works"]
    assert "refuses the login (401)" in look(stoke, **env, INDEX_PASSWORD="wrong")["detail"]
    missing = look(stoke, **env)
    assert "INDEX_PASSWORD, which is not set" in missing["detail"]
    assert missing["hint"] == "export INDEX_PASSWORD=..."


def test_a_login_from_netrc_counts_as_it_does_for_uv(
    stoke: Stoke, private_index: PackageIndex, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.touch(mode=0o600)
    user, _, password = LOGIN.partition(":")
    netrc.write_text(f'machine 127.0.0.1 login {user} password "{password}"\n')
    assert look(stoke, STOKE_INDEX__URL=private_index.url, NETRC=str(netrc))["works"]


def test_an_address_without_an_index(stoke: Stoke, plain_index: PackageIndex) -> None:
    address = plain_index.url.removesuffix("/simple")
    found = look(stoke, STOKE_INDEX__URL=address)
    assert "no package index at this address (404)" in found["detail"]
    assert "/simple" in found["hint"]
    assert look(stoke, STOKE_INDEX__URL=f"{address}/simple")["works"]


# ---------------------------------------------------------------------------- the system's own store

IN_NAMESPACE = """
set -e
cp -a /etc/ssl "$1/ssl"
mkdir -p "$1/local"
mount --bind "$1/ssl" /etc/ssl
mount --bind "$1/local" /usr/local/share/ca-certificates
cp "$2" /usr/local/share/ca-certificates/FILE.crt
update-ca-certificates >/dev/null 2>&1
shift 2
exec "$@"
"""


def test_the_systems_own_store_is_used_without_a_setting(
    stoke: Stoke, safe_index: PackageIndex, authority: Authority, tmp_path: Path
) -> None:
    """What doctor advises is done in a mount namespace: the authority is added to the real store."""
    if (
        os.getuid() != 0
        or not shutil.which("unshare")
        or not shutil.which("update-ca-certificates")
    ):
        pytest.skip(
            "needs root, unshare and update-ca-certificates to change the store for one test"
        )
    assert "sudo update-ca-certificates" in look(stoke, STOKE_INDEX__URL=safe_index.url)["hint"]
    inside = ["unshare", "-m", "sh", "-c", IN_NAMESPACE, "sh", str(tmp_path), str(authority.file)]
    env = {**os.environ, "STOKE_INDEX__URL": safe_index.url}
    words = ["run", "-q", "-w", "alpha", "-c", "import alpha; print(alpha.version)"]
    ran = subprocess.run([*inside, PROGRAM, *words], env=env, capture_output=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"1.0\n", b"")
    shutil.rmtree(tmp_path / "ssl")
    shutil.rmtree(tmp_path / "local")
    asked = subprocess.run([*inside, PROGRAM, "doctor"], env=env, capture_output=True)
    assert asked.returncode == 0
    assert f"{safe_index.url} answers".encode() in asked.stdout


@pytest.mark.docker
def test_doctor_says_which_proxies_containers_use(
    stoke: Stoke,
    docker_engine: Any,
    plain_index: PackageIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("STOKE_INDEX__URL", plain_index.url)

    def told(**env: str) -> list[dict[str, Any]]:
        report = json.loads(stoke("doctor", "--json", env=env).stdout)
        return [one for one in report["backends"]["docker"] if one["what"] == "proxy"]

    assert told() == []
    (used,) = told(NO_PROXY="127.0.0.1", HTTP_PROXY="http://ada:secret@192.0.2.1:3128")
    assert used["works"] and "HTTP_PROXY" in used["detail"] and "secret" not in used["detail"]
    (near,) = told(NO_PROXY="127.0.0.1", https_proxy="http://localhost:3128")
    assert not near["works"] and "HTTPS_PROXY" in near["detail"]
    is_hint(
        near["hint"],
        "have it listen on the address of Docker's bridge, and: "
        "export STOKE_INDEX__PROXY=http://BRIDGE:PORT",
    )
    subnet = docker_engine.inspect_network("bridge")["IPAM"]["Config"][0]
    bridge = subnet.get("Gateway") or str(ip_network(subnet["Subnet"])[1])
    there = Proxy(bridge)
    moved = advised(near, BRIDGE=bridge, PORT=there.host.partition(":")[2])
    env = {"https_proxy": "http://localhost:3128", **moved}
    (reached,) = told(**env)
    assert reached["works"] and there.url in reached["detail"]
    assert look(stoke, **env)["works"] and there.asked
    there.close()
    (named,) = told(STOKE_INDEX__PROXY="http://127.0.0.1:3128")
    assert not named["works"] and "index.proxy" in named["detail"]
    assert told(STOKE_DOCKER__NETWORK="host", https_proxy="http://localhost:3128")[0]["works"]

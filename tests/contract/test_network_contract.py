"""Proxies, certificates and logins of this machine's network, in jobs of every backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.history.database import History
from stoke.history.job import JobState
from tests.contract.conftest import DOCKER, open_lab
from tests.lab import Lab
from tests.network import Authority, Proxy
from tests.package_index import PackageIndex

SHOWS = "import alpha; print(alpha.version)"
TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
VARIABLES = (*TRUST, *PROXIES, *(name.upper() for name in PROXIES))


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(lab: Lab, tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", lab.address)


@pytest.fixture
def safe_index(lab: Lab, authority: Authority) -> Iterator[PackageIndex]:
    """An index over HTTPS whose certificate is from a company's own authority."""
    index = PackageIndex(lab.address, tls=authority.tls)
    index.add("alpha", "1.0")
    lab.defaults["index"]["url"] = index.url
    yield index
    index.stop()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_the_job_trusts_the_authorities_of_this_machine(
    lab: Lab,
    safe_index: PackageIndex,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    value = authority.file.parent if variable == "SSL_CERT_DIR" else authority.file
    monkeypatch.setenv(variable, str(value))
    done = lab.run(SHOWS, dependencies=["alpha"])
    assert done.stdout == b"1.0\n", done.events
    # Not a setting of the request: the same request elsewhere is the same.
    with History() as history:
        assert str(authority.file) not in (history.spec(done.job.id) or "")


def test_an_unknown_authority_is_trusted_only_after_the_hint_is_followed(
    lab: Lab, safe_index: PackageIndex, authority: Authority
) -> None:
    done = lab.run(SHOWS, dependencies=["alpha"])
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 125)
    assert "UnknownIssuer" in str(done.error["text"])
    assert "STOKE_INDEX__CA_BUNDLE" in done.error["hint"]
    lab.defaults["index"]["ca_bundle"] = str(authority.file)
    assert lab.run(SHOWS, dependencies=["alpha"]).stdout == b"1.0\n"


def test_a_bundle_that_the_request_names_replaces_everything(
    lab: Lab,
    safe_index: PackageIndex,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Authority(tmp_path / "other", lab.address)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    lab.defaults["index"]["ca_bundle"] = str(other.file)
    assert lab.run(SHOWS, dependencies=["alpha"]).job.exit_code == 125
    monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
    lab.defaults["index"]["ca_bundle"] = str(authority.file)
    assert lab.run(SHOWS, dependencies=["alpha"]).stdout == b"1.0\n"


@pytest.fixture(params=[DOCKER])
def containers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Containers of this machine's engine."""
    yield from open_lab(request.param, request, monkeypatch)


@pytest.fixture
def plain_index(containers: Lab) -> Iterator[PackageIndex]:
    index = PackageIndex(containers.address)
    index.add("alpha", "1.0")
    containers.defaults["index"]["url"] = index.url
    yield index
    index.stop()


def test_this_machines_loopback_address_is_the_containers_own(
    containers: Lab, plain_index: PackageIndex
) -> None:
    containers.defaults["index"]["url"] = "http://127.0.0.1:9/simple"
    done = containers.run(SHOWS, dependencies=["alpha"])
    assert "the Docker bridge" in done.error["hint"]
    containers.defaults["index"]["url"] = plain_index.url  # It listens on the bridge's address.
    assert containers.run(SHOWS, dependencies=["alpha"]).stdout == b"1.0\n"


def test_code_in_a_container_gets_neither_authorities_nor_proxies(
    containers: Lab, plain_index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(containers.address)
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path, "127.0.0.1").file))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    code = f"import os; print([name for name in {VARIABLES!r} if name in os.environ])"
    done = containers.run(code, dependencies=["alpha"])
    proxy.close()
    assert done.stdout == b"[]\n", done.events
    assert proxy.asked


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_the_proxies_of_this_machine_are_used_and_their_passwords_stay_secret(
    containers: Lab,
    plain_index: PackageIndex,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    proxy = Proxy(containers.address, login="ada:correct-horse")
    monkeypatch.setenv(variable, proxy.url_with_login)
    done = containers.run(SHOWS, dependencies=["alpha"])
    proxy.close()
    assert done.stdout == b"1.0\n", done.events
    assert any(plain_index.host in target for target in proxy.asked)
    for path in own_home.rglob("*"):
        if path.is_file():
            assert b"correct-horse" not in path.read_bytes(), path


def test_a_refused_password_is_not_repeated_in_the_error(
    containers: Lab, plain_index: PackageIndex, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(containers.address, login="ada:another")
    monkeypatch.setenv("HTTP_PROXY", f"http://ada:wrong%2Dhorse@{proxy.host}")
    done = containers.run(SHOWS, dependencies=["alpha"])
    proxy.close()
    assert done.job.exit_code == 125
    assert "horse" not in str(done.events)


def test_no_proxy_is_respected(
    containers: Lab, plain_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(containers.address)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", containers.address)
    assert containers.run(SHOWS, dependencies=["alpha"]).stdout == b"1.0\n"
    proxy.close()
    assert not proxy.asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_loopback_proxy_of_this_machine_is_left_out_and_reported(
    containers: Lab, plain_index: PackageIndex, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://ada:correct-horse@{host}:9")
    done = containers.run(SHOWS, dependencies=["alpha"])
    assert done.stdout == b"1.0\n"
    notes = [str(event["text"]) for event in done.events if event["event"] == "note"]
    assert [note for note in notes if "HTTP_PROXY" in note and "loopback" in note]
    assert "correct-horse" not in str(done.events)


def test_an_image_without_uv_fetches_it_the_same_way(
    containers: Lab, bare_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner's own download: authorities, proxy and login count there as well."""
    authority = Authority(tmp_path / "pki", containers.address)
    index = PackageIndex(containers.address, tls=authority.tls)
    proxy = Proxy(containers.address, login="ada:correct-horse")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url_with_login)
    containers.defaults["index"]["url"] = index.url
    done = containers.run(SHOWS, dependencies=["alpha"], image=bare_image)
    proxy.close()
    index.stop()
    # It was reached through the proxy, and has no uv.
    assert proxy.asked and "/simple/uv/" in index.requests, done.events
    assert "404" in str(done.error["text"])

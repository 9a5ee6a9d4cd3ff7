"""The certificate authorities and proxies of this machine that a job gets."""

from __future__ import annotations

import json
import os
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.delivery import network
from stoke.delivery.network import environment_proxies, names_of, own_authorities, this_network
from stoke.remote.common.network import is_loopback
from tests.lab import until
from tests.network import AUTHORITY, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", "127.0.0.1")


def test_public_authorities_stay_here(authority: Authority, tmp_path: Path) -> None:
    public = Path(certifi.where())
    assert own_authorities({"SSL_CERT_FILE": str(public)}) == []
    both = tmp_path / "both.pem"
    windows = authority.file.read_text().replace("\n", "\r\n")
    both.write_text(f"# A comment: Főtanúsítvány\n{public.read_text()}\n{windows}")
    (own,) = own_authorities({"SSL_CERT_FILE": str(both)})
    assert names_of([own]) == [AUTHORITY] and len(own) < 2000
    assert own_authorities({"SSL_CERT_FILE": str(both)}) == [own]


def test_what_a_distribution_ships_is_public(tmp_path: Path) -> None:
    """Including authorities that Mozilla has dropped since."""
    shipped = Path("/usr/share/ca-certificates/mozilla")
    if not shipped.is_dir():
        pytest.skip("this distribution keeps its authorities elsewhere")
    folder = tmp_path / "store"
    shutil.copytree(shipped, folder)
    assert own_authorities({"SSL_CERT_DIR": str(folder)}) == []


def test_servers_certificates_and_rubbish_are_no_authorities(
    authority: Authority, tmp_path: Path
) -> None:
    folder = authority.file.parent
    assert (folder / "server.crt").exists() and (folder / "server.key").exists()
    (folder / "rubbish.pem").write_bytes(
        b"-----BEGIN CERTIFICATE-----\nAAAA\xff\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----"
    )
    assert names_of(own_authorities({"SSL_CERT_DIR": f"{folder}:/not/there"})) == [AUTHORITY]


def cached(environ: dict[str, str]) -> dict[str, Any]:
    """Compute the authorities until they are cached: files that have just changed are not."""
    network._cache_file().unlink(missing_ok=True)

    def is_cached() -> bool:
        own_authorities(environ)
        return network._cache_file().exists()

    until(is_cached, "the cached authorities")
    stored: dict[str, Any] = json.loads(network._cache_file().read_text())
    return stored


def test_authorities_are_read_again_only_after_a_file_has_changed(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.pem"
    store.write_bytes(authority.file.read_bytes())
    environ = {"SSL_CERT_FILE": str(store)}
    stored = cached(environ)
    assert stored["own"] == own_authorities(environ) and names_of(stored["own"]) == [AUTHORITY]
    with monkeypatch.context() as patch:
        patch.setattr(network, "_certificates", lambda files: pytest.fail("reads the files again"))
        assert own_authorities(environ) == stored["own"]
    status = store.stat()
    other = Authority(tmp_path / "other", "127.0.0.1").file.read_bytes()
    store.write_bytes(other)
    os.utime(store, ns=(status.st_atime_ns, status.st_mtime_ns))
    (changed,) = own_authorities(environ)
    assert changed not in stored["own"]
    assert own_authorities({"SSL_CERT_FILE": certifi.where()}) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: "[" * 1000,
        lambda stored: "5",
        lambda stored: json.dumps({"own": stored["own"]}),
        lambda stored: json.dumps({**stored, "own": ["-----BEGIN NOTHING-----"]}),
        lambda stored: json.dumps({**stored, "own": "-----BEGIN CERTIFICATE-----"}),
        lambda stored: json.dumps({**stored, "own": [5]}),
    ],
)
def test_a_damaged_cache_of_authorities_is_not_used(
    authority: Authority, spoil: Callable[[dict[str, Any]], str]
) -> None:
    environ = {"SSL_CERT_FILE": str(authority.file)}
    stored = cached(environ)
    network._cache_file().write_text(spoil(stored))
    assert own_authorities(environ) == stored["own"]
    assert json.loads(network._cache_file().read_text()) == stored


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
def test_a_cache_of_authorities_that_others_can_write_to_is_not_used(authority: Authority) -> None:
    environ = {"SSL_CERT_FILE": str(authority.file)}
    stored = cached(environ)
    planted = {**stored, "own": ["-----BEGIN CERTIFICATE-----\nplanted"]}
    network._cache_file().write_text(json.dumps(planted))
    assert own_authorities(environ) == planted["own"]  # The cache is used.
    network._cache_file().parent.chmod(0o777)
    assert own_authorities(environ) == stored["own"]
    network._cache_file().write_text(json.dumps(planted))
    os.chown(network._cache_file(), 12345, -1)
    assert own_authorities(environ) == stored["own"]


def test_a_variable_that_names_nothing_leaves_the_systems_store() -> None:
    assert own_authorities({"SSL_CERT_FILE": "/not/there"}) == own_authorities({})


@pytest.mark.parametrize(
    ("environ", "proxies"),
    [
        ({"NO_PROXY": "a.test"}, {}),
        ({"HTTPS_PROXY": "http://p.test"}, {"https_proxy": "http://p.test"}),
        ({"HTTPS_PROXY": "http://p.test", "https_proxy": "http://q.test"},
         {"https_proxy": "http://q.test"}),
        ({"ALL_PROXY": "p.test:1", "no_proxy": "a.test"},
         {"all_proxy": "p.test:1", "no_proxy": "a.test"}),
    ],
)  # fmt: skip
def test_proxies_of_the_environment(environ: dict[str, str], proxies: dict[str, str]) -> None:
    assert environment_proxies(environ) == proxies


@pytest.mark.parametrize("address", ["http://u:p%40ss@p.test:1", "u:p%40ss@p.test:1"])
def test_passwords_of_proxies_are_known_as_written_and_as_meant(address: str) -> None:
    found = this_network(proxies=True, environ={"HTTP_PROXY": address})
    assert found.secrets == ["p%40ss", "p@ss"]
    assert this_network(proxies=False, environ={"HTTP_PROXY": address}).proxies == ()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "a.localhost",
        "127.0.0.1",
        "127.1",
        "127.8.9.1",
        "[::1]",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("form", ["{}", "{}:3128", "http://{}:3128", "socks5h://u:p@{}:1/"])
def test_addresses_of_the_machine_itself(host: str, form: str) -> None:
    assert is_loopback(form.format(host))


@given(st.text(string.ascii_lowercase + "-", min_size=1), st.integers(1, 65535))
def test_other_addresses(name: str, port: int) -> None:
    assert not is_loopback(f"http://{name}.test:{port}")
    assert not is_loopback(f"http://localhost:secret@{name}.test:{port}")
    assert not is_loopback(f"http://127.0.0.1.{name}.test:{port}")

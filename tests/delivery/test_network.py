"""Which certificate authorities and proxies of this machine a job is told of."""

from __future__ import annotations

import shutil
import string
from pathlib import Path

import certifi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.delivery.network import environment_proxies, names_of, own_authorities, this_network
from stoke.remote.common.network import is_loopback
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
    """Also authorities that Mozilla has dropped since."""
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

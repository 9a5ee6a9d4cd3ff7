"""The backends that have to pass the contract, each in a laboratory of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from stoke.config import load_config
from stoke.lifecycle import Backends
from tests.lab import Lab
from tests.package_index import PackageIndex


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    name: str = request.param
    address = "127.0.0.1"
    scope = f"test-{secrets.token_hex(4)}"
    # An index that is gone shows at once instead of after uv's patience.
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    if name == "docker":
        engine = request.getfixturevalue("docker_engine")
        image = os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest")
        monkeypatch.setenv("STOKE_DOCKER__IMAGE", image)
        subnet = engine.inspect_network("bridge")["IPAM"]["Config"][0]
        # An engine that chose the subnet by itself does not name the gateway: the first address.
        address = subnet.get("Gateway") or str(ip_network(subnet["Subnet"])[1])
        cleanup = request.getfixturevalue("docker_cleanup")
        cleanup(scope)
        cleanup(f"{scope}-b")
    config = load_config()
    backends = Backends(config)
    yield Lab(backends.get(name), config, scope, address)
    backends.close()


def _serve(lab: Lab, password: str | None) -> Iterator[PackageIndex]:
    index = PackageIndex(lab.address, password)
    for version in ("1.0", "1.5", "2.0"):
        index.add("alpha", version)
    index.add("beta", "2.0", ["alpha>=2"])
    index.add("beta", "1.0", ["alpha"])
    index.add("secretive", "1.0")
    yield index
    index.stop()


@pytest.fixture
def index(lab: Lab) -> Iterator[PackageIndex]:
    """alpha 1.0, 1.5 and 2.0; beta 1.0 and 2.0 (needs alpha >= 2); asked by every request."""
    for served in _serve(lab, None):
        lab.defaults["index"]["url"] = served.url
        yield served


@pytest.fixture
def private_index(lab: Lab) -> Iterator[PackageIndex]:
    """The same packages for those who know the password."""
    yield from _serve(lab, "ada:correct horse/battery")

"""The backends that have to pass the contract, each in a laboratory of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from tests.lab import Lab
from tests.nix_cache import NixCache, NixFiles, make_files
from tests.package_index import PackageIndex

DOCKER = pytest.param("docker", marks=pytest.mark.docker)
ARGO = pytest.param("argo", marks=pytest.mark.cluster)


@pytest.fixture(params=["local", DOCKER, ARGO])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    yield from open_lab(request.param, request, monkeypatch)


@pytest.fixture(params=[DOCKER, ARGO])
def system_lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The backends that bring system packages."""
    yield from open_lab(request.param, request, monkeypatch)


def open_lab(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    address = "127.0.0.1"
    scope = f"test-{secrets.token_hex(4)}"
    # An index that is gone shows at once instead of after uv's patience.
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    if name == "docker":
        engine = request.getfixturevalue("docker_engine")
        image = os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest")
        monkeypatch.setenv("STOKE_DOCKER__IMAGE", image)
        subnet = engine.inspect_network("bridge")["IPAM"]["Config"][0]
        # An engine that chose the subnet itself does not name the gateway, which is the first address.
        address = subnet.get("Gateway") or str(ip_network(subnet["Subnet"])[1])
        cleanup = request.getfixturevalue("docker_cleanup")
        cleanup(scope)
        cleanup(f"{scope}-b")
    if name == "argo":
        cluster = request.getfixturevalue("real_cluster")
        monkeypatch.setenv("STOKE_ARGO__KUBECONFIG", cluster.kubeconfig)
        monkeypatch.setenv("STOKE_ARGO__IMAGE", cluster.image)
        if cluster.service_account:
            monkeypatch.setenv("STOKE_ARGO__SERVICE_ACCOUNT", cluster.service_account)
        address = cluster.host
        request.getfixturevalue("cluster_cleanup")(scope)
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
    """An index with the same packages behind a password."""
    yield from _serve(lab, "ada:correct horse/battery")


@pytest.fixture(scope="session")
def nix_files(docker_engine: Any, docker_image: str) -> NixFiles:
    return make_files(docker_engine, docker_image)


@pytest.fixture
def nix(system_lab: Lab, nix_files: NixFiles) -> Iterator[NixCache]:
    """A package collection of our own, which every request takes; nothing is substituted."""
    served = NixCache(system_lab.address, nix_files)
    system_lab.defaults["nix"] = served.settings()
    yield served
    served.stop()

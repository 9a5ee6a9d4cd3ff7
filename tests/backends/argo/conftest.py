"""A scripted API server for each test, and a client of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.argo.backend import ArgoBackend
from backends.argo.cluster import Cluster
from stoke.config.model import ArgoConfig, Config
from tests.backends.argo.scripted_server import ScriptedServer, scripted_server
from tests.cluster.manifests import EXECUTOR_ACCOUNT
from tests.conftest import TestCluster
from tests.lab import Lab


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def cluster(server: ScriptedServer, tmp_path: Path) -> Iterator[Cluster]:
    """Return a client of the scripted server."""
    cluster = Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(tmp_path))
    yield cluster
    cluster.close()


@pytest.fixture
def make_lab(
    real_cluster: TestCluster, cluster_cleanup: Callable[[str], None]
) -> Iterator[Callable[..., Lab]]:
    """Makes laboratories on the cluster, without caches, with these settings of Argo."""
    backends = []

    def make(**argo: Any) -> Lab:
        settings = {
            "kubeconfig": real_cluster.kubeconfig,
            "image": real_cluster.image,
            "service_account": real_cluster.service_account or EXECUTOR_ACCOUNT,
            "cache": "none",
        }
        config = Config(argo=ArgoConfig.model_validate(settings | argo))
        backends.append(ArgoBackend(config))
        scope = f"test-{secrets.token_hex(4)}"
        cluster_cleanup(scope)
        return Lab(backends[-1], config, scope, real_cluster.host)

    yield make
    for backend in backends:
        backend.close()

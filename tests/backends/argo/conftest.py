"""A scripted API server for each test, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.argo.cluster import Cluster
from tests.backends.argo.scripted_server import ScriptedServer, scripted_server


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

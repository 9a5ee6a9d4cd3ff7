"""Whose caches a node's folders are: each namespace has its own, unless they are shared on purpose."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from backends.argo.backend import ArgoBackend
from backends.argo.mounts import cache_folder
from stoke.backend.api import Volume
from stoke.config.model import ArgoConfig, Config
from tests.cluster.manifests import GROUP, _rights
from tests.conftest import TestCluster
from tests.lab import Lab

pytestmark = pytest.mark.cluster

LEAVES = "open('/cache/left', 'w').write('by the first')"
LOOKS = "import os; print(os.path.exists('/cache/left'))"


@pytest.fixture
def two_namespaces(real_cluster: TestCluster) -> Iterator[tuple[str, str]]:
    """New ones, in which jobs can run."""
    api = real_cluster.connect()
    names = tuple(f"stoke-test-{secrets.token_hex(4)}" for _ in range(2))
    for name in names:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.request("POST", "/api/v1/namespaces", body=body)
        account = {"kind": "ServiceAccount", "name": "default", "namespace": name}
        rules = [(GROUP, ["workflowtaskresults"], ["create", "patch"])]
        for path, one in _rights(name, "executor", account, rules):
            api.request("POST", path, body=one)
    yield names[0], names[1]
    for name in names:
        api.request("DELETE", f"/api/v1/namespaces/{name}")
    api.close()


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_a_cache_belongs_to_its_namespace_unless_it_is_shared_on_purpose(
    real_cluster: TestCluster,
    two_namespaces: tuple[str, str],
    cluster_cleanup: Callable[[str], None],
    shared: bool,
) -> None:
    scope = f"test-{secrets.token_hex(4)}"
    cluster_cleanup(scope)
    seen: list[bytes] = []
    found: list[list[Volume]] = []
    for namespace, code in zip(two_namespaces, (LEAVES, LOOKS), strict=True):
        argo = ArgoConfig(
            kubeconfig=real_cluster.kubeconfig,
            namespace=namespace,
            image=real_cluster.image,
            cache_shared=shared,
        )
        backend = ArgoBackend(Config(argo=argo))
        seen.append(Lab(backend, Config(argo=argo), scope, real_cluster.host).run(code).stdout)
        found.append(backend.volumes())
        backend.close()
        assert [one.name for one in found[-1]] == [cache_folder(argo, namespace, scope, "python")]
    assert seen[1] == (b"True\n" if shared else b"False\n")

"""Fixtures of all tests: a home of their own and, on request, a real Docker engine and cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from backends.common.names import MANAGED, SCOPE
from stoke.config.model import DockerConfig
from stoke.errors import EngineError

if TYPE_CHECKING:
    from backends.argo.cluster import Cluster

# How long an example takes says more of the machine than of what is tested.
settings.register_profile("stoke", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stoke")

# Containers often set this. Without bytecode a command that a test starts takes three times as long,
# because it compiles every module that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What .ci/run tells the tests.
_KEPT = "STOKE_TEST_"


def pytest_configure() -> None:
    """Restore signals: a shell that starts the tests in the background ignores these, and every program
    that a test starts and interrupts would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Tests that need a cluster are skipped without one. Where one is promised, that must not hide.
    if os.environ.get("STOKE_TEST_CLUSTER") and not os.environ.get("STOKE_TEST_KUBECONFIG"):
        raise pytest.UsageError("STOKE_TEST_CLUSTER is set and STOKE_TEST_KUBECONFIG is not")


@pytest.fixture(scope="session")
def known_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with what stoke finds out once about a machine: uv's default index, for which it
    starts uv and a Python, and the authorities, for which it reads every certificate."""
    from stoke.delivery.network import own_authorities
    from stoke.request.default_index import default_index

    folder = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOKE_CACHE_DIR", str(folder))
        default_index()
        own_authorities()
    return folder


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_machine: Path) -> Path:
    """No test sees or changes the state, caches or configuration of the user who runs it."""
    for name in os.environ:
        if name.startswith("STOKE_") and not name.startswith(_KEPT):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(known_machine, home / "cache")
    monkeypatch.setenv("STOKE_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("STOKE_CACHE_DIR", str(home / "cache"))
    monkeypatch.setenv("STOKE_CONFIG", str(home / "config.toml"))
    return home


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Any]:
    """docker-py's APIClient for the engine that stoke itself would use.

    Where there is none the test is skipped, except under STOKE_TEST_DOCKER=1: then it fails.
    """
    from backends.docker.engine import Engine

    engine = Engine(DockerConfig().host)
    try:
        with engine.call("use Docker in the tests") as api:
            api.ping()
    except EngineError as error:
        if os.environ.get("STOKE_TEST_DOCKER"):
            pytest.fail(f"STOKE_TEST_DOCKER is set and {error.what}", pytrace=False)
        pytest.skip(error.what)
    yield api
    engine.close()


@pytest.fixture(scope="session")
def docker_image(docker_engine: Any) -> str:
    """The image that tests run jobs in: Python 3.13, uv and Nix."""
    return _present(docker_engine, os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest"))


@pytest.fixture(scope="session")
def bare_image(docker_engine: Any) -> str:
    """An image that has Python and nothing else."""
    image = os.environ.get("STOKE_TEST_IMAGE_BARE", "stoke-test/bare:latest")
    return _present(docker_engine, image)


def _present(engine: Any, image: str) -> str:
    from docker.errors import ImageNotFound

    try:
        engine.inspect_image(image)
    except ImageNotFound:
        if os.environ.get("STOKE_TEST_DOCKER"):
            pytest.fail(f"the engine has no image {image}; .ci/images makes it", pytrace=False)
        pytest.skip(f"the engine has no image {image}; .ci/images makes it")
    return image


@dataclass(frozen=True)
class TestCluster:
    """A cluster that the tests may use: a kubeconfig whose current context names the namespace."""

    __test__ = False

    kubeconfig: str
    host: str
    """Where its pods reach servers of the test."""
    image: str
    """One that its nodes have: Python 3.13, uv and Nix."""
    service_account: str | None
    """The account that may report results there; None: the namespace's default."""

    def on_node(self, path: str) -> Path:
        """Where a folder of the node is on this machine; the test is skipped where it is not."""
        folder = os.environ.get("STOKE_TEST_CLUSTER_DIR")
        if not folder or not path.startswith("/var/lib/"):
            pytest.skip("the cluster's node is another machine")
        return Path(folder) / "var-lib" / path.removeprefix("/var/lib/")

    def connect(self, namespace: str | None = None) -> Cluster:
        from backends.argo.cluster import Cluster

        return Cluster(context=None, namespace=namespace, kubeconfig=self.kubeconfig)


@pytest.fixture(scope="session")
def real_cluster() -> TestCluster:
    """What `python -m tests.cluster up` printed, or any cluster with Argo."""
    kubeconfig = os.environ.get("STOKE_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("no cluster: STOKE_TEST_KUBECONFIG is not set")
    return TestCluster(
        kubeconfig,
        os.environ.get("STOKE_TEST_CLUSTER_HOST", "127.0.0.1"),
        os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest"),
        os.environ.get("STOKE_TEST_SERVICE_ACCOUNT"),
    )


@pytest.fixture
def api(real_cluster: TestCluster) -> Iterator[Cluster]:
    """The cluster's API, as its administrator."""
    connected = real_cluster.connect()
    yield connected
    connected.close()


@pytest.fixture
def cluster_cleanup(real_cluster: TestCluster) -> Iterator[Callable[[str], None]]:
    """Call it with a scope: what is in the cluster of it, and of scopes whose names begin with it and a
    hyphen, is gone after the test, however that went."""
    from backends.argo.cluster import (
        METADATA_LIST,
        WORKFLOWS,
        ApiError,
        resource_path,
        workflows_path,
    )
    from backends.argo.names import OURS, labels_of

    scopes: list[str] = []
    yield scopes.append
    api = real_cluster.connect()
    namespace = api.namespace
    for path in (
        resource_path(WORKFLOWS, namespace, "cronworkflows"),
        workflows_path(namespace),
        resource_path("v1", namespace, "configmaps"),
        resource_path("v1", namespace, "persistentvolumeclaims"),
    ):
        listed = api.request("GET", path, query={"labelSelector": OURS}, accept=METADATA_LIST)
        for one in listed.get("items", ()):
            scope = labels_of(one).get(SCOPE, "")
            if any(scope == mine or scope.startswith(f"{mine}-") for mine in scopes):
                query = {"propagationPolicy": "Background"}
                try:
                    api.request("DELETE", f"{path}/{one['metadata']['name']}", query=query)
                except ApiError as error:
                    # What it belonged to went first, and took it along.
                    if error.status != 404:
                        raise
    api.close()


@pytest.fixture
def docker_cleanup(docker_engine: Any) -> Iterator[Callable[[str], None]]:
    """Call it with a scope: containers and volumes of it, and of scopes whose names begin with it
    and a hyphen, are gone after the test, however that went."""
    scopes: list[str] = []
    yield scopes.append

    def ours(thing: dict[str, Any]) -> bool:
        scope = thing["Labels"].get(SCOPE, "")
        return any(scope == one or scope.startswith(f"{one}-") for one in scopes)

    from docker.errors import APIError, NotFound

    from tests.lab import until

    managed = {"label": [f"{MANAGED}=true"]}
    for container in filter(ours, docker_engine.containers(all=True, filters=managed)):
        try:
            docker_engine.remove_container(container["Id"], force=True, v=True)
        except APIError as error:
            # What started a container of housekeeping removes it, too: it is gone, or going.
            if error.status_code not in (404, 409):
                raise

    def is_gone(volume: str) -> bool:
        try:
            docker_engine.remove_volume(volume)
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != 409:
                raise
            return False  # A container that is going has it still.
        return True

    for volume in filter(ours, docker_engine.volumes(filters=managed)["Volumes"] or []):
        until(partial(is_gone, volume["Name"]), f"the end of {volume['Name']}")


@pytest.fixture
def docker_scope(docker_cleanup: Callable[[str], None]) -> str:
    """A scope of its own."""
    scope = f"test-{secrets.token_hex(4)}"
    docker_cleanup(scope)
    return scope

"""What every test stands on: a home of its own and, where it asks for it, a real Docker engine."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.docker.names import MANAGED, SCOPE
from stoke.config import DockerConfig
from stoke.errors import EngineError

# What .ci/run tells the tests.
_KEPT = "STOKE_TEST_"


def pytest_configure() -> None:
    """Whoever starts the tests in the background may have had these signals ignored, and what is
    ignored is inherited by every program that a test starts and interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Tests that need a cluster are skipped without one. Where one is promised, that must not hide.
    if os.environ.get("STOKE_TEST_CLUSTER") and not os.environ.get("STOKE_TEST_KUBECONFIG"):
        raise pytest.UsageError("STOKE_TEST_CLUSTER is set and STOKE_TEST_KUBECONFIG is not")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees or changes the state, caches or configuration of whoever runs it."""
    for name in os.environ:
        if name.startswith("STOKE_") and not name.startswith(_KEPT):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
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


@pytest.fixture
def docker_cleanup(docker_engine: Any) -> Iterator[Callable[[str], None]]:
    """Call it with a scope: containers and volumes of it, and of scopes whose names begin with it
    and a hyphen, are gone after the test, however that went."""
    scopes: list[str] = []
    yield scopes.append

    def ours(thing: dict[str, Any]) -> bool:
        scope = thing["Labels"].get(SCOPE, "")
        return any(scope == one or scope.startswith(f"{one}-") for one in scopes)

    managed = {"label": [f"{MANAGED}=true"]}
    for container in filter(ours, docker_engine.containers(all=True, filters=managed)):
        docker_engine.remove_container(container["Id"], force=True, v=True)
    for volume in filter(ours, docker_engine.volumes(filters=managed)["Volumes"] or []):
        docker_engine.remove_volume(volume["Name"])


@pytest.fixture
def docker_scope(docker_cleanup: Callable[[str], None]) -> str:
    """A scope that nobody else uses."""
    scope = f"test-{secrets.token_hex(4)}"
    docker_cleanup(scope)
    return scope

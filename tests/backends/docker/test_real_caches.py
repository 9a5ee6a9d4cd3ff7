"""Cache volumes and housekeeping on a real Docker engine."""

from __future__ import annotations

import time
from typing import Any

import pytest

from backends.common.names import KIND, SCOPE
from backends.docker import DockerBackend
from backends.docker.names import housekeeping_labels, volume_name
from stoke.errors import EngineError
from tests.backends.docker.deliveries import ended, until
from tests.backends.docker.real import (
    CLEAR,
    WAITS,
    python_volume,
    quiet,
    start,
)

pytestmark = pytest.mark.docker


def test_a_volume_that_another_container_mounts_is_not_cleared(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str
) -> None:
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    backend.remove(made.job_id)
    name = volume_name(docker_scope, "python")
    binds = docker_engine.create_host_config(binds=[f"{name}:/theirs"])
    other = docker_engine.create_container(docker_image, ["sleep", "600"], host_config=binds)["Id"]
    docker_engine.start(other)
    try:
        with pytest.raises(EngineError, match="stoke did not create") as caught:
            backend.housekeep(python_volume(backend, docker_scope), CLEAR, quiet)
        assert name in (caught.value.hint or "")
    finally:
        docker_engine.remove_container(other, force=True)


def test_scopes_whose_names_begin_alike_are_apart(
    backend: DockerBackend, docker_scope: str, docker_cleanup: Any
) -> None:
    longer = f"{docker_scope}-python"
    docker_cleanup(longer)
    made = start(backend, WAITS, longer)
    short = start(backend, "pass", docker_scope)
    ended(backend, short.job_id)
    backend.remove(short.job_id)
    assert python_volume(backend, docker_scope).in_use_by == ()
    backend.housekeep(python_volume(backend, docker_scope), CLEAR, quiet)
    assert python_volume(backend, longer).in_use_by == (made.job_id,)


def housekeepers(engine: Any, scope: str) -> list[Any]:
    label = [f"{SCOPE}={scope}", f"{KIND}=housekeeping"]
    found: list[Any] = engine.containers(all=True, filters={"label": label})
    return found


def test_housekeeping_leaves_no_container(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    usage = {"kind": "python", "do": "usage", "lock_ttl": 60}
    assert backend.housekeep(python_volume(backend, docker_scope), usage, quiet)["bytes"] > 0
    assert housekeepers(docker_engine, docker_scope) == []

    def given_up(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.housekeep(python_volume(backend, docker_scope), usage, given_up)
    assert housekeepers(docker_engine, docker_scope) == []


def test_housekeeping_of_a_killed_program_is_removed(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    config = docker_engine.create_container_config(
        docker_image, ["true"], labels=housekeeping_labels(docker_scope)
    )
    docker_engine.create_container_from_config(config)  # and there it died
    usage = {"kind": "python", "do": "usage", "lock_ttl": 60}
    backend.housekeep(python_volume(backend, docker_scope), usage, quiet)
    (left,) = housekeepers(docker_engine, docker_scope)  # it may be about to start it
    # Not less: the containers of other tests are there as well, made and about to be started.
    monkeypatch.setattr("backends.docker.housekeeping.ABANDONED_SECONDS", 3.0)
    until(lambda: time.time() > left["Created"] + 4.0, "its age")
    backend.housekeep(python_volume(backend, docker_scope), usage, quiet)
    assert housekeepers(docker_engine, docker_scope) == []

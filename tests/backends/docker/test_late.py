"""A container that the engine made after its job was lost."""

from __future__ import annotations

from typing import Any

import pytest

from backends.docker.backend import DockerBackend
from backends.docker.container import container_config
from stoke.backend.api import Delivery
from stoke.config.model import Config
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.refresh import adopt
from stoke.request.sources import request_from_options


@pytest.mark.docker
@pytest.mark.parametrize("state", [JobState.LOST, JobState.QUEUED])
def test_a_late_container_is_removed_by_the_next_listing(
    docker_engine: Any, docker_image: str, docker_scope: str, state: JobState
) -> None:
    """The client was killed while a slow engine created the container, so it is never started."""
    config = Config()
    backend = DockerBackend(config)
    spec = request_from_options(code="1", scope=docker_scope, use_cache=False)
    job = Job(f"{docker_scope}-aaaaaa", "late", "docker", docker_scope, state, 1000.0)
    job.request_hash = "r"
    delivery = Delivery(job.id, spec, b"", "n0nce", b"", b"{}", "")
    docker_engine.create_container_from_config(
        container_config(delivery, config, docker_image), name=job.id
    )
    with History() as history:
        history.add(job, "{}", "n0nce")
        adopt(backend, history)
    # One that may still be submitted is left alone.
    assert backend.inspect(job.id).status == ("absent" if state is JobState.LOST else "created")
    backend.close()

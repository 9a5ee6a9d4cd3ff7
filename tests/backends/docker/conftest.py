"""Fixtures of the tests with a real Docker engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.docker import DockerBackend
from stoke.config.model import Config, DockerConfig


@pytest.fixture
def backend(docker_image: str) -> Iterator[DockerBackend]:
    backend = DockerBackend(Config(docker=DockerConfig(image=docker_image)))
    yield backend
    backend.close()

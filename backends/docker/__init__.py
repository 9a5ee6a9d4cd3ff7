"""Run jobs in containers of a Docker or Podman engine, with caches in volumes."""

from backends.docker.backend import DockerBackend

__all__ = ["DockerBackend"]

"""Jobs in containers of a Docker engine, caches on its volumes."""

from backends.docker.backend import DockerBackend

__all__ = ["DockerBackend"]

"""Find backends by name through the entry points `stoke.backends`; load only the one asked for.

Our own backends are entry points too, but are loaded without them: importing `importlib.metadata` and
reading the entry points takes 20 ms of a start.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stoke.errors import RequestError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from stoke.backend.api import Backend
    from stoke.config.model import Config


@dataclass(frozen=True)
class OwnBackend:
    """What the entry point of one of our own backends says."""

    name: str
    module: str
    attr: str

    def load(self) -> Any:
        return getattr(importlib.import_module(self.module), self.attr)


OWN = (
    OwnBackend("local", "backends.local", "LocalBackend"),
    OwnBackend("docker", "backends.docker", "DockerBackend"),
    OwnBackend("argo", "backends.argo", "ArgoBackend"),
)


def backend_names() -> list[str]:
    """Return the names of all backends; loads none of them."""
    return sorted(point.name for point in _entry_points())


def load_backend(name: str, config: Config) -> Backend:
    """Return the backend of that name, not connected yet. Raises `RequestError` if there is none."""
    for point in _entry_points(name):
        if point.name == name:
            backend: Backend = point.load()(config)
            return backend
    raise RequestError(
        "backend",
        f"there is no backend called {name!r}",
        f"choose one of: {', '.join(backend_names())}",
    )


def _entry_points(name: str | None = None) -> Iterable[EntryPoint | OwnBackend]:
    """All entry points, or only our own if it has this name, which no other package can take."""
    own = [backend for backend in OWN if backend.name == name]
    if own:
        return own
    from importlib.metadata import entry_points

    return entry_points(group="stoke.backends")

"""Find backends by name through the entry points `stoke.backends`; load only the one asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.errors import RequestError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from stoke.backend.api import Backend
    from stoke.config.model import Config


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


def _entry_points(name: str | None = None) -> EntryPoints:
    """All entry points, or only our own if they have this name: reading those of every installed
    package takes 10 ms."""
    from importlib.metadata import PackageNotFoundError, distribution, entry_points

    if name is not None:
        try:
            own = distribution("stoke-tui").entry_points.select(group="stoke.backends", name=name)
        except PackageNotFoundError:
            own = None
        if own:
            return own
    return entry_points(group="stoke.backends")

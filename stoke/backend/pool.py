"""The backends in use, each loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from stoke.backend.api import Backend
from stoke.backend.registry import load_backend
from stoke.config.model import Config


class Backends:
    """Load each backend once, by name. `prepare` is called with a backend before each use of it."""

    def __init__(
        self, config: Config, prepare: Callable[[Backend], object] = lambda _: None
    ) -> None:
        self.config = config
        self._prepare = prepare
        self._lock = threading.Lock()
        self._loaded: dict[str, Backend] = {}

    def get(self, name: str) -> Backend:
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_backend(name, self.config)
            self._prepare(self._loaded[name])
            return self._loaded[name]

    def close(self) -> None:
        with self._lock:
            for backend in self._loaded.values():
                backend.close()
            self._loaded.clear()

"""What jobs are submitted and followed with: configuration, backends and history."""

from __future__ import annotations

from stoke.backend.api import Backend
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.config.model import Config
from stoke.history.database import History
from stoke.history.job import Job


class Connection:
    """Safe to use from several threads."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = load_config() if config is None else config
        self.backends = Backends(self.config)
        self.history = History()

    def close(self) -> None:
        """Close the connections to engines and history. Jobs run on."""
        self.backends.close()
        self.history.close()

    def backend_of(self, job: Job) -> Backend:
        return self.backends.get(job.backend)

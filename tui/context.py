"""What the program gives to its screens: configuration, history, backends, clock and services."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from textual.signal import Signal

from stoke.errors import StokeError
from stoke.history.database import History
from tui.jobs_snapshot import JobsSnapshot
from tui.submissions import Submissions
from tui.ui_state import UiState

# Whatever the first frame does not need is imported at first use: the start must not wait for it.
if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.backend.pool import Backends
    from stoke.config.model import Config
    from stoke.jobs.request import Request
    from stoke.request.spec import JobSpec
    from tui.jobs_service import JobsService

Cluster = tuple[str | None, str | None]
"""(context, namespace) of a kubeconfig; None: as configured."""


class Context:
    """Made once by the program and passed to each screen.

    Without a `config`, the default one is loaded when it is first needed. `clock` returns epoch
    seconds. `publish` gets each new snapshot, on another thread; `busy` returns for how many seconds
    log readers should pause.
    """

    def __init__(
        self,
        config: Config | None,
        clock: Callable[[], float] = time.time,
        *,
        signal: Signal[JobsSnapshot],
        publish: Callable[[JobsSnapshot], object],
        show_error: Callable[[StokeError], object],
        busy: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._given_config = config
        self._publish = publish
        self._busy = busy
        self.clock = clock
        self.history = History()
        self.reading = History(self.history.path, read_only=True)
        """A connection for the screens, which does not wait for writers."""
        self.ui_state = UiState(show_error)
        self.snapshot = JobsSnapshot()
        self.snapshots = signal
        """Publishes each new snapshot to the screens that subscribe."""
        self.submissions = Submissions(
            self.history,
            lambda: self.backends,
            self.request,
            lambda: self.jobs.refresh(),
            self.read_only,
        )
        self._clusters = _stored_clusters(self.ui_state.get("clusters"))

    @cached_property
    def config(self) -> Config:
        if self._given_config is not None:
            return self._given_config
        from stoke.config.loader import load_config

        return load_config()

    @property
    def theme(self) -> str | None:
        """The configured theme, or else the one that was chosen last."""
        given = self._given_config
        return (given.theme if given else None) or self.ui_state.get("theme")

    @property
    def read_only(self) -> bool:
        return self._given_config is not None and self._given_config.read_only

    @cached_property
    def backends(self) -> Backends:
        from stoke.backend.pool import Backends

        return Backends(self.config, self._apply_cluster)

    @cached_property
    def jobs(self) -> JobsService:
        """Keeps the history current; the program starts and closes it."""
        from tui.jobs_service import JobsService

        return JobsService(self.config, self.history, self.backends, self._publish, self._busy)

    def request(self, spec: JobSpec, name: str) -> Request:
        """Return `spec` with the settings of the configuration that concern how it runs."""
        from stoke.jobs.request import Request

        return Request.configured(spec, self.config, name=name)

    def fresh_request(self, spec: JobSpec, name: str) -> Request:
        """Return a recorded request with its project as it is now."""
        from dataclasses import replace

        from stoke.config.defaults import with_defaults
        from stoke.project.fresh_request import fresh_request

        fresh, project = fresh_request(spec)
        request = self.request(with_defaults(fresh, self.config, project.settings), name)
        return replace(request, notes=project.notes, project_files=project.extra_files)

    def close(self) -> None:
        self.reading.close()
        self.history.close()

    # --- clusters ---------------------------------------------------------------------------------

    def cluster(self, backend: str) -> Cluster:
        """Return the cluster chosen in New job for this backend."""
        return self._clusters.get(backend, (None, None))

    def choose_cluster(self, backend: str, context: str | None, namespace: str | None) -> None:
        """Send this backend's jobs to another cluster from now on, and after the next start."""
        if (context, namespace) != self.cluster(backend):
            self._clusters[backend] = (context, namespace)
            self.ui_state.set(clusters=self._clusters)

    def _apply_cluster(self, backend: Backend) -> None:
        from stoke.backend.capabilities import ChoosesCluster

        if isinstance(backend, ChoosesCluster):
            backend.choose(*self.cluster(backend.name))


def _stored_clusters(stored: object) -> dict[str, Cluster]:
    """Return the valid choices among those that were stored."""
    found: dict[str, Cluster] = {}
    for backend, choice in stored.items() if isinstance(stored, dict) else ():
        if isinstance(choice, list) and len(choice) == 2:
            context, namespace = (one if isinstance(one, str) else None for one in choice)
            found[str(backend)] = (context, namespace)
    return found

"""The tasks of sweeps in the scheduler: their deliveries, and their ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stoke.delivery.stored_delivery import load_delivery
from stoke.delivery.task_delivery import SweepDelivery
from stoke.errors import EngineError, StokeError
from stoke.files.debug import Logger
from stoke.history.sweeps import Sweeps
from stoke.jobs.refresh import keep_log_budget, reconcile

if TYPE_CHECKING:
    from stoke.backend.api import Backend, Delivery
    from stoke.history.database import History
    from stoke.history.job import Job

_log = Logger(__name__)

FINALIZERS = 2
"""Threads that read the logs of ended tasks. On this machine that is work; engines answer slowly."""
BUDGET_SECONDS = 20.0
"""Seconds between checks of the budget of all logs, which looks at the log of every job."""


RETRY_SECONDS = 5.0
"""Seconds until a task is finalized again that could not be: the disk may be full."""


class SweepTasks:
    """Makes the deliveries of tasks, and finalizes ended tasks on threads of its own.

    `ring` is called when a task has been finalized.
    """

    def __init__(self, history: History, ring: Callable[[], None]) -> None:
        self._history = history
        self._ring = ring
        self._deliveries: dict[str, SweepDelivery] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._in_work: set[str] = set()
        self._retry_at: dict[str, float] = {}
        self._checks_budget_at = time.monotonic() + BUDGET_SECONDS

    def delivery(self, job: Job) -> Delivery:
        """Return the delivery of a task. `EngineError` if what was stored is damaged."""
        sweeps, sweep_id = Sweeps(self._history), job.sweep or ""
        sweep, nonce = sweeps.get(sweep_id), self._history.nonce(job.id)
        if sweep is None or nonce is None or job.task is None:
            raise EngineError(f"the record of the sweep {sweep_id} is damaged")
        delivery = self._deliveries.get(sweep_id)
        if delivery is None:
            delivery = SweepDelivery(load_delivery(sweep_id), sweep.names)
            self._deliveries = {sweep_id: delivery}  # Only of the newest: they may be large.
        values = sweeps.values(sweep_id, job.task)
        return delivery.of_task(job.id, nonce, job.checkpoint, values, job.task)

    def finalize(self, ended: Iterable[Job], backend: Backend) -> None:
        """Read the logs of ended tasks and record their ends, later."""
        for job in ended:
            if job.sweep is None:
                continue
            with self._lock:
                due = self._retry_at.get(job.id, 0.0) <= time.monotonic()
                if not due or job.id in self._in_work:
                    continue
                self._in_work.add(job.id)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(FINALIZERS, "finalizer")
            self._pool.submit(self._finalize, job, backend)

    def _finalize(self, job: Job, backend: Backend) -> None:
        done = False
        try:
            reconcile(job, backend, self._history, collects=True)
            done = True
            if time.monotonic() > self._checks_budget_at:
                self._checks_budget_at = time.monotonic() + BUDGET_SECONDS
                keep_log_budget(self._history)
        except StokeError as error:
            _log.debug("queue: %s was not finalized: %s", job.id, error.what)
        except Exception:
            _log.exception("queue: %s was not finalized", job.id)
        with self._lock:
            self._in_work.discard(job.id)
            self._retry_at.pop(job.id, None)
            if not done:
                self._retry_at[job.id] = time.monotonic() + RETRY_SECONDS
        if done:
            self._ring()

    def close(self) -> None:
        """Wait until no task is being finalized."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

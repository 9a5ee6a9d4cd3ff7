"""Wait for the tasks of sweeps to begin, so that their logs can be followed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stoke.history.sweeps import Sweep, Sweeps, task_id
from stoke.jobs.scheduler_process import wake_scheduler

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.job import Job

LOOK_SECONDS = 0.2
WAKE_SECONDS = 2.0


class BeginningTasks:
    """The tasks that begin while the logs of their sweeps are followed.

    `begun` are the ids of jobs that are followed already.
    """

    def __init__(self, sweeps: list[Sweep], begun: set[str], history: History) -> None:
        self._history = history
        self._sweeps = {sweep.id for sweep in sweeps}
        self._known = set(begun)
        self._wakes_at = 0.0

    def new(self) -> list[Job] | None:
        """Return the tasks that have begun since the last call; None if no others will."""
        if not self._sweeps:
            return None
        found: list[Job] = []
        for sweep_id in list(self._sweeps):
            sweep = Sweeps(self._history).get(sweep_id)
            begun = 0 if sweep is None else sweep.begun
            ids = [task_id(sweep_id, number) for number in range(1, begun + 1)]
            found += self._history.those(name for name in ids if name not in self._known)
            self._known.update(ids)
            if sweep is None or not sweep.has_waiting:
                self._sweeps.discard(sweep_id)
        if time.monotonic() > self._wakes_at:
            self._wakes_at = time.monotonic() + WAKE_SECONDS
            wake_scheduler(self._history)  # The one before may have been killed.
        return found


def wait_for_task(job: Job, number: int, history: History) -> None:
    """Return once a task of a sweep has begun, or never will."""
    wakes_at = 0.0
    while True:
        sweep = Sweeps(history).get(job.id)
        if sweep is None or sweep.begun >= number or not sweep.has_waiting:
            return
        if time.monotonic() > wakes_at:
            wakes_at = time.monotonic() + WAKE_SECONDS
            wake_scheduler(history)  # The one before may have been killed.
        time.sleep(LOOK_SECONDS)


def names_of_all(jobs: list[Job], sweeps: list[Sweep]) -> list[str]:
    """Return the ids of these jobs and of all tasks of these sweeps, begun or not."""
    tasks = (task_id(sweep.id, number) for sweep in sweeps for number in range(1, sweep.tasks + 1))
    return list(dict.fromkeys([*(job.id for job in jobs), *tasks]))

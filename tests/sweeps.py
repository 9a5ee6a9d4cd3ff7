"""Submit sweeps to a laboratory and wait for their ends, as the commands do."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from stoke.backend.pool import Backends
from stoke.history.database import History
from stoke.history.job import Job
from stoke.history.queue import JobQueue, Placement
from stoke.history.sweeps import Sweeps, Task
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import refresh
from stoke.jobs.scheduler_process import wake_scheduler
from stoke.jobs.sweeps import SweepRequest, check_sweep, submit_sweep
from stoke.request.sweep_values import make_table, parse_each
from tests.lab import Lab, until


def sweep_of(
    *each: str, max_parallel: int | None = None, max_fails: int | None = None
) -> SweepRequest:
    table = make_table([parse_each(one) for one in each], in_pairs=False)
    return SweepRequest(table, max_parallel, max_fails)


def submit(lab: Lab, code: str, sweep: SweepRequest, **fields: Any) -> Job:
    request = lab.request(code, **fields)
    with History() as history:
        check_sweep(request.spec, sweep, lab.backend)
        job = submit_sweep(prepare(request, lab.backend, history), sweep, history, Placement())
        wake_scheduler(history)
        return job


def over(lab: Lab, job: Job) -> tuple[Job, list[Task]]:
    """The sweep and its tasks after its end."""
    backends = Backends(lab.config)
    with History() as history:

        def is_over() -> bool:
            found = history.get(job.id)
            assert found is not None
            (fresh,) = refresh([found], backends, history)
            return fresh.state.finished

        until(is_over, f"the end of {job.id}", 180)
        found = history.get(job.id)
        assert found is not None
        return found, list(Sweeps(history).tasks(Sweeps(history).of(found)))


def end_scheduler(lab: Lab) -> None:
    """Wait for the end of the scheduler, which starts nothing more."""
    with History() as history:
        JobQueue(history).pause([lab.backend.name])
    command = [sys.executable, "-P", "-m", "stoke.jobs.scheduler"]
    subprocess.run(command, env=os.environ, timeout=120)

"""Sweeps, on every backend that runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from stoke.backend.pool import Backends
from stoke.errors import RequestError
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue, Placement
from stoke.history.sweeps import Sweeps, Task
from stoke.jobs.control import remove, stop
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import refresh
from stoke.jobs.scheduler_process import wake_scheduler
from stoke.jobs.sweep_report import last_line
from stoke.jobs.sweeps import SweepRequest, check_sweep, submit_sweep
from stoke.request.sweep_values import make_table, parse_each
from tests.lab import Lab, until
from tests.package_index import PackageIndex


@pytest.fixture(autouse=True)
def end_of_scheduler(lab: Lab) -> Iterator[None]:
    yield
    with History() as history:
        JobQueue(history).pause([lab.backend.name])
    command = [sys.executable, "-P", "-m", "stoke.jobs.scheduler"]
    subprocess.run(command, env=os.environ, timeout=120)


def sweep_of(*each: str, max_parallel: int | None = None) -> SweepRequest:
    return SweepRequest(make_table([parse_each(one) for one in each], in_pairs=False), max_parallel)


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


def skip_without_sweeps(lab: Lab) -> None:
    if lab.backend.capabilities.pods:
        with pytest.raises(RequestError) as caught:
            check_sweep(lab.request("1").spec, sweep_of("n=1"), lab.backend)
        assert caught.value.why == f"the {lab.backend.name} backend runs no sweeps"
        pytest.skip("it refuses sweeps")


def test_a_sweep_runs_its_tasks_in_one_environment(lab: Lab) -> None:
    skip_without_sweeps(lab)
    index = PackageIndex(lab.address)
    index.add("alpha", "1.0")
    try:
        code = (
            "import alpha, os, sys; print(*sys.argv[1:], os.environ['STOKE_TASK_Q'])\n"
            "sys.exit(os.environ['STOKE_TASK_N'] == '2')"
        )
        job = submit(
            lab, code, sweep_of("n=1..3", "q=a'b"), dependencies=("alpha",), args=("<{q}>",),
            index={"url": index.url},
        )  # fmt: skip
        done, tasks = over(lab, job)
    finally:
        index.stop()
    assert (done.state, done.exit_code) == (JobState.FAILED, 1)
    assert [str(task.state) for task in tasks] == ["succeeded", "failed", "succeeded"]
    assert [last_line(task.job) for task in tasks] == [
        f"<a'b> --n {number} a'b" for number in (1, 2, 3)
    ]
    keys = {
        phase.key
        for task in tasks
        if task.job is not None
        for phase in task.job.phases
        if phase.name == "python"
    }
    assert len(keys) == 1 and None not in keys
    with History() as history:
        assert JobQueue(history).ids() == set()
        remove(done, lab.backend, history)
        assert history.list(tasks=True) == []
    for task in tasks:
        assert task.job is not None and lab.backend.inspect(task.job.id).status == "absent"


def test_a_sweep_is_stopped(lab: Lab) -> None:
    skip_without_sweeps(lab)
    job = submit(lab, "import time; time.sleep(600)", sweep_of("n=1..5", max_parallel=1))
    with History() as history:

        def runs() -> bool:
            refresh([job], Backends(lab.config), history)
            return any(
                task.state is JobState.RUNNING
                for task in Sweeps(history).tasks(Sweeps(history).of(job))
            )

        until(runs, "a task that runs", 120)
        stop(job, lab.backend, history, 0)
    done, tasks = over(lab, job)
    assert done.state is JobState.STOPPED and done.reason == "5 of 5 tasks were stopped"
    assert [task.job is not None for task in tasks] == [True, False, False, False, False]

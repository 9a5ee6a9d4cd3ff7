"""Sweeps, on every backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stoke.backend.pool import Backends
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.history.queue import JobQueue
from stoke.history.sweeps import Sweeps
from stoke.jobs.control import remove, stop
from stoke.jobs.refresh import refresh
from stoke.jobs.sweep_report import last_line
from tests.lab import Lab, until
from tests.package_index import PackageIndex
from tests.sweeps import end_scheduler, over, submit, sweep_of


@pytest.fixture(autouse=True)
def end_of_scheduler(lab: Lab) -> Iterator[None]:
    yield
    end_scheduler(lab)


def test_a_sweep_runs_its_tasks_in_one_environment(lab: Lab) -> None:
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

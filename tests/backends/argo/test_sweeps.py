"""Sweeps on a cluster, whose tasks Argo starts also while no stoke process runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from backends.argo.cluster import ApiError, Cluster, pods_path, workflows_path
from backends.argo.status import is_over
from backends.argo.task_names import pod_of
from stoke.backend.pool import Backends
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.history.sweeps import Sweeps, Task
from stoke.jobs.control import stop
from stoke.jobs.refresh import refresh
from stoke.jobs.sweep_report import last_line
from stoke.results.store import results_folder
from tests.cli.test_queue import scheduler_pid
from tests.cluster.manifests import EXECUTOR_ACCOUNT
from tests.conftest import TestCluster
from tests.contract.conftest import open_lab
from tests.hints import command, refused
from tests.lab import Lab, until
from tests.sweeps import end_scheduler, over, submit, sweep_of

pytestmark = pytest.mark.cluster

PRINT = "import os; print('task', os.environ['STOKE_TASK_N'])"


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, real_cluster: TestCluster
) -> Iterator[Lab]:
    if not real_cluster.service_account:  # Argo counts a task that may not report as failed.
        monkeypatch.setenv("STOKE_ARGO__SERVICE_ACCOUNT", EXECUTOR_ACCOUNT)
    for one in open_lab("argo", request, monkeypatch):
        yield one
        end_scheduler(one)


def workflow_of(api: Cluster, job: Job) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = api.request("GET", workflows_path(api.namespace, job.id))
    except ApiError as error:
        assert error.status == 404
        return None
    return found


def begun(tasks: list[Task]) -> list[bool]:
    return [task.job is not None for task in tasks]


def states(tasks: list[Task]) -> list[str]:
    return [str(task.state) for task in tasks]


def task_runs(lab: Lab, job: Job, number: int) -> bool:
    with History() as history:
        refresh([job], Backends(lab.config), history)
        (task,) = Sweeps(history).tasks(Sweeps(history).of(job), [number])
        return task.state is JobState.RUNNING


def kill_scheduler() -> None:
    def is_gone() -> bool:
        pid = scheduler_pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid is None

    until(is_gone, "the end of the scheduler")


def test_argo_starts_no_more_tasks_after_a_failure(lab: Lab, api: Cluster) -> None:
    code = f"{PRINT}; import sys; sys.exit(os.environ['STOKE_TASK_N'] == '2')"
    job = submit(lab, code, sweep_of("n=1..6", max_parallel=1, max_fails=0))
    done, tasks = over(lab, job)
    assert states(tasks) == ["succeeded", "failed", *["stopped"] * 4], tasks
    assert done.state is JobState.FAILED
    assert begun(tasks) == [True, True, *[False] * 4]
    with History() as history:
        sweep = Sweeps(history).get(job.id)
    assert sweep is not None and sweep.closed == "a task failed"


def test_a_sweep_goes_on_without_a_client_which_then_catches_up(lab: Lab, api: Cluster) -> None:
    job = submit(lab, PRINT, sweep_of("n=1..3"))
    until(lambda: workflow_of(api, job) is not None, "the workflow", 60)
    kill_scheduler()

    def ended() -> bool:
        found = workflow_of(api, job)
        return found is not None and is_over(found)

    until(ended, "the end of the workflow", 120)
    # A log that nothing has read is lost with its pod; the end of the task is not.
    api.request("DELETE", pods_path(api.namespace, pod_of(f"{job.id}-2")))
    until(lambda: pod(api, job, 2) is None, "the end of the pod", 60)
    done, tasks = over(lab, job)
    assert states(tasks) == ["succeeded"] * 3, [task.job and task.job.reason for task in tasks]
    assert done.state is JobState.SUCCEEDED
    assert [last_line(task.job) for task in tasks] == ["task 1", "", "task 3"]
    lost = tasks[1].job
    assert lost is not None and lost.exit_code == 0
    assert lost.reason == "its log was deleted before all of it was read"


def pod(api: Cluster, job: Job, number: int) -> dict[str, Any] | None:
    try:
        path = pods_path(api.namespace, pod_of(f"{job.id}-{number}"))
        found: dict[str, Any] = api.request("GET", path)
    except ApiError as error:
        assert error.status == 404
        return None
    return found


def test_a_task_whose_pod_is_deleted_fails_alone(lab: Lab, api: Cluster) -> None:
    code = f"{PRINT}; import time; time.sleep(600 if os.environ['STOKE_TASK_N'] == '1' else 0)"
    job = submit(lab, code, sweep_of("n=1..2"))

    def argo_has_seen_it_run() -> bool:
        nodes = ((workflow_of(api, job) or {}).get("status") or {}).get("nodes") or {}
        running = [one for one in nodes.values() if one.get("displayName") == "task(0:1)"]
        return any(one["phase"] == "Running" for one in running)

    until(argo_has_seen_it_run, "the first task", 120)
    api.request(
        "DELETE", pods_path(api.namespace, pod_of(f"{job.id}-1")), query={"gracePeriodSeconds": "1"}
    )
    done, tasks = over(lab, job)
    assert done.state is JobState.FAILED
    assert tasks[0].state in (JobState.FAILED, JobState.STOPPED, JobState.LOST)
    assert tasks[0].job is not None and "deleted" in (tasks[0].job.reason or "")
    assert tasks[1].state is JobState.SUCCEEDED


def test_all_running_tasks_are_stopped_at_once(lab: Lab, api: Cluster) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('told to end'))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    job = submit(lab, code, sweep_of("n=1..4", max_parallel=2))
    until(lambda: task_runs(lab, job, 1) and task_runs(lab, job, 2), "two tasks", 120)
    with History() as history:
        stop(job, lab.backend, history, 5)
    done, tasks = over(lab, job)
    assert (done.state, states(tasks)) == (JobState.STOPPED, ["stopped"] * 4)
    # Argo may have started others before it saw that the sweep is stopped.
    assert begun(tasks)[:2] == [True, True]
    found = workflow_of(api, job)
    assert found is not None and is_over(found)


def test_a_task_that_waits_for_its_pod_is_stopped_with_its_sweep(lab: Lab, api: Cluster) -> None:
    job = submit(lab, PRINT, sweep_of("n=1..2"), cpu=1000)
    until(lambda: pod(api, job, 1) is not None, "the pod", 60)
    hint = refused(
        lambda: lab.backend.stop(f"{job.id}-1", 0), "stop the whole sweep: stoke stop {}"
    )
    assert command(hint) == ["stop", job.id]
    with History() as history:
        stop(job, lab.backend, history, 0)
    done, tasks = over(lab, job)
    assert (done.state, states(tasks)) == (JobState.STOPPED, ["stopped"] * 2)
    assert pod(api, job, 1) is None


def test_a_sweep_that_is_stopped_in_the_queue_never_reaches_the_cluster(
    lab: Lab, api: Cluster
) -> None:
    with History() as history:
        JobQueue(history).pause(["argo"])
        job = submit(lab, PRINT, sweep_of("n=1..3"))
        stop(job, lab.backend, history, 0)
        JobQueue(history).resume(["argo"])
        done = history.get(job.id)
        assert done is not None and done.state is JobState.STOPPED
        assert JobQueue(history).ids() == set()
    assert workflow_of(api, job) is None


def test_a_sweep_that_cannot_start_ends_with_the_reason(lab: Lab, api: Cluster) -> None:
    job = submit(lab, PRINT, sweep_of("n=1..2"), image="not/a:valid:name")
    done, tasks = over(lab, job)
    assert done.state is JobState.FAILED
    reasons = [task.job.reason or "" for task in tasks if task.job is not None]
    assert reasons and any("cannot pull the image" in reason for reason in reasons)


def test_each_task_keeps_its_own_results(lab: Lab) -> None:
    code = (
        f"{PRINT}; open(os.environ['STOKE_RESULTS'] + '/n', 'w').write(os.environ['STOKE_TASK_N'])"
    )
    job = submit(lab, code, sweep_of("n=7,8"))
    _, tasks = over(lab, job)
    assert states(tasks) == ["succeeded"] * 2
    jobs = [task.job.id for task in tasks if task.job is not None]

    def are_collected() -> bool:
        with History() as history:
            found = [history.get(one) for one in jobs]
        return all(one is not None and one.results_at is not None for one in found)

    until(are_collected, "the results", 120)
    assert [(results_folder(one) / "n").read_text() for one in jobs] == ["7", "8"]

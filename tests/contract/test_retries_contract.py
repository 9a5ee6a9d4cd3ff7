"""Jobs that are run again, on every backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.argo.cluster import Cluster, pods_path
from backends.local.folders import job_folder
from stoke.backend.api import Cause
from stoke.history.attempts import NONE, Attempts
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs.prepare import prepare
from stoke.jobs.submit import submit
from tests.lab import Lab, until

COUNTS = """
import os, sys, time
path = os.environ["STOKE_CHECKPOINT"] + "/runs"
number = len(open(path).read()) + 1 if os.path.exists(path) else 1
open(path, "a").write(".")
print("run", number, flush=True)
"""


@pytest.fixture(autouse=True)
def end_of_scheduler(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STOKE_QUEUE__RETRY_DELAY", "0.1")
    yield
    with History() as history:
        for job_id in Attempts(history).undecided():
            Attempts(history).decide(job_id, NONE)
        JobQueue(history).pause([lab.backend.name])
    # The scheduler ends as soon as nothing waits. This one has nothing to do, or finds the lock taken.
    command = [sys.executable, "-P", "-m", "stoke.jobs.scheduler"]
    subprocess.run(command, env=os.environ, timeout=120)


def start(lab: Lab, code: str, **fields: Any) -> Job:
    with History() as history:
        prepared = prepare(lab.request(code, name="train", **fields), lab.backend, history)
        return submit(prepared, history)


def last_of(job: Job, number: int) -> Job:
    """The attempt with this number, once the scheduler, which nothing helps, has decided that it is the
    last one."""
    last = f"{job.id}-r{number}" if number > 1 else job.id
    with History() as history:

        def is_over() -> bool:
            attempt = Attempts(history).of(last)
            return attempt is not None and attempt.next is not None

        until(is_over, f"the end of {last}", 120)
        found = history.get(last)
        attempts = Attempts(history).all_of(job.id)
    assert found is not None and len(attempts) == number, attempts
    return found


def cause_of(job: Job) -> str | None:
    with History() as history:
        attempt = Attempts(history).of(job.id)
    assert attempt is not None
    return attempt.cause


def test_a_job_is_run_again_with_its_checkpoint_and_its_secrets(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIDDEN", "s3cret")
    code = COUNTS + "print(os.environ['TOKEN'][::-1]); sys.exit(0 if number == 3 else 75)"
    job = start(lab, code, retries=4, retry_exit=[1, 75], secrets={"TOKEN": "env:HIDDEN"})
    monkeypatch.delenv("HIDDEN")
    last = last_of(job, 3)
    assert last.state is JobState.SUCCEEDED, last
    with History() as history:
        each = [history.get(one.job_id) for one in Attempts(history).all_of(job.id)]
    assert [one.exit_code for one in each if one] == [75, 75, 0]
    for number, one in enumerate(each, 1):
        assert one is not None
        assert lab.output(one, 1) == b"run %d\nterc3s\n" % number
        assert "run" in [phase.name for phase in one.phases]


def test_what_is_the_fault_of_the_job_is_not_run_again(lab: Lab) -> None:
    fields: dict[str, Any] = {"retries": 2, "retry_exit": [75]}
    assert last_of(start(lab, "raise SystemExit(1)", **fields), 1).exit_code == 1
    job = start(lab, "import time; time.sleep(600)", timeout=2, **fields)
    assert last_of(job, 1).reason == "timeout"
    if lab.backend.capabilities.limits:
        job = start(lab, "x = b'1' * (1 << 30)", memory="64m", **fields)
        assert last_of(job, 1).reason == "out of memory"
    assert cause_of(job) is None


def kill_supervisor(lab: Lab, job: Job, api: Cluster | None) -> Cause | None:
    os.kill(json.loads((job_folder(job.id) / "started.json").read_text())["pid"], signal.SIGKILL)
    return Cause.SUPERVISOR_LOST


def kill_container(lab: Lab, job: Job, api: Cluster | None) -> Cause | None:
    """A person's decision, as `docker stop` is. An engine's restart is in test_engine_restart.py."""
    subprocess.run(["docker", "kill", job.id], check=True, capture_output=True)
    return None


def evict(lab: Lab, job: Job, api: Cluster | None) -> Cause | None:
    """The scheduler looks once a second, and may find the pod deleted already."""
    assert api is not None
    about = {"name": job.id, "namespace": api.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about}
    api.request("POST", f"{pods_path(api.namespace, job.id)}/eviction", body=body, shape={})
    return Cause.EVICTED


Loses = Callable[[Lab, Job, Cluster | None], Cause | None]
LOSES: dict[str, Loses] = {"local": kill_supervisor, "docker": kill_container, "argo": evict}


def test_a_job_that_its_engine_lost_is_run_again(lab: Lab, request: pytest.FixtureRequest) -> None:
    api = request.getfixturevalue("api") if lab.backend.name == "argo" else None
    job = start(lab, COUNTS + "time.sleep(600 if number == 1 else 0)", retries=1)
    tracker = lab.track(job)
    lab.until_output(job, b"run 1\n")
    tracker.close()
    cause = LOSES[lab.backend.name](lab, job, api)
    last = last_of(job, 1 if cause is None else 2)
    assert cause_of(job) in (cause, cause and Cause.POD_DELETED)
    if cause is not None:
        assert last.state is JobState.SUCCEEDED, last
        assert lab.output(last, 1) == b"run 2\n"

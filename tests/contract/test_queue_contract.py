"""Jobs that wait for others, on every backend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from stoke.backend.pool import Backends
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import Dependency, JobQueue, Placement
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import refresh
from stoke.jobs.submit import submit
from stoke.jobs.turns import Turn
from tests.lab import Lab, until


@pytest.fixture(autouse=True)
def end_of_scheduler(lab: Lab) -> Iterator[None]:
    yield
    with History() as history:
        JobQueue(history).pause([lab.backend.name])
    # The scheduler ends as soon as nothing waits. This one has nothing to do, or finds the lock taken.
    command = [sys.executable, "-P", "-m", "stoke.jobs.scheduler"]
    subprocess.run(command, env=os.environ, timeout=120)


def enqueue(lab: Lab, code: str, *after: Dependency, **fields: Any) -> Job:
    with History() as history:
        prepared = prepare(lab.request(code, **fields), lab.backend, history)
        return submit(prepared, history, queue=Turn(Placement(after=after), lab.config))


def over(lab: Lab, job: Job) -> Job:
    backends = Backends(lab.config)
    with History() as history:

        def is_over() -> bool:
            found = history.get(job.id)
            assert found is not None
            (fresh,) = refresh([found], backends, history)
            return fresh.state.finished and not fresh.provisional

        until(is_over, f"the end of {job.id}", 120)
        found = history.get(job.id)
        assert found is not None
        return found


def test_a_job_follows_another(lab: Lab) -> None:
    first = enqueue(lab, "print('first')")
    then = enqueue(lab, "print('then')", Dependency(first.id))
    with History() as history:
        assert JobQueue(history).has(then.id) and not JobQueue(history).has(first.id)
    done = over(lab, then)
    assert (done.state, done.reason) == (JobState.SUCCEEDED, None)
    before = over(lab, first)
    assert before.finished_at is not None and done.started_at is not None
    assert lab.output(then, 1) == b"then\n"
    assert "queue" in [phase.name for phase in done.phases]


def test_a_job_that_follows_a_failed_one_never_starts(lab: Lab) -> None:
    first = enqueue(lab, "raise SystemExit(3)")
    then = enqueue(lab, "print('then')", Dependency(first.id))
    anyway = enqueue(lab, "print('anyway')", Dependency(first.id, any_end=True))
    assert over(lab, anyway).state is JobState.SUCCEEDED
    done = over(lab, then)
    assert done.state is JobState.STOPPED
    assert done.reason == f"never started: {first.id}, which it follows, failed"
    assert lab.backend.inspect(then.id).status == "absent"


def test_secrets_and_packages_of_a_waiting_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", "s3cret")
    first = enqueue(lab, "print('first')")
    code = "import os; print(os.environ['TOKEN'][::-1])"
    then = enqueue(lab, code, Dependency(first.id), secrets={"TOKEN": "env:HIDDEN"})
    monkeypatch.delenv("HIDDEN")
    assert over(lab, then).state is JobState.SUCCEEDED
    assert lab.output(then, 1) == b"terc3s\n"

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
    """Put a job into the queue; `fields` are those of `Lab.request`."""
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


WRITES = """
import os
top = os.environ["STOKE_RESULTS"]
os.makedirs(top + "/deep/er")
open(top + "/scores.csv", "w").write("epoch,loss")
open(os.fsencode(top) + b"/deep/er/\\xff", "wb").write(bytes(range(256)) * 5000)
open(top + "/run.sh", "w").write("#!/bin/sh")
os.chmod(top + "/run.sh", 0o755)
"""
READS = """
import os, stat
top = os.environ["STOKE_INPUTS"]
for folder, folders, files in sorted(os.walk(top)):
    print(os.path.relpath(folder, top), oct(stat.S_IMODE(os.stat(folder).st_mode)))
    for name in sorted(files):
        path = os.path.join(folder, name)
        size, mode = os.stat(path).st_size, oct(stat.S_IMODE(os.stat(path).st_mode))
        print(ascii(os.path.relpath(path, top)), size, mode)
print(open(top + "/prepare/scores.csv").read())
"""


def test_a_job_finds_the_results_of_the_jobs_that_it_follows(lab: Lab) -> None:
    first = enqueue(lab, WRITES, name="prepare")
    empty = enqueue(lab, "raise SystemExit(3)", name="check")
    then = enqueue(lab, READS, Dependency(first.id), Dependency(empty.id, any_end=True))
    done = over(lab, then)
    assert done.state is JobState.SUCCEEDED, (done, lab.output(then, 2))
    assert lab.output(then, 1).decode().splitlines() == [
        ". 0o555",
        "check 0o555",
        "prepare 0o555",
        "'prepare/run.sh' 9 0o555",
        "'prepare/scores.csv' 10 0o444",
        "prepare/deep 0o555",
        "prepare/deep/er 0o555",
        r"'prepare/deep/er/\udcff' 1280000 0o444",
        "epoch,loss",
    ]


def test_jobs_of_one_name_are_found_by_their_ids_and_other_jobs_have_no_inputs(lab: Lab) -> None:
    code = "import os; print('STOKE_INPUTS' in os.environ)"
    first, second = (enqueue(lab, code, name="part") for _ in range(2))
    code = "import os; print(*sorted(os.listdir(os.environ['STOKE_INPUTS'])))"
    then = enqueue(lab, code, Dependency(first.id), Dependency(second.id))
    assert over(lab, then).state is JobState.SUCCEEDED, lab.output(then, 2)
    assert lab.output(then, 1).decode().split() == sorted([first.id, second.id])
    over(lab, first)
    assert lab.output(first, 1) == b"False\n"


def test_results_beyond_the_limit_are_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_RESULTS__MAX_INPUTS", "4m")
    first = enqueue(
        lab, "import os; open(os.environ['STOKE_RESULTS'] + '/a', 'wb').write(bytes(5 << 20))"
    )
    then = enqueue(lab, "print('then')", Dependency(first.id))
    done = over(lab, then)
    assert (done.state, done.exit_code) == (JobState.FAILED, 125)
    assert done.reason == (
        f"after: the results of {first.id} have 5.0 MiB, and a job gets at most 4.0 MiB of the jobs "
        "that it follows"
    )
    with History() as history:
        (note,) = history.notes(then.id)
    assert note.hint is not None and note.hint.endswith("export STOKE_RESULTS__MAX_INPUTS=10m")

"""Sweeps in the history: rows of values that become jobs in their order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue, Placement
from stoke.history.sweeps import ATTENTION, Sweeps, task_id
from stoke.request.sweep_values import Table
from tests.history.records import job

SWEEP = "fit-aaaaaa"
SPEC = json.dumps({"code": "1", "args": ["{n}"], "env": {"A": "b"}})


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "h.sqlite") as history:
        yield history


def add(history: History, tasks: int, sweep_id: str = SWEEP, priority: int = 0) -> Sweeps:
    sweeps = Sweeps(history)
    with history.transaction():
        history.add(job(sweep_id, checkpoint="fit"), SPEC, "n")
        JobQueue(history).add(sweep_id, Placement(priority))
        sweeps.add(sweep_id, Table(("n",), [(f"v{number}",) for number in range(1, tasks + 1)]))
    return sweeps


def begun(sweeps: Sweeps, history: History) -> Job:
    task = sweeps.begin_next(SWEEP)
    assert task is not None
    found = history.get(task.job_id)
    assert found is not None
    return found


def test_tasks_become_jobs_in_their_order_at_the_place_of_the_sweep(history: History) -> None:
    sweeps = add(history, 2, priority=3)
    history.add(job("other-aaaaaa"), SPEC, "n")
    JobQueue(history).add("other-aaaaaa", Placement(3))
    first = begun(sweeps, history)
    assert (first.id, first.sweep, first.task) == (f"{SWEEP}-1", SWEEP, 1)
    assert (first.state, first.kind, first.name) == (JobState.QUEUED, "code", "fit")
    assert [one.id for one in JobQueue(history).waiting()] == [SWEEP, first.id, "other-aaaaaa"]
    assert begun(sweeps, history).id == f"{SWEEP}-2"
    assert sweeps.begin_next(SWEEP) is None
    assert history.nonce(f"{SWEEP}-1") != history.nonce(f"{SWEEP}-2")


def test_a_task_has_the_request_of_its_sweep_with_its_values(history: History) -> None:
    add(history, 2)
    task = begun(Sweeps(history), history)
    assert json.loads(history.spec(task.id) or "") == {
        "code": "1", "args": ["v1"], "env": {"A": "b", "STOKE_TASK_ID": "1", "STOKE_TASK_N": "v1"},
    }  # fmt: skip
    assert task.checkpoint == 'fit ["v1"]'


def test_a_closed_sweep_begins_no_task(history: History) -> None:
    sweeps = add(history, 3)
    begun(sweeps, history)
    sweeps.close(SWEEP, "enough")
    sweeps.close(SWEEP, "again")
    assert sweeps.begin_next(SWEEP) is None
    sweep = sweeps.get(SWEEP)
    assert sweep is not None and sweep.closed == "enough" and not sweep.has_waiting
    assert sweeps.states(sweep) == [JobState.QUEUED, JobState.STOPPED, JobState.STOPPED]


def test_listings_have_sweeps_and_not_their_tasks(history: History) -> None:
    sweeps = add(history, 2)
    task = begun(sweeps, history)
    assert [one.id for one in history.list()] == [SWEEP]
    assert {one.id for one in history.list(tasks=True)} == {SWEEP, task.id}
    assert [one.id for one in history.list(unfinished=True)] == [SWEEP]
    assert history.find("fit").id == SWEEP
    assert history.find(task.id).id == task.id


def test_a_sweep_is_removed_with_its_rows(history: History) -> None:
    add(history, 2)
    history.remove(SWEEP)
    assert Sweeps(history).get(SWEEP) is None
    assert history.query("SELECT * FROM sweep_tasks") == []


def test_a_running_task_is_work_also_in_a_paused_queue(history: History) -> None:
    sweeps, queue = add(history, 2), JobQueue(history)
    task = begun(sweeps, history)
    queue.pause(["local"])
    assert not queue.has_work()
    queue.remove(task.id)
    history.update(task.id, state=JobState.STARTING)
    assert queue.has_work()
    history.update(task.id, state=JobState.SUCCEEDED)
    assert not queue.has_work()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    states=st.lists(st.sampled_from(list(JobState)), max_size=40),
    waiting=st.integers(0, 20),
    width=st.integers(1, 50),
    closed=st.booleans(),
)
def test_a_strip_shows_the_state_that_needs_attention_most(
    tmp_path_factory: pytest.TempPathFactory,
    states: list[JobState],
    waiting: int,
    width: int,
    closed: bool,
) -> None:
    tasks = len(states) + waiting
    if not tasks:
        return
    with History(tmp_path_factory.mktemp("strip") / "h.sqlite") as history, history.transaction():
        history.add(job(SWEEP), SPEC, "n")
        sweeps = Sweeps(history)
        sweeps.add(SWEEP, Table(("n",), [("v",)] * tasks))
        history.query("UPDATE sweeps SET begun = ?", (len(states),))
        for number, state in enumerate(states, 1):
            history.query(
                "INSERT INTO jobs (id, name, backend, scope, state, submitted_at, sweep, task) "
                "VALUES (?, 'fit', 'local', 'default', ?, 1, ?, ?)",
                (task_id(SWEEP, number), state.value, SWEEP, number),
            )
        if closed:
            sweeps.close(SWEEP, "enough")
        sweep = sweeps.get(SWEEP)
        assert sweep is not None
        every = states + [JobState.STOPPED if closed else JobState.QUEUED] * waiting
        assert [ATTENTION[one] for one in sweeps.states(sweep)] == [ATTENTION[one] for one in every]
        counts = sweeps.counts(sweep)
        assert sum(counts.states.values()) == tasks
        assert counts.failed == sum(one in (JobState.FAILED, JobState.LOST) for one in every)
        cells = min(width, tasks)
        expected: list[list[JobState]] = [[] for _ in range(cells)]
        for at, state in enumerate(every):
            expected[at * cells // tasks].append(state)
        assert [ATTENTION[one] for one in sweeps.strip(sweep, width)] == [
            min(ATTENTION[one] for one in cell) for cell in expected
        ]

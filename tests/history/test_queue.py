"""The order of the queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import Dependency, JobQueue, Placement


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.sqlite") as history:
        yield history


def add(history: History, job_id: str, placement: Placement, backend: str = "local") -> None:
    history.add(Job(job_id, job_id, backend, "default", JobState.QUEUED, 1.0), None, None)
    JobQueue(history).add(job_id, placement)


def order(history: History) -> list[str]:
    return [job.id for job in JobQueue(history).waiting("local")]


MOVES = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 10)), max_size=30)


@settings(suppress_health_check=list(HealthCheck), max_examples=60)
@given(priorities=st.lists(st.integers(-1, 1), min_size=1, max_size=8), moves=MOVES)
def test_a_moved_job_has_the_place_that_was_asked_for(
    priorities: list[int], moves: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with History(tmp_path_factory.mktemp("queue") / "history.sqlite") as history:
        queue = JobQueue(history)
        for number, priority in enumerate(priorities):
            add(history, f"job-{number}", Placement(priority))
        add(history, "elsewhere", Placement(), "docker")
        ranks = sorted(range(len(priorities)), key=lambda number: -priorities[number])
        assert order(history) == [f"job-{number}" for number in ranks]
        for number, place in moves:
            before = order(history)
            moved = before[number % len(before)]
            (job,) = [one for one in queue.waiting("local") if one.id == moved]
            queue.move(job, place)
            others = [one for one in before if one != moved]
            others.insert(min(place - 1, len(others)), moved)
            assert order(history) == others


def test_what_is_stored_comes_back(history: History) -> None:
    after = (Dependency("a"), Dependency("b", True))
    add(history, "job", Placement(4, after))
    (job,) = JobQueue(history).waiting()
    assert (job.id, job.backend, job.priority, job.after) == ("job", "local", 4, after)


def test_a_removed_job_leaves_the_queue(history: History) -> None:
    add(history, "job", Placement())
    assert JobQueue(history).has("job") and JobQueue(history).has_work()
    history.remove("job")
    assert not JobQueue(history).has("job") and not JobQueue(history).has_work()


def test_a_paused_queue_has_no_work(history: History) -> None:
    queue = JobQueue(history)
    add(history, "job", Placement())
    queue.pause(["docker"])
    assert queue.has_work()
    queue.pause(["local", "local"])
    assert not queue.has_work() and queue.paused() == {"docker", "local"}
    queue.resume(["local"])
    assert queue.has_work()


def test_damaged_rows_are_read_as_far_as_they_can(history: History) -> None:
    add(history, "job", Placement())
    history.query("UPDATE queue SET after = 'nonsense', priority = 'much'")
    (job,) = JobQueue(history).waiting()
    assert (job.priority, job.after) == (0, ())

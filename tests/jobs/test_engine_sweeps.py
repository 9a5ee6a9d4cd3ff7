"""Sweeps whose tasks their engine starts: the scheduler submits and follows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stoke.backend.api import Delivery, EngineState, UnsettledSubmitError
from stoke.backend.capabilities import NotStartedError, RunsSweeps, SweepPlan, SweepProgress
from stoke.errors import EngineError
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue, Placement
from stoke.history.sweeps import Sweeps, task_id
from stoke.jobs.control import stop
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.scheduler import Scheduler
from stoke.jobs.sweeps import SweepRequest, submit_sweep, waits_for_submission
from stoke.request.spec import JobSpec, make_spec
from stoke.request.sweep_values import make_table, parse_each
from tests.jobs.test_scheduler import OneBackend
from tests.scripted import ABSENT, RUNNING, ScriptedBackend

SILENT = EngineError("the engine does not answer")


class SweepEngine(ScriptedBackend):
    """Has the sweeps that it was given; the test says how far they are."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: dict[str, SweepPlan] = {}
        self.progress = SweepProgress(False, 0)
        self.on_sweep: BaseException | None = None
        """What `submit_sweep` raises once the engine has the sweep."""
        self.silence: EngineError | None = None

    def check_sweep(
        self, spec: JobSpec, rows: Sequence[Sequence[str]], max_fails: int | None
    ) -> None:
        pass

    def submit_sweep(self, delivery: Delivery, plan: SweepPlan) -> None:
        self._answer()
        self.plans[delivery.job_id] = plan
        if self.on_sweep is not None:
            raise self.on_sweep

    def sweep_progress(self, sweep_id: str) -> SweepProgress:
        self._answer()
        return self.progress

    def inspect(self, job_id: str) -> EngineState:
        self._answer()
        return RUNNING if any(job_id.startswith(one) for one in self.plans) else ABSENT

    def remove(self, job_id: str) -> None:
        self._answer()
        super().remove(job_id)
        self.plans.pop(job_id, None)

    def _answer(self) -> None:
        if self.silence is not None:
            raise self.silence


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    with History() as history:
        yield history


@pytest.fixture
def engine() -> SweepEngine:
    engine = SweepEngine()
    assert isinstance(engine, RunsSweeps)
    return engine


def put(history: History, engine: SweepEngine, max_fails: int | None = None) -> str:
    """Put a sweep of three tasks into the queue."""
    table = make_table([parse_each("n=1..3")], in_pairs=False)
    prepared = prepare(Request(make_spec({"code": "pass"})), engine, history)
    return submit_sweep(prepared, SweepRequest(table, 2, max_fails), history, Placement()).id


def look(history: History, engine: SweepEngine) -> None:
    Scheduler(OneBackend(engine), history).start_due()


def found(history: History, job_id: str) -> Job:
    job = history.get(job_id)
    assert job is not None
    return job


def closed(history: History, sweep_id: str) -> str | None:
    sweep = Sweeps(history).get(sweep_id)
    assert sweep is not None
    return sweep.closed


def end(history: History, sweep_id: str, number: int, state: JobState) -> None:
    history.update(task_id(sweep_id, number), state=state, finished_at=1.0)


def test_started_tasks_become_jobs(history: History, engine: SweepEngine) -> None:
    sweep_id = put(history, engine)
    look(history, engine)
    assert engine.plans[sweep_id].max_parallel == 2
    assert len(engine.plans[sweep_id].tasks) == 3
    assert found(history, sweep_id).state is JobState.STARTING
    engine.progress = SweepProgress(False, 2)
    look(history, engine)
    assert found(history, sweep_id).state is JobState.RUNNING
    assert found(history, task_id(sweep_id, 2)).state is JobState.STARTING
    assert history.get(task_id(sweep_id, 3)) is None


def test_a_sweep_is_submitted_again_if_its_scheduler_was_killed(
    history: History, engine: SweepEngine
) -> None:
    sweep_id = put(history, engine)
    engine.on_sweep = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        look(history, engine)
    assert waits_for_submission(sweep_id)
    engine.on_sweep = None
    look(history, engine)
    assert not waits_for_submission(sweep_id)
    assert list(engine.plans) == [sweep_id]


def test_the_engine_is_not_asked_to_stop_a_sweep_that_it_never_got(
    history: History, engine: SweepEngine
) -> None:
    sweep_id = put(history, engine)
    engine.silence = SILENT
    look(history, engine)
    waits = found(history, sweep_id)
    assert (waits.state, waits.reason) == (JobState.QUEUED, SILENT.what)
    stop(waits, engine, history, 5)
    assert found(history, sweep_id).state is JobState.STOPPED
    assert JobQueue(history).ids() == set()


def test_a_sweep_that_the_engine_may_have_is_stopped_once_it_answers(
    history: History, engine: SweepEngine
) -> None:
    sweep_id = put(history, engine)
    engine.on_sweep = UnsettledSubmitError(
        sweep_id, EngineError("the connection was lost"), may_have_begun=True
    )
    look(history, engine)
    assert waits_for_submission(sweep_id)
    engine.silence, engine.on_sweep = SILENT, None
    with pytest.raises(EngineError, match=SILENT.what):
        stop(found(history, sweep_id), engine, history, 5)
    look(history, engine)
    assert JobQueue(history).ids() == {sweep_id}
    engine.silence = None
    look(history, engine)
    assert (engine.plans, engine.removed) == ({}, [sweep_id])
    assert found(history, sweep_id).state is JobState.STOPPED
    assert JobQueue(history).ids() == set()


@pytest.mark.parametrize(
    ("state", "why"), [(JobState.FAILED, "a task failed"), (JobState.SUCCEEDED, "it was deleted")]
)
def test_why_a_sweep_ended_early_is_known_after_the_ends_of_its_tasks(
    history: History, engine: SweepEngine, state: JobState, why: str
) -> None:
    sweep_id = put(history, engine, max_fails=0)
    look(history, engine)
    engine.progress = SweepProgress(True, 2, "it was deleted")
    look(history, engine)
    end(history, sweep_id, 1, JobState.SUCCEEDED)
    look(history, engine)
    assert closed(history, sweep_id) is None
    end(history, sweep_id, 2, state)
    look(history, engine)
    assert closed(history, sweep_id) == why
    assert found(history, sweep_id).state.finished


def test_a_task_that_was_stopped_before_it_was_a_job_counts_as_stopped(
    history: History, engine: SweepEngine
) -> None:
    sweep_id = put(history, engine)
    look(history, engine)
    stop(found(history, sweep_id), engine, history, 5)
    assert engine.stopped == [(sweep_id, 5)]
    engine.progress = SweepProgress(True, 1)
    look(history, engine)
    assert found(history, task_id(sweep_id, 1)).stop_requested


def test_a_task_that_cannot_be_stopped_alone_keeps_its_own_end(
    history: History, engine: SweepEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_id = put(history, engine)
    look(history, engine)
    engine.progress = SweepProgress(False, 1)
    look(history, engine)

    def refuse(job_id: str, grace: float) -> None:
        raise NotStartedError(f"{job_id} cannot be stopped before it runs")

    monkeypatch.setattr(engine, "stop", refuse)
    task = found(history, task_id(sweep_id, 1))
    with pytest.raises(NotStartedError):
        stop(task, engine, history, 5)
    assert not found(history, task.id).stop_requested

"""The scheduler with engines that fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import (
    Backend,
    BusyError,
    Capabilities,
    Delivery,
    EngineState,
    ImagePullError,
    PhaseReport,
)
from stoke.backend.pool import Backends
from stoke.config.model import Config, QueueConfig
from stoke.errors import EngineError
from stoke.history.attempts import Attempt, Attempts
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue, Placement
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.scheduler import Scheduler
from stoke.jobs.submit import enqueue, submit
from stoke.request.spec import make_spec
from tests.lab import until
from tests.scripted import ABSENT, RUNNING, ScriptedBackend

CONFIG = Config(queue=QueueConfig(slots=5))


class Engine(ScriptedBackend):
    """Fails as `failures` tells for a code, and else has every job that it was given."""

    def __init__(self, failures: dict[str, Exception], silent: bool = False) -> None:
        able = Capabilities(False, True, False, False, "a sentence about isolation")
        super().__init__(capabilities=able)
        self.failures = failures
        self.silent = silent
        self.started: list[str] = []
        self.inspected = 0

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        if failure := self.failures.get(delivery.spec.code):
            raise failure
        self.started.append(delivery.job_id)

    def inspect(self, job_id: str) -> EngineState:
        self.inspected += 1
        if self.silent:
            raise EngineError("the engine does not answer")
        return RUNNING if job_id in self.started else ABSENT


class OneBackend(Backends):
    def __init__(self, backend: Backend) -> None:
        super().__init__(CONFIG)
        self._backend = backend

    def get(self, name: str) -> Backend:
        return self._backend


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    with History() as history:
        yield history


def wait(history: History, engine: Engine, *codes: str) -> list[Job]:
    """Put jobs into the queue and look at it once; return what became of them."""
    ids = [
        enqueue(
            prepare(Request(make_spec({"code": code})), engine, history), history, Placement()
        ).id
        for code in codes
    ]
    Scheduler(OneBackend(engine), history).start_due()
    jobs = [history.get(job_id) for job_id in ids]
    assert all(jobs)
    return [job for job in jobs if job is not None]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (EngineError("no such image", "pull it"), "no such image"),
        (TypeError("a bug"), "scripted: TypeError: a bug"),
    ],
)
def test_a_job_that_cannot_start_fails_and_holds_up_no_other(
    history: History, failure: Exception, reason: str
) -> None:
    engine = Engine({"1": failure})
    failed, started = wait(history, engine, "1", "2")
    assert (failed.state, failed.reason, failed.exit_code) == (JobState.FAILED, reason, 125)
    assert engine.started == [started.id]
    assert started.state is JobState.STARTING
    assert JobQueue(history).ids() == set()
    (note,) = history.notes(failed.id)
    assert (note.kind, note.text) == ("error", reason)


def test_jobs_wait_for_an_engine_that_does_not_answer(history: History) -> None:
    failure = EngineError("cannot connect")
    engine = Engine({"1": failure, "2": failure}, silent=True)
    jobs = wait(history, engine, "1", "2")
    assert {job.state for job in jobs} == {JobState.QUEUED}
    assert {job.reason for job in jobs} == {"the engine does not answer"}
    engine.silent = False
    engine.failures.clear()
    assert not Scheduler(OneBackend(engine), history).start_due()
    assert engine.started == [job.id for job in jobs]


def test_a_job_waits_for_what_others_have_and_holds_up_none(history: History) -> None:
    engine = Engine({"1": BusyError("1 of 1 GPUs wanted, 0 free")})
    waits, started = wait(history, engine, "1", "2")
    assert (waits.state, waits.reason) == (JobState.QUEUED, "1 of 1 GPUs wanted, 0 free")
    assert started.state is JobState.STARTING


def test_slots_follow_the_limits_of_jobs(history: History) -> None:
    engine = Engine({})
    fields: list[dict[str, Any]] = [
        {"code": "1", "cpu": 3},
        {"code": "2", "memory": 3 << 30},
        {"code": "3"},
    ]
    for one in fields:
        request = Request(make_spec(one))
        enqueue(prepare(request, engine, history), history, Placement())
    Scheduler(OneBackend(engine), history).start_due()
    first, second, third = [job.id for job in history.list()][::-1]
    assert engine.started == [first]
    found = history.get(second)
    assert found is not None and found.reason == "waits for a slot: 3 of 5 are in use"
    behind = history.get(third)
    assert behind is not None and behind.reason == found.reason


def test_a_job_larger_than_all_slots_runs_alone(history: History) -> None:
    engine = Engine({})
    request = Request(make_spec({"code": "1", "cpu": 64}))
    enqueue(prepare(request, engine, history), history, Placement())
    Scheduler(OneBackend(engine), history).start_due()
    assert len(engine.started) == 1


@pytest.mark.parametrize("direct", [False, True])
def test_an_image_that_cannot_be_pulled_now_is_asked_for_again(
    history: History, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    """Whether the queue or the client itself submits the first attempt."""
    monkeypatch.setenv("STOKE_QUEUE__RETRY_DELAY", "0.001")
    monkeypatch.setattr("stoke.jobs.scheduler_process.wake_scheduler", lambda history: None)
    engine = Engine({"1": ImagePullError("the registry does not answer")})
    request = Request(make_spec({"code": "1", "retries": 2}))
    prepared = prepare(request, engine, history)
    first = submit(prepared, history) if direct else enqueue(prepared, history, Placement())
    scheduler = Scheduler(OneBackend(engine), history)
    until(lambda: not scheduler.start_due(), "the last attempt")
    attempts = Attempts(history).all_of(first.id)
    assert [one.cause for one in attempts] == ["image-pull"] * 3
    assert [one.next for one in attempts] == [f"{first.id}-r2", f"{first.id}-r3", ""]
    states = [history.get(one.job_id) for one in attempts]
    assert {(one.state, one.exit_code) for one in states if one} == {(JobState.FAILED, 125)}


def test_a_request_that_its_engine_refuses_is_not_submitted_again(history: History) -> None:
    engine = Engine({"1": EngineError("no such image", "pull it")})
    prepared = prepare(Request(make_spec({"code": "1", "retries": 2})), engine, history)
    with pytest.raises(EngineError, match="no such image"):
        submit(prepared, history)
    (job,) = history.list()
    assert Attempts(history).of(job.id) == Attempt(job.id, job.id, 1, None, "", None)


@pytest.mark.parametrize(("minutes", "looks"), [(0, 3), (20, 1)])
def test_a_job_with_retries_that_has_run_for_long_is_looked_at_rarely(
    history: History, monkeypatch: pytest.MonkeyPatch, minutes: int, looks: int
) -> None:
    monkeypatch.setattr("stoke.jobs.scheduler.ASK_SECONDS", 0.0)
    monkeypatch.setattr("stoke.jobs.scheduler_process.wake_scheduler", lambda history: None)
    engine = Engine({})
    spec = make_spec({"code": "1", "retries": 1})
    job = submit(prepare(Request(spec), engine, history), history)
    history.update(job.id, state=JobState.RUNNING, started_at=time.time() - 60 * minutes)
    scheduler = Scheduler(OneBackend(engine), history)
    before = engine.inspected
    for _ in range(3):
        scheduler.start_due()
    assert engine.inspected - before == looks


@pytest.mark.parametrize("follows", [False, True], ids=["removed", "replaced"])
def test_a_scheduler_ends_when_its_history_is_gone(history: History, follows: bool) -> None:
    engine = Engine({"1": EngineError("cannot connect")}, silent=True)
    wait(history, engine, "1")

    def put_aside(seconds: float) -> None:
        history.path.rename(history.path.with_name("aside"))
        if follows:
            history.path.touch()

    Scheduler(OneBackend(engine), history, put_aside).run()
    assert history.path.exists() == follows

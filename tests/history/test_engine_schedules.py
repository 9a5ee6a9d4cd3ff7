"""Schedules whose runs their engine begins, in the history."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from stoke.backend.api import FoundJob
from stoke.history.database import History
from stoke.history.engine_schedules import EngineSchedules, RunRecord
from stoke.history.job import JobState
from stoke.history.notifications import Notifications
from stoke.jobs.engine_runs import take_run

RECORD = RunRecord(
    "nightly-abc234", "nightly", "argo", "team", None, "hash", None, None, "nightly",
    '{"code": "1", "use_cache": false, "notify": ["mail"]}', "n0nce",
)  # fmt: skip
RUN = "nightly-abc234-1790000000"


def found(job_id: str = RUN, schedule_id: str | None = RECORD.id) -> FoundJob:
    return FoundJob(job_id, "team", 900.0, "n0nce", lambda: None, schedule_id)


def test_a_run_becomes_a_job_once_with_what_all_runs_have(own_home: Path) -> None:
    with History() as history:
        schedules = EngineSchedules(history)
        assert schedules.by_backend() == {} and take_run(found(), history) is None
        schedules.put(RECORD)
        assert schedules.by_backend() == {"argo": [RECORD.id]}
        job = take_run(found(), history)
        assert job is not None and job.id == RUN and job.state is JobState.STARTING
        assert (job.name, job.schedule, job.submitted_at) == ("nightly", "nightly", 900.0)
        assert (job.request_hash, job.checkpoint) == ("hash", "nightly")
        assert history.nonce(RUN) == "n0nce" and history.spec(RUN) == RECORD.spec
        assert Notifications(history).pending() == [RUN]
        history.update(RUN, state=JobState.SUCCEEDED)
        again = take_run(found(), history)
        assert again is not None and again.state is JobState.SUCCEEDED
        assert take_run(found("x-abcdef", None), history) is None


def test_the_newest_run_is_that_of_this_schedule(own_home: Path) -> None:
    with History() as history:
        schedules = EngineSchedules(history)
        earlier = replace(RECORD, id="nightly-zzzzzz")
        for record in (RECORD, earlier):
            schedules.put(record)
        schedules.add_run(RECORD, RUN, 900.0)
        schedules.add_run(RECORD, f"{RECORD.id}-1790086400", 950.0)
        schedules.add_run(earlier, f"{earlier.id}-1790100000", 990.0)
        newest = schedules.newest_run(RECORD.id)
        assert newest is not None and newest.id == f"{RECORD.id}-1790086400"
        assert schedules.newest_run("nightly-abc23") is None
        assert {one.id for one in schedules.named("nightly")} == {RECORD.id, earlier.id}
        schedules.remove(RECORD.id)
        assert schedules.get(RECORD.id) is None and schedules.newest_run(RECORD.id) is not None


@pytest.mark.parametrize("column", [one.name for one in fields(RunRecord)][1:])
@pytest.mark.parametrize("value", [7, b"\xff", "{"])
def test_a_damaged_record_makes_no_command_fail(own_home: Path, column: str, value: object) -> None:
    with History() as history:
        schedules = EngineSchedules(history)
        schedules.put(RECORD)
        history.query(f"UPDATE engine_schedules SET {column} = ?", (value,))
        schedules.by_backend()
        take_run(found(), history)
        history.list()

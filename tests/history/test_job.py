"""Job ids, and properties of job records."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.history.job import FINISHED, PHASES, Job, JobState, Phase, new_job_id


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("fit-model", "fit-model"),
        ("Fit Model.py", "fit-model-py"),
        ("job", "job"),
        ("", "job"),
        ("---", "job"),
        ("..", "job"),
        ("\U0001f600", "job"),
        ("\u00e9t\u00e9", "t"),
        ("a" * 39 + "-b", "a" * 39),
        ("x" * 100, "x" * 40),
        ("-rf", "rf"),
        ("a; touch /tmp/pwn #", "a-touch-tmp-pwn"),
        ("$(id)", "id"),
        ("{{workflow.uid}}", "workflow-uid"),
        ("a\nb", "a-b"),
    ],
)
def test_an_id_begins_with_the_name_made_harmless(name: str, stem: str) -> None:
    assert re.fullmatch(re.escape(stem) + "-[a-z2-7]{6}", new_job_id(name))


def test_a_clock_that_was_set_back_leaves_no_duration() -> None:
    job = Job("a-aaaaaa", "a", "local", "default", JobState.SUCCEEDED, 1000.0, finished_at=400.0)
    assert job.seconds is None


@given(name=st.text(st.characters(codec=None), max_size=80))
def test_any_name_gives_a_label_that_every_engine_takes(name: str) -> None:
    """RFC 1123, with room for what an engine adds."""
    job_id = new_job_id(name)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", job_id)
    assert len(job_id) <= 47


def test_two_jobs_of_one_name_have_two_ids() -> None:
    assert len({new_job_id("same") for _ in range(200)}) == 200


def test_states_that_are_over() -> None:
    over = {state for state in JobState if state.finished}
    assert over == FINISHED
    assert {state.value for state in JobState if not state.finished} == {
        "queued",
        "starting",
        "running",
    }


def job(*phases: Phase, finished_at: float | None = None) -> Job:
    made = Job("a-aaaaaa", "a", "local", "default", JobState.RUNNING, 100.0)
    made.phases = list(phases)
    made.finished_at = finished_at
    return made


def test_figures_are_of_the_environment_only_and_none_where_unknown() -> None:
    start, lock = Phase("start", 1.0, 9.0), Phase("lock", 2.0, 0.5, True, 4, 4, 100)
    python, run = Phase("python", 3.0, 2.0, False, 4, 0, 900), Phase("run", 5.0, 60.0, bytes=10**6)
    full = job(start, lock, python, run, finished_at=180.0)
    assert (full.seconds, full.environment_seconds, full.received_bytes) == (80.0, 2.5, 1000)

    assert job().environment_seconds is None
    assert job().received_bytes is None
    assert job().seconds is None
    assert job(Phase("lock", 2.0)).environment_seconds is None
    assert job(start, run).environment_seconds is None
    assert job(lock, Phase("python", 3.0, 1.0)).received_bytes == 100
    assert job(Phase("python", 3.0, 1.0)).received_bytes is None
    assert job(Phase("lock", 2.0, 0.0, bytes=0)).received_bytes == 0


def test_a_phase_as_json_has_every_field_and_null_for_unknown() -> None:
    assert Phase("lock", 1.0).as_json() == {
        "name": "lock",
        "seconds": None,
        "hit": None,
        "packages": None,
        "cached": None,
        "bytes": None,
        "key": None,
    }
    assert Phase("lock", 1.0, 0.123456789, False, 0, 0, 0).as_json() == {
        "name": "lock",
        "seconds": 0.123457,
        "hit": False,
        "packages": 0,
        "cached": 0,
        "bytes": 0,
        "key": None,
    }


def test_phases_are_in_the_order_in_which_a_job_meets_them() -> None:
    assert PHASES == (
        "queue",
        "schedule",
        "pull",
        "start",
        "project",
        "lock",
        "system",
        "python",
        "build",
        "run",
        "results",
    )

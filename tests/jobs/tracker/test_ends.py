"""The end of a job: what the runner and the engine report of it, and which of them counts."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from stoke.backend.api import EngineState, EngineStatus, Frame, LogDeniedError
from stoke.history.database import History, Note
from stoke.history.job import JobState
from stoke.jobs import tracker as tracker_module
from stoke.jobs.tracker import FOREIGN_SIGNAL, Tracker
from stoke.logs.spool import NOTE
from stoke.remote.events import Event
from tests.jobs.tracker.job_log import JOB, RUN, SECOND, end, log_of, state_of, track
from tests.scripted import ABSENT, RUNNING, Connection, ScriptedBackend, ScriptedLog, exited


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

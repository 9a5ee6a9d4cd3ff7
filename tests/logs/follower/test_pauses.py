"""Jobs that have not begun, pauses between attempts, and logs that the follower may not read.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stoke.backend.api import EngineState, EngineStatus, Frame, LogDeniedError
from stoke.logs import follower as follower_module
from stoke.logs import resume
from stoke.logs.resume import OVERLAP
from stoke.logs.spool import NOTE, STDERR, STDOUT
from stoke.remote.protocol import frame
from tests.logs.follower.recording import (
    BEGIN,
    END,
    MS,
    NONCE,
    NOTED,
    START,
    RecordedFollower,
    follow,
    joined,
    lines_of,
)
from tests.scripted import RUNNING, Connection, ScriptedBackend, exited
from tests.spools import lines_in, spooled


def test_the_clock_of_this_machine_does_not_drift_from_its_uptime() -> None:
    offsets = [resume.clock_offset() for _ in range(200)]
    assert max(offsets) - min(offsets) < OVERLAP


CREATED = EngineState(EngineStatus.CREATED)


def test_c16_job_that_has_not_begun_is_waited_for_without_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (10_000.0, 10_000.0))
    monkeypatch.setattr(follower_module, "START_SECONDS", 0.0)
    backend = ScriptedBackend(
        lines_of(5), [Connection(0)] * 20, [CREATED] * 20 + [RUNNING, exited()]
    )
    state, following = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    assert following.trouble == []


RUNNER_BEGINS = Frame(STDERR, START - MS, frame(NONCE, BEGIN))
RUNNER_ENDS = Frame(STDERR, START + 100 * MS, frame(NONCE, END))


def test_c22_pauses_double_from_half_a_second_to_thirty_with_full_jitter(
    tmp_path: Path, pauses: list[tuple[float, float]]
) -> None:
    refused = [Connection(0, "refused")] * 9
    follow(ScriptedBackend(lines_of(3), refused, [RUNNING] * 9 + [exited()]), tmp_path)
    assert pauses == [(0, most) for most in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


def test_c22_no_pause_after_a_connection_that_delivered_or_lasted(
    tmp_path: Path, pauses: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = lines_of(4)
    brought = [Connection(0, "refused"), Connection(2), Connection(0, "refused")]
    follow(ScriptedBackend(log, brought, [RUNNING] * 3 + [exited()]), tmp_path / "1")
    assert pauses == [(0, 0.5), (0, 0.5)]

    pauses.clear()
    monkeypatch.setattr(follower_module, "GOOD_SECONDS", -1.0)
    follow(ScriptedBackend(log, [Connection(0)] * 5, [RUNNING] * 5 + [exited()]), tmp_path / "2")
    assert pauses == []


def test_c22_never_gives_up_while_the_job_is_there(
    tmp_path: Path, pauses: list[tuple[float, float]]
) -> None:
    refused = [Connection(0, "refused")] * 500
    backend = ScriptedBackend(lines_of(3), refused, [RUNNING] * 500 + [exited()])
    state, following = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    assert following.trouble, "an engine that answers and gives no log is not reported"


def test_c03_denied_access_ends_the_log_and_names_the_missing_right(tmp_path: Path) -> None:
    backend = ScriptedBackend(lines_of(3), states=[exited(4)])

    def logs(job_id: str, since: int, follow: bool) -> object:
        raise LogDeniedError("no right to read pods/log")

    backend.logs = logs  # type: ignore[method-assign, assignment]
    state, following = follow(backend, tmp_path)
    assert state == exited(4)
    assert following.follower.spool.gaps == 1
    assert b"no right to read pods/log" in spooled(tmp_path, NOTE)


@pytest.mark.parametrize(
    ("log", "lost"),
    [
        (lines_of(5000), True),
        ([*lines_of(3), Frame(STDERR, START + 4 * MS, frame(NONCE, END))], True),
        ([*lines_of(3), Frame(STDERR, START + 4 * MS, frame(NONCE, {"event": "end"}))], False),
        ([Frame(STDERR, START, b"SyntaxError: what only a later Python knows\n")], False),
        ([Frame(STDERR, START, b"a warning\n" + frame(NONCE, BEGIN)), *lines_of(5000)], False),
        ([Frame(STDERR, START, frame(NONCE, NOTED)), *lines_of(5000)], False),
    ],
    ids=["much", "little", "no event", "no runner", "noise", "note"],
)
@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_f07_a_log_whose_beginning_was_dropped_has_one_gap(
    tmp_path: Path, log: list[Frame], lost: bool, batch: int
) -> None:
    """Every complete log begins with the runner's first event."""
    cut = Connection(len(log) // 2, "cut", batch=batch)
    backend = ScriptedBackend(log, [cut, Connection(batch=batch)], [RUNNING, exited()])
    following = RecordedFollower(backend, tmp_path, begun=False)
    following.follower.run()
    again = RecordedFollower(ScriptedBackend(log), tmp_path, begun=following.follower._begun)
    again.follower.run()
    assert following.follower.spool.gaps == again.follower.spool.gaps == lost
    assert spooled(tmp_path, NOTE).count(b"beginning of the log") == lost
    if len(log) == 5000 and batch == 10_000:
        assert lines_in(tmp_path)[0].stream == NOTE


@pytest.mark.parametrize(
    ("log", "state", "lost"),
    [
        ([RUNNER_BEGINS, *lines_of(3)], exited(), True),
        ([RUNNER_BEGINS, *lines_of(3)], exited(7), True),
        ([RUNNER_BEGINS, *lines_of(3)], exited(137), False),
        ([RUNNER_BEGINS, *lines_of(3), RUNNER_ENDS], exited(), False),
        ([], dataclasses.replace(exited(), began=True), True),
        ([], exited(), False),
        ([], exited(127), False),
        ([RUNNER_BEGINS], EngineState(EngineStatus.EXITED), False),
        ([RUNNER_BEGINS], EngineState(EngineStatus.ABSENT), False),
    ],
    ids=["rotated", "failed", "killed", "whole", "nothing", "other program", "none", "?", "gone"],
)
def test_f07_a_log_whose_end_was_dropped_has_one_gap(
    tmp_path: Path, log: list[Frame], state: EngineState, lost: bool
) -> None:
    """A node that rotates a log just before the job ends serves an empty one."""
    backend = ScriptedBackend(log, states=[state])
    first = RecordedFollower(backend, tmp_path, begun=False, ended=False).follower
    first.run()
    again = RecordedFollower(backend, tmp_path, first._begun, first._ended).follower
    again.run()
    assert first.spool.gaps == again.spool.gaps == lost
    assert spooled(tmp_path, NOTE).count(b"the end of the log") == lost


def test_f07_a_late_follower_reads_the_stored_log_before_it_follows_again(tmp_path: Path) -> None:
    log = lines_of(200)
    behind = [Connection(20, "behind"), Connection(100), Connection(30, "behind")]
    backend = ScriptedBackend(log, behind, [RUNNING, exited()])
    state, following = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    assert [stream.follow for stream in backend.opened][:4] == [True, False, True, False]
    assert following.trouble == []

"""Clocks that are set back, and clocks in whole seconds.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.backend.api import Frame
from stoke.logs import resume
from stoke.logs.spool import NOTE, STDERR, STDOUT
from tests.logs.follower.recording import MS, START, RecordedFollower, follow, joined, lines_of
from tests.scripted import RUNNING, Connection, ScriptedBackend, exited
from tests.spools import spooled

HOUR = 3600 * 10**9


def stepped(before: int, after: int, step: int = HOUR) -> list[Frame]:
    """Lines of a job whose engine's clock was set back by `step` in its middle."""
    back = [
        Frame(STDOUT, START + (before + n) * MS - step, b"after %d\n" % n) for n in range(after)
    ]
    return [*lines_of(before), *back]


@pytest.mark.parametrize("step", [HOUR, 50 * MS, -HOUR])
def test_c06_f06_clock_set_back_wherever_it_is_cut(
    make_folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """After the step the frames show it. Before it, this machine's clock does when the next follower
    starts: the log has grown in the meantime."""
    log = stepped(30, 30, step)
    for frames in range(1, len(log), 3):
        folder = make_folder()
        backend = ScriptedBackend(log, [Connection(frames, "cut")], [RUNNING, exited()])

        def offset(backend: ScriptedBackend = backend, frames: int = frames) -> int:
            return -step if backend.asked or frames > 30 else 0

        monkeypatch.setattr(resume, "clock_offset", offset)
        state, following = follow(backend, folder)
        assert state == exited()
        assert spooled(folder, STDOUT) == joined(log, STDOUT), frames
        assert following.follower.spool.gaps == 0


def test_c06_f06_clock_set_back_and_another_process_continues(tmp_path: Path) -> None:
    log = stepped(10, 10)
    RecordedFollower(ScriptedBackend(log[:15], states=[RUNNING]), tmp_path).follower.catch_up()
    follow(ScriptedBackend(log), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


def test_c19_clock_set_back_and_the_beginning_dropped_is_a_gap(tmp_path: Path) -> None:
    log = stepped(10, 20)
    RecordedFollower(ScriptedBackend(log[:15], states=[RUNNING]), tmp_path).follower.catch_up()
    _, following = follow(ScriptedBackend(log[5:]), tmp_path)
    assert following.follower.spool.gaps == 1
    assert b"no longer has all of the log" in spooled(tmp_path, NOTE)


def whole_seconds(log: list[Frame]) -> list[Frame]:
    """Return the same log as Podman before 4.4 gives it."""
    return [frame._replace(time=frame.time // 10**9 * 10**9) for frame in log]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=2).map(lambda data: data + b"\n"), max_size=40), st.data())
def test_timestamps_in_whole_seconds_neither_lose_nor_repeat_lines(
    make_folder: Callable[[], Path], texts: list[bytes], data: st.DataObject
) -> None:
    folder = make_folder()
    log = [Frame(1 + n % 2, START + n * 300 * MS, text) for n, text in enumerate(texts)]
    log = whole_seconds(log)
    for end in sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4))):
        RecordedFollower(ScriptedBackend(log[:end], states=[RUNNING]), folder).follower.catch_up()
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=3))
    connections = [Connection(frames, "cut") for frames in cuts]
    _, following = follow(ScriptedBackend(log, connections), folder)
    assert spooled(folder, STDOUT) == joined(log, STDOUT)
    assert spooled(folder, STDERR) == joined(log, STDERR)
    assert following.follower.spool.gaps == 0


@pytest.mark.parametrize("before", [1, 10, 30])
def test_a_log_dropped_completely_is_a_gap_and_later_lines_are_read(
    tmp_path: Path, before: int
) -> None:
    log = whole_seconds(lines_of(50))
    RecordedFollower(ScriptedBackend(log[:before], states=[RUNNING]), tmp_path).follower.catch_up()
    RecordedFollower(ScriptedBackend(log[30:40], states=[RUNNING]), tmp_path).follower.catch_up()
    _, following = follow(ScriptedBackend(log[30:]), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log[:before] + log[30:], STDOUT)
    assert following.follower.spool.gaps == 1

"""Closing a follower from another thread.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.logs import follower as follower_module
from stoke.logs.spool import STDOUT
from tests.logs.follower.recording import RecordedFollower, ends, follow, joined, lines_of
from tests.scripted import RUNNING, Connection, ScriptedBackend, exited
from tests.spools import spooled


def test_c23_close_on_a_silent_stream(
    tmp_path: Path, in_background: Callable[[RecordedFollower], threading.Thread]
) -> None:
    backend = ScriptedBackend(lines_of(5), [Connection(5, "open")], [RUNNING])
    following = RecordedFollower(backend, tmp_path)
    thread = in_background(following)
    assert backend.waiting.wait(10)

    following.follower.close()
    following.follower.close()

    assert ends(thread)
    assert all(stream.closed.is_set() for stream in backend.opened)
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    RecordedFollower(backend, tmp_path).follower.catch_up()  # The folder is free again.


def test_c23_close_while_it_waits_to_try_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_background: Callable[[RecordedFollower], threading.Thread],
) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (10_000.0, 10_000.0))
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    backend = ScriptedBackend(connections=[Connection(0, "refused")] * 100, states=[RUNNING])
    following = RecordedFollower(backend, tmp_path)
    thread = in_background(following)
    while backend.asked == 0:
        assert thread.is_alive()

    following.follower.close()

    assert ends(thread)


def test_c23_close_before_it_began(tmp_path: Path) -> None:
    backend = ScriptedBackend(lines_of(5), [Connection(5, "open")], [RUNNING])
    following = RecordedFollower(backend, tmp_path)
    following.follower.close()
    assert following.follower.run() is None
    assert backend.opened == []


@pytest.mark.parametrize("frames", range(12))
def test_c23_close_during_the_last_passes_does_not_pass_for_the_end(
    tmp_path: Path, frames: int
) -> None:
    """The user quits while the end of an ended job's log is read: the next follower reads the rest."""
    log = lines_of(6)
    backend = ScriptedBackend(log, [Connection(2)], [exited()])
    following = RecordedFollower(backend, tmp_path)
    seen = 0

    def flushed() -> None:
        nonlocal seen
        seen += 1
        if seen == frames:
            following.follower.close()

    following.follower._on_flush = flushed
    state = following.follower.run()

    if spooled(tmp_path, STDOUT) != joined(log, STDOUT):
        assert state is None
    follow(backend, tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


def test_c23_close_at_the_moment_the_connection_opens(tmp_path: Path) -> None:
    backend = ScriptedBackend(lines_of(5), [Connection(5, "open")], [RUNNING])
    following = RecordedFollower(backend, tmp_path)
    scripted = backend.logs

    def logs(job_id: str, since: int, follow: bool) -> object:
        following.follower.close()
        return scripted(job_id, since, follow)

    backend.logs = logs  # type: ignore[method-assign, assignment]
    assert following.follower.run() is None
    assert backend.opened[0].closed.is_set()

"""What a second follower continues from: the lock, the checkpoint, a full disk, another start.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoke.backend.api import ENGINE, Frame
from stoke.errors import EngineError
from stoke.logs import follower as follower_module
from stoke.logs.follower import Follower, FollowerBusyError
from stoke.logs.spool import ENGINE_LOG, STDERR, STDOUT
from stoke.remote.events import Event
from stoke.remote.protocol import frame
from tests.logs.follower.recording import (
    MS,
    NONCE,
    START,
    RecordedFollower,
    follow,
    joined,
    lines_of,
)
from tests.scripted import RUNNING, ScriptedBackend, ScriptedLog, exited
from tests.spools import lines_in, spooled
from tests.writes import replace_write


def test_second_follower_of_the_same_folder_is_refused_while_the_first_lives(
    tmp_path: Path,
) -> None:
    backend = ScriptedBackend(lines_of(3))
    first = RecordedFollower(backend, tmp_path)
    with pytest.raises(FollowerBusyError):
        RecordedFollower(backend, tmp_path)
    first.follower.run()
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    state, second = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    assert second.events == []


def test_catching_up_reads_the_available_log_and_releases_the_lock(tmp_path: Path) -> None:
    log = lines_of(10)
    backend = ScriptedBackend(log[:6], states=[RUNNING])
    RecordedFollower(backend, tmp_path).follower.catch_up()
    assert spooled(tmp_path, STDOUT) == joined(log[:6], STDOUT)

    follow(ScriptedBackend(log), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


@pytest.mark.parametrize("damage", ["missing", "cut short", "ahead of the log"])
def test_damaged_checkpoint_means_from_the_start(tmp_path: Path, damage: str) -> None:
    """The files that a power failure leaves."""
    backend = ScriptedBackend(lines_of(10))
    follow(backend, tmp_path)
    position = tmp_path / "log.pos"
    if damage == "missing":
        position.unlink()
    elif damage == "cut short":
        position.write_bytes(position.read_bytes()[:30])
    else:
        os.truncate(tmp_path / "log", 20)

    follow(backend, tmp_path)

    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)


@pytest.mark.parametrize("where", ["event", "spool"])
def test_f13_a_full_disk_is_reported_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The history or the spool is full: saved data stays, and saving continues when there is space."""
    monkeypatch.setattr(follower_module, "FULL_SECONDS", 0.0)
    # A checkpoint that cannot be written is no trouble.
    monkeypatch.setattr(follower_module, "CHECKPOINT_SECONDS", 3600.0)
    event = {"event": "note", "text": "x"}
    log = [*lines_of(5), Frame(STDERR, START + 5 * MS, frame(NONCE, event)), *lines_of(3)[2:]]
    log += [Frame(ENGINE, START + 6 * MS, b"argo=true\n")]
    following = RecordedFollower(ScriptedBackend(log), tmp_path)
    refusals = iter(range(7))

    def no_room() -> None:
        if next(refusals, None) is not None:
            raise OSError(28, "No space left on device")

    if where == "event":

        def keep(event: Event) -> None:
            try:
                no_room()
            except OSError as error:
                raise EngineError("the disk is full") from error
            following.events.append(event)

        following.follower._on_event = keep
    else:
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            no_room()
            return real(descriptor, data)

        replace_write(monkeypatch, tmp_path, write)

    assert following.follower.run() == exited()

    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    assert (tmp_path / ENGINE_LOG).read_bytes() == b"argo=true\n"
    assert following.events == [event]
    assert len(following.trouble) == 7


def test_f13_closing_while_the_disk_is_full_keeps_the_saved_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = lines_of(200)
    following = RecordedFollower(ScriptedBackend(log), tmp_path)
    real = os.write
    writes = iter(range(21))

    def write(descriptor: int, data: bytes) -> int:
        if next(writes, None) is None:
            following.follower.close()
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    replace_write(monkeypatch, tmp_path, write)
    assert following.follower.run() is None
    monkeypatch.undo()
    assert joined(log, STDOUT).startswith(spooled(tmp_path, STDOUT))

    follow(ScriptedBackend(log), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


def test_f13_catching_up_does_not_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = RecordedFollower(ScriptedBackend(lines_of(3)), tmp_path)

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    replace_write(monkeypatch, tmp_path, write)
    with pytest.raises(EngineError):
        following.follower.catch_up()


class RestartingBackend(ScriptedBackend):
    """Its logs belong to one start of the job, and later to another, as the streams report."""

    source = "first"
    preface: str | None = None

    def logs(self, job_id: str, since: int, follow: bool) -> ScriptedLog:
        stream = super().logs(job_id, since, follow)
        stream.source = self.source  # type: ignore[attr-defined]
        stream.preface = self.preface  # type: ignore[attr-defined]
        return stream


def test_another_start_of_the_job_is_read_from_its_beginning(tmp_path: Path) -> None:
    """Also if the other node's clock is behind, and for a process that continues a checkpoint."""
    backend = RestartingBackend(lines_of(3), states=[RUNNING])
    RecordedFollower(backend, tmp_path).follower.catch_up()

    backend.source, backend.preface = "second", "it runs again"
    backend.log = [Frame(STDOUT, START - 10**12 + n, b"again %d\n" % n) for n in range(3)]
    backend.states, backend.asked = [exited()], 0
    restarts: list[int] = []
    follower = Follower(
        backend,
        "job-aaaaaa",
        NONCE,
        tmp_path,
        lambda event: None,
        lambda: None,
        lambda error: None,
        on_restart=lambda: restarts.append(1),
    )
    follower._begun = True
    follower.run()

    assert [line.text.rstrip() for line in lines_in(tmp_path)] == [
        *(b"line %d" % n for n in range(3)),
        b"it runs again",
        *(b"again %d" % n for n in range(3)),
    ]
    assert (restarts, follower.spool.gaps) == ([1], 0)

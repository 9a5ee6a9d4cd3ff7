"""Ends and cuts of a log, its last line, and logs that the engine shortens.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.backend.api import ENGINE, EngineState, Frame
from stoke.errors import EngineError
from stoke.logs import resume
from stoke.logs.resume import OVERLAP
from stoke.logs.spool import ENGINE_LOG, NOTE, STDERR, STDOUT
from tests.logs.follower.recording import MS, NONCE, START, follow, joined, lines_of
from tests.scripted import ABSENT, RUNNING, Connection, ScriptedBackend, exited
from tests.spools import lines_in, spooled


def test_c01_cut_behind_every_frame(make_folder: Callable[[], Path]) -> None:
    log = lines_of(40)
    for frames in range(1, len(log)):
        folder = make_folder()
        backend = ScriptedBackend(log, [Connection(frames, "cut")], [RUNNING, exited()])
        state, _ = follow(backend, folder)
        assert state == exited()
        assert spooled(folder, STDOUT) == joined(log, STDOUT)


@pytest.mark.parametrize("end", ["cut", "eof"])
def test_c01_the_rest_of_a_long_line_has_the_time_of_its_beginning(
    make_folder: Callable[[], Path], end: str
) -> None:
    """Docker gives every part of a line the time of the first, and the last part of an unended line
    only when the job closes the stream: behind much newer lines of the other one."""
    second = 1000 * MS
    part = Frame(STDOUT, START + second, b"p" * resume.PART_SIZE)
    log = [
        Frame(STDERR, START, b"first\n"),
        Frame(STDOUT, START + second, b"same\n"),
        part,
        Frame(STDERR, START + 2 * second, b"late\n"),
        part,
        Frame(STDERR, START + 3 * second, b"later\n"),
        Frame(STDERR, START + 3 * second, b"later still\n"),
        Frame(STDOUT, START + second, b"rest"),
    ]
    for first in range(1, len(log) + 1):
        for again in range(len(log) + 1):
            folder = make_folder()
            connections = [Connection(first, end), Connection(again, end)]
            backend = ScriptedBackend(log, connections, [RUNNING, RUNNING, exited()])
            state, _ = follow(backend, folder)
            assert state == exited()
            for stream in (STDOUT, STDERR):
                assert spooled(folder, stream) == joined(log, stream)
            assert spooled(folder, NOTE) == b""


def test_c05_a_connection_does_not_begin_at_a_stalled_progress_bar(
    tmp_path: Path,
) -> None:
    """Its line stays unfinished as long as lines of the other stream come."""
    log = [Frame(STDERR, START, b"10%"), *lines_of(200)]
    backend = ScriptedBackend(log, [Connection(150, "cut")], [RUNNING, exited()])
    state, _ = follow(backend, tmp_path)
    assert state == exited()
    for stream in (STDOUT, STDERR):
        assert spooled(tmp_path, stream) == joined(log, stream)
    assert backend.opened[1].since == log[149].time - OVERLAP


def test_c02_clean_end_with_the_tail_missing(tmp_path: Path) -> None:
    """Docker Engine 20.10 when a container exits before a slow reader has caught up."""
    log = lines_of(1000, step=1000)
    backend = ScriptedBackend(log, [Connection(100, "eof", batch=50)], [exited(3)])

    state, _ = follow(backend, tmp_path)

    assert state == exited(3)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    assert [stream.follow for stream in backend.opened][:2] == [True, False]


def test_c02_reads_again_until_a_pass_adds_nothing(tmp_path: Path) -> None:
    log = lines_of(30)
    backend = ScriptedBackend(
        log, [Connection(5), Connection(12), Connection(18), Connection(25)], [exited()]
    )
    follow(backend, tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


def test_c02_end_of_a_running_job_is_no_end(tmp_path: Path) -> None:
    """A restarted engine, a proxy's idle limit: clean ends in the middle."""
    log = lines_of(10)
    backend = ScriptedBackend(
        log, [Connection(3), Connection(3), Connection(5)], [RUNNING] * 3 + [exited()]
    )
    state, _ = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


@pytest.mark.parametrize("end", ["cut", "refused"])
def test_c03_cut_of_the_last_pass_is_not_the_end(tmp_path: Path, end: str) -> None:
    """The job has ended and the engine stops before the end of the log was read."""
    log = lines_of(50)
    backend = ScriptedBackend(
        log, [Connection(20), Connection(0, end), Connection(0, end)], [exited()]
    )

    state, following = follow(backend, tmp_path)

    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    assert following.trouble


def test_c03_an_engine_that_does_not_answer_is_reported_and_asked_again(tmp_path: Path) -> None:
    away = EngineError("cannot reach the engine")
    backend = ScriptedBackend(
        lines_of(3), [Connection(0, "refused")] * 3, [away, away, away, exited()]
    )
    state, following = follow(backend, tmp_path)
    assert state == exited()
    assert following.trouble == [away, away, away]
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)


def test_c02_news_that_the_job_is_over_end_the_waiting(tmp_path: Path) -> None:
    backend = ScriptedBackend([], [Connection(end="open", news=2)], [RUNNING, exited(125)])
    state, _ = follow(backend, tmp_path)
    assert state == exited(125)
    assert backend.opened[0].closed.is_set()


def test_c18_messages_of_the_engine_are_stored_apart_once(tmp_path: Path) -> None:
    log = lines_of(6)
    log[0] = Frame(ENGINE, START, b"waiting for signals\n")
    log[4] = Frame(ENGINE, START + 4 * MS, b"sub-process exited\n")
    backend = ScriptedBackend(
        log, [Connection(3, "cut"), Connection(1, "cut")], [RUNNING, exited()]
    )
    follow(backend, tmp_path)
    assert spooled(tmp_path, STDOUT) == b"line 1\nline 2\nline 3\nline 5\n"
    assert spooled(tmp_path, ENGINE) == b""
    aside = (tmp_path / ENGINE_LOG).read_bytes()
    assert aside == b"waiting for signals\nsub-process exited\n"
    # The checkpoint is older than the log: the rest is fetched again.
    (tmp_path / "log.pos").unlink()
    follow(ScriptedBackend(log), tmp_path)
    assert (tmp_path / ENGINE_LOG).read_bytes() == aside


def test_c25_removed_while_it_is_followed(tmp_path: Path) -> None:
    backend = ScriptedBackend(
        lines_of(8), [Connection(), Connection(0, "refused"), Connection(0, "refused")], [ABSENT]
    )
    state, _ = follow(backend, tmp_path)
    assert state == ABSENT
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)


def test_c05_resumes_a_little_before_the_newest_frame_to_the_nanosecond(tmp_path: Path) -> None:
    log = [Frame(STDOUT, START + 123_456_789, b"one\n"), Frame(STDOUT, START + 10**9 + 1, b"two\n")]
    backend = ScriptedBackend(log, [Connection(1, "cut")], [RUNNING, exited()])
    follow(backend, tmp_path)
    assert [stream.since for stream in backend.opened] == [
        0,
        START + 123_456_789 - OVERLAP,
        START + 10**9 + 1 - OVERLAP,
    ]


@pytest.mark.usefixtures("kept_of_the_overlap")
def test_c06_identical_lines_at_one_timestamp_keep_their_number(
    make_folder: Callable[[], Path],
) -> None:
    log = [Frame(STDOUT, START, b"same\n")] * 7 + [Frame(STDERR, START, b"same\n")] * 5
    for cuts in range(len(log) + 1):
        folder = make_folder()
        backend = ScriptedBackend(log, [Connection(cuts, "cut")] * 2, [RUNNING, RUNNING, exited()])
        follow(backend, folder)
        assert spooled(folder, STDOUT) == b"same\n" * 7
        assert spooled(folder, STDERR) == b"same\n" * 5


@pytest.mark.usefixtures("kept_of_the_overlap")
def test_c06_a_stream_that_goes_back_in_time(make_folder: Callable[[], Path]) -> None:
    """Stderr is stored up to 3.56 ms behind its place, as measured on a real engine."""
    log = []
    for n in range(60):
        log.append(Frame(STDOUT, START + n * MS, b"out %d\n" % n))
        if n >= 4:
            log.append(Frame(STDERR, START + n * MS - 3_560_000, b"err %d\n" % n))
    for frames in range(1, len(log), 3):
        folder = make_folder()
        backend = ScriptedBackend(log, [Connection(frames, "cut")], [RUNNING, exited()])
        follow(backend, folder)
        assert spooled(folder, STDOUT) == joined(log, STDOUT)
        assert spooled(folder, STDERR) == joined(log, STDERR)


def test_c07_connections_cut_within_the_overlap_still_get_on(tmp_path: Path) -> None:
    """Each brings fewer frames than the overlap holds."""
    log = lines_of(300, step=OVERLAP // 200)
    backend = ScriptedBackend(log, [Connection(100, "cut")] * 60, [RUNNING] * 60 + [exited()])
    over_once_served(backend)

    state, _ = follow(backend, tmp_path)

    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    reached = [stream for stream in backend.opened if log[-1] in stream.served]
    assert backend.opened.index(reached[0]) < 30


def over_once_served(backend: ScriptedBackend) -> None:
    """The job ends once all frames have been served."""
    scripted = backend.inspect
    newest = backend.log[-1]

    def inspect(job_id: str) -> EngineState:
        served = backend.opened[-1].served
        return exited() if served and served[-1] is newest else scripted(job_id)

    backend.inspect = inspect  # type: ignore[method-assign]


@pytest.mark.parametrize("stream", [STDOUT, STDERR])
def test_c12_last_line_without_a_newline_is_read_once(tmp_path: Path, stream: int) -> None:
    log = [Frame(stream, START, b"line\n"), Frame(stream, START + 1, b"no end")]
    backend = ScriptedBackend(log, [Connection(1), Connection(2), Connection(2)], [exited()])
    follow(backend, tmp_path)
    assert spooled(tmp_path, stream) == b"line\nno end"


@pytest.mark.parametrize(
    "tail", [b"line\n", b"\n", b"\n\x1e", b"\n\x1e" + NONCE.encode() + b'{"event":']
)
def test_c12_bytes_that_look_like_the_beginning_of_an_event_come_at_the_end(
    tmp_path: Path, tail: bytes
) -> None:
    follow(ScriptedBackend([Frame(STDERR, START, tail)]), tmp_path)
    assert spooled(tmp_path, STDERR) == tail


def test_c13_bytes_that_are_no_text_arrive_exactly(tmp_path: Path) -> None:
    every = bytes(range(256)) * 3
    follow(ScriptedBackend([Frame(STDOUT, START, every), Frame(STDERR, START, every)]), tmp_path)
    assert spooled(tmp_path, STDOUT) == every
    assert spooled(tmp_path, STDERR) == every


def test_c19_frames_that_the_engine_has_dropped_are_a_visible_gap(tmp_path: Path) -> None:
    log = lines_of(20, step=100 * MS)
    backend = ScriptedBackend(log[:5], [Connection(5, "cut")], [RUNNING, exited()])

    def rotate(job_id: str) -> EngineState:
        backend.log = log[10:]
        return exited()

    backend.inspect = rotate  # type: ignore[method-assign]
    _, following = follow(backend, tmp_path)

    assert following.follower.spool.gaps == 1
    assert spooled(tmp_path, STDOUT) == joined(log[:5] + log[10:], STDOUT)
    texts = [line.text for line in lines_in(tmp_path)]
    assert texts[5] == b"gap: 0.6 s of the log may be missing\n"
    assert spooled(tmp_path, NOTE) == texts[5]

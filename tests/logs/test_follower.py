"""The follower delivers every byte once and in order, whatever the engine and the machine do.

The numbers in the names are the contract's: c01 exactly once, c02 an end is a hint, c03 a cut is no
end, c05 the resume point, c06 repeats by content and clocks that go back, c07 progress, c12 the last
line, c13 any bytes, c16 the start, c19 gaps, c22 pauses, c23 closing, c24 memory, c25 removal. The f
numbers are faults.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.backend.api import ENGINE, EngineState, EngineStatus, Frame, LogDeniedError
from stoke.errors import EngineError
from stoke.logs import follower as follower_module
from stoke.logs import resume
from stoke.logs.follower import Follower, FollowerBusyError
from stoke.logs.resume import OVERLAP
from stoke.logs.spool import ENGINE_LOG, NOTE, STDERR, STDOUT
from stoke.remote.events import Event
from stoke.remote.protocol import frame
from tests.scripted import ABSENT, RUNNING, Connection, ScriptedBackend, ScriptedLog, exited
from tests.spools import lines_in, size_of, spooled

NONCE = "5f1c0a9be2d34718"
START = 1_763_680_000_000_000_000
MS = 1_000_000


BEGIN: Event = {"event": "begin", "phase": "run", "time": 1.0}
NOTED: Event = {"event": "note", "text": "no cache"}
END: Event = {"event": "end", "time": 2.0, "exit_code": 0}


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.0, 0.0))


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[], Path]:
    """Return a new folder at every call, one for each example."""
    numbers = iter(range(1_000_000))
    return lambda: tmp_path / str(next(numbers))


@pytest.fixture(params=[resume.MAX_HELD, 30, 0])
def kept_of_the_overlap(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The bytes held of frames that may come again; of further frames only keys are held."""
    monkeypatch.setattr(resume, "MAX_HELD", request.param)


class Following:
    """A follower and its reports. Most of these logs do not begin like a runner's log: with `begun` the
    follower does not look for that beginning."""

    def __init__(self, backend: ScriptedBackend, folder: Path, begun: bool = True) -> None:
        self.events: list[Event] = []
        self.trouble: list[EngineError] = []
        self.flushes = 0
        self.follower = Follower(
            backend,
            "job-aaaaaa",
            NONCE,
            folder,
            self.events.append,
            self._flushed,
            self.trouble.append,
        )
        self.follower._begun = begun

    def _flushed(self) -> None:
        self.flushes += 1


def follow(backend: ScriptedBackend, folder: Path) -> tuple[EngineState | None, Following]:
    following = Following(backend, folder)
    return following.follower.run(), following


def lines_of(count: int, stream: int = STDOUT, step: int = MS) -> list[Frame]:
    return [Frame(stream, START + n * step, b"line %d\n" % n) for n in range(count)]


def joined(log: list[Frame], stream: int) -> bytes:
    return b"".join(frame.data for frame in log if frame.stream == stream)


# --- any log, any cuts ---------------------------------------------------------------------------


class Source:
    """A log with events in it, as an engine that splits at newlines stores it."""

    def __init__(self) -> None:
        self.log: list[Frame] = []
        self.user = {STDOUT: b"", STDERR: b""}
        self.events: list[Event] = []


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """Lines with and without newlines on two streams, many equal, some at the same nanosecond;
    stderr lags behind stdout's clock by up to 3 ms; events between them, whole or split at lines."""
    source = Source()
    now = START
    for number in range(draw(st.integers(0, 14))):
        now += draw(st.sampled_from([0, 0, 1, 100, MS, 4 * MS, 40 * MS]))
        kind = draw(st.sampled_from(["out", "out", "err", "err", "event"]))
        late = draw(st.sampled_from([0, 0, MS, 3 * MS])) if kind != "out" else 0
        if kind == "event":
            event = {"event": "note", "text": f"{number}"}
            source.events.append(event)
            whole = frame(NONCE, event)
            parts = [whole[:1], whole[1:]] if draw(st.booleans()) else [whole]
            source.log += [Frame(STDERR, now - late, part) for part in parts]
            continue
        stream = STDOUT if kind == "out" else STDERR
        data = draw(
            st.sampled_from([b"same\n", b"same\n", b"\n", b"no end", b"%d\n" % number, b"\xff\x1e"])
        )
        source.user[stream] += data
        source.log.append(Frame(stream, now - late, data))
    return source


CONNECTIONS = st.lists(
    st.builds(
        Connection,
        frames=st.one_of(st.none(), st.integers(0, 14)),
        end=st.sampled_from(["eof", "cut", "cut", "refused"]),
        batch=st.integers(1, 5),
    ),
    max_size=8,
)
STATES = st.lists(
    st.sampled_from([RUNNING, RUNNING, EngineError("no answer"), exited()]), max_size=6
).map(lambda states: [*states, exited()])
FAST = settings(suppress_health_check=list(HealthCheck), max_examples=200)


@FAST
@given(source=sources(), connections=CONNECTIONS, states=STATES)
def test_c01_c06_every_byte_once_and_in_order(
    make_folder: Callable[[], Path],
    source: Source,
    connections: list[Connection],
    states: list[EngineState | EngineError],
) -> None:
    """Clean ends may come early; the very last pass is complete, as with real engines."""
    folder = make_folder()
    # A clean end that lacks the tail happens while the log is followed, not to a re-reading pass.
    backend = ScriptedBackend(source.log, connections, states)
    faithful(backend)

    state, following = follow(backend, folder)

    assert state == exited()
    assert spooled(folder, STDOUT) == source.user[STDOUT]
    assert spooled(folder, STDERR) == source.user[STDERR]
    assert following.events == source.events
    assert following.follower.spool.gaps == 0


def test_c05_c06_a_late_line_outlives_cuts_before_anything_new(tmp_path: Path) -> None:
    """After each of them the next connection begins closer to the new frames."""
    log = [Frame(STDOUT, START, b"same\n"), Frame(STDERR, START - 3 * MS, b"late\n")]
    log += [Frame(STDOUT, START + 40 * MS, b"last\n")]
    cuts = [Connection(frames=1, end="cut") for _ in range(6)]
    backend = ScriptedBackend(log, [Connection(frames=1), *cuts])
    faithful(backend)
    state, following = follow(backend, tmp_path / "spool")
    assert state == exited()
    assert spooled(tmp_path / "spool", STDERR) == b"late\n"
    assert spooled(tmp_path / "spool", STDOUT) == b"same\nlast\n"
    assert following.follower.spool.gaps == 0


def faithful(backend: ScriptedBackend) -> None:
    """Only a followed log ends early without an error; a re-reading pass is whole or cut."""
    scripted = backend.logs

    def logs(job_id: str, since: int, follow: bool) -> object:
        stream = scripted(job_id, since, follow)
        if not follow and stream.how.end == "eof":
            stream.how = Connection(batch=stream.how.batch)
        return stream

    backend.logs = logs  # type: ignore[method-assign, assignment]


@settings(FAST, max_examples=80)
@given(
    source=sources(),
    connections=CONNECTIONS,
    kills=st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_c01_kill_9_at_any_moment(
    make_folder: Callable[[], Path],
    source: Source,
    connections: list[Connection],
    kills: list[int],
) -> None:
    """Real processes that end in the middle of a write, before a rename, or between two batches."""
    folder = make_folder()
    for moment in kills:
        die_following(source.log, list(connections), folder, moment)

    state, _ = follow(ScriptedBackend(source.log), folder)

    assert state == exited()
    assert spooled(folder, STDOUT) == source.user[STDOUT]
    assert spooled(folder, STDERR) == source.user[STDERR]
    assert (folder / "log").stat().st_size == sum(map(len, source.user.values()))


def die_following(
    log: list[Frame], connections: list[Connection], folder: Path, moment: int
) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        left = moment

        def step() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(137)

        real_write, real_replace = os.write, os.replace

        def write(descriptor: int, data: bytes) -> int:
            if left == 1:
                real_write(descriptor, bytes(data[: len(data) // 2]))
            step()
            return real_write(descriptor, data)

        def replace(source: str, target: str) -> None:
            step()
            real_replace(source, target)

        os.write, os.replace = write, replace  # type: ignore[assignment]
        backend = ScriptedBackend(log, connections, [RUNNING] * len(connections) + [exited()])
        faithful(backend)
        Follower(backend, "job-aaaaaa", NONCE, folder, lambda e: step(), step, lambda e: None).run()
    finally:
        os._exit(0)


# --- ends and cuts -------------------------------------------------------------------------------


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


def test_c05_a_progress_bar_that_stands_still_is_not_where_a_connection_begins(
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


def test_c03_engine_that_does_not_answer_is_told_and_asked_again(tmp_path: Path) -> None:
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


def test_c18_what_the_engine_wrote_itself_is_put_aside_once(tmp_path: Path) -> None:
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
def test_c12_last_line_without_an_end_comes_once(tmp_path: Path, stream: int) -> None:
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


def test_c19_what_the_engine_has_dropped_is_a_gap_that_shows(tmp_path: Path) -> None:
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


# --- clocks --------------------------------------------------------------------------------------


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


def test_c06_f06_clock_set_back_and_another_program_goes_on(tmp_path: Path) -> None:
    log = stepped(10, 10)
    Following(ScriptedBackend(log[:15], states=[RUNNING]), tmp_path).follower.catch_up()
    follow(ScriptedBackend(log), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


def test_c19_clock_set_back_and_the_beginning_dropped_is_a_gap(tmp_path: Path) -> None:
    log = stepped(10, 20)
    Following(ScriptedBackend(log[:15], states=[RUNNING]), tmp_path).follower.catch_up()
    _, following = follow(ScriptedBackend(log[5:]), tmp_path)
    assert following.follower.spool.gaps == 1
    assert b"no longer has all of the log" in spooled(tmp_path, NOTE)


def whole_seconds(log: list[Frame]) -> list[Frame]:
    """Return the same log as Podman before 4.4 gives it."""
    return [frame._replace(time=frame.time // 10**9 * 10**9) for frame in log]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=2).map(lambda data: data + b"\n"), max_size=40), st.data())
def test_times_in_whole_seconds_lose_and_double_nothing(
    make_folder: Callable[[], Path], texts: list[bytes], data: st.DataObject
) -> None:
    folder = make_folder()
    log = [Frame(1 + n % 2, START + n * 300 * MS, text) for n, text in enumerate(texts)]
    log = whole_seconds(log)
    for end in sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4))):
        Following(ScriptedBackend(log[:end], states=[RUNNING]), folder).follower.catch_up()
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=3))
    connections = [Connection(frames, "cut") for frames in cuts]
    _, following = follow(ScriptedBackend(log, connections), folder)
    assert spooled(folder, STDOUT) == joined(log, STDOUT)
    assert spooled(folder, STDERR) == joined(log, STDERR)
    assert following.follower.spool.gaps == 0


@pytest.mark.parametrize("before", [1, 10, 30])
def test_a_log_that_was_dropped_as_a_whole_is_a_gap_and_loses_nothing_after_it(
    tmp_path: Path, before: int
) -> None:
    log = whole_seconds(lines_of(50))
    Following(ScriptedBackend(log[:before], states=[RUNNING]), tmp_path).follower.catch_up()
    Following(ScriptedBackend(log[30:40], states=[RUNNING]), tmp_path).follower.catch_up()
    _, following = follow(ScriptedBackend(log[30:]), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log[:before] + log[30:], STDOUT)
    assert following.follower.spool.gaps == 1


def test_the_clock_of_this_machine_stands_still_against_its_own_uptime() -> None:
    offsets = [resume.clock_offset() for _ in range(200)]
    assert max(offsets) - min(offsets) < OVERLAP


# --- starts and pauses ---------------------------------------------------------------------------


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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Record the bounds of each pause instead of pausing."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0

    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.5, 30.0))
    monkeypatch.setattr("random.uniform", uniform)
    return drawn


def test_c22_pauses_double_from_half_a_second_to_thirty_with_full_jitter(
    tmp_path: Path, pauses: list[tuple[float, float]]
) -> None:
    refused = [Connection(0, "refused")] * 9
    follow(ScriptedBackend(lines_of(3), refused, [RUNNING] * 9 + [exited()]), tmp_path)
    assert pauses == [(0, most) for most in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


def test_c22_whatever_brought_something_or_lasted_is_gone_on_from_at_once(
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
    assert following.trouble, "an engine that answers and gives no log is told of"


def test_c03_access_denied_is_an_end_that_says_what_is_missing(tmp_path: Path) -> None:
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
def test_f07_a_log_whose_beginning_the_engine_dropped_says_so_once(
    tmp_path: Path, log: list[Frame], lost: bool, batch: int
) -> None:
    """Every complete log begins with the runner's first event."""
    cut = Connection(len(log) // 2, "cut", batch=batch)
    backend = ScriptedBackend(log, [cut, Connection(batch=batch)], [RUNNING, exited()])
    following = Following(backend, tmp_path, begun=False)
    following.follower.run()
    again = Following(ScriptedBackend(log), tmp_path, begun=following.follower._begun)
    again.follower.run()
    assert following.follower.spool.gaps == again.follower.spool.gaps == lost
    assert spooled(tmp_path, NOTE).count(b"beginning of the log") == lost
    if len(log) == 5000 and batch == 10_000:
        assert lines_in(tmp_path)[0].stream == NOTE


def test_f07_behind_it_reads_what_there_is_before_it_follows_again(tmp_path: Path) -> None:
    log = lines_of(200)
    behind = [Connection(20, "behind"), Connection(100), Connection(30, "behind")]
    backend = ScriptedBackend(log, behind, [RUNNING, exited()])
    state, following = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    assert [stream.follow for stream in backend.opened][:4] == [True, False, True, False]
    assert following.trouble == []


# --- memory --------------------------------------------------------------------------------------


def peak() -> int:
    """Return the peak memory of this process in KiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def many_lines() -> Iterator[list[Frame]]:
    yield [Frame(STDERR, START - MS, frame(NONCE, BEGIN))]
    for start in range(0, 500_000, 2000):
        yield [Frame(STDOUT, START + n * 7000, b"%099d\n" % n) for n in range(start, start + 2000)]


def one_line() -> Iterator[list[Frame]]:
    """A long line as engines give it: in parts that all have the time of the first."""
    yield [Frame(STDERR, START - MS, frame(NONCE, BEGIN))]
    for number in range(500):
        end = b"\n" if number == 499 else b"x"
        yield [Frame(STDOUT, START, b"%099999d" % number + end)]


@pytest.mark.parametrize(("log", "lines"), [(many_lines, 500_000), (one_line, 1)])
def test_c24_memory_does_not_grow_with_the_log(
    tmp_path: Path, log: Callable[[], Iterator[list[Frame]]], lines: int
) -> None:
    """The follower holds some megabytes of frames that may come again, and the current batch."""

    class Long:
        def __iter__(self) -> Iterator[list[Frame]]:
            return log()

        def close(self) -> None:
            pass

    backend = ScriptedBackend()
    backend.logs = lambda *_: Long()  # type: ignore[method-assign, assignment]
    child = os.fork()
    if not child:
        # The peak is inherited; from here on it is that of the child.
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        try:
            Following(backend, tmp_path).follower.catch_up()
        finally:
            os._exit(min(255, (peak() - before) // 1024))  # MiB
    megabytes = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert size_of(tmp_path) == (50_000_000, lines)
    assert megabytes < 16


# --- taking over ---------------------------------------------------------------------------------


def test_second_follower_of_the_same_folder_is_refused_while_the_first_lives(
    tmp_path: Path,
) -> None:
    backend = ScriptedBackend(lines_of(3))
    first = Following(backend, tmp_path)
    with pytest.raises(FollowerBusyError):
        Following(backend, tmp_path)
    first.follower.run()
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    state, second = follow(backend, tmp_path)
    assert state == exited()
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    assert second.events == []


def test_catching_up_takes_what_there_is_and_lets_go(tmp_path: Path) -> None:
    log = lines_of(10)
    backend = ScriptedBackend(log[:6], states=[RUNNING])
    Following(backend, tmp_path).follower.catch_up()
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
def test_f13_full_disk_is_told_and_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The history or the spool is full: saved data stays, and saving continues when there is space."""
    monkeypatch.setattr(follower_module, "FULL_SECONDS", 0.0)
    event = {"event": "note", "text": "x"}
    log = [*lines_of(5), Frame(STDERR, START + 5 * MS, frame(NONCE, event)), *lines_of(3)[2:]]
    log += [Frame(ENGINE, START + 6 * MS, b"argo=true\n")]
    following = Following(ScriptedBackend(log), tmp_path)
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

        monkeypatch.setattr(os, "write", write)

    assert following.follower.run() == exited()

    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)
    assert (tmp_path / ENGINE_LOG).read_bytes() == b"argo=true\n"
    assert following.events == [event]
    assert len(following.trouble) == 7


def test_f13_leaving_while_the_disk_is_full_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = lines_of(200)
    following = Following(ScriptedBackend(log), tmp_path)
    real = os.write
    writes = iter(range(21))

    def write(descriptor: int, data: bytes) -> int:
        if next(writes, None) is None:
            following.follower.close()
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    assert following.follower.run() is None
    monkeypatch.undo()
    assert joined(log, STDOUT).startswith(spooled(tmp_path, STDOUT))

    follow(ScriptedBackend(log), tmp_path)
    assert spooled(tmp_path, STDOUT) == joined(log, STDOUT)


def test_f13_catching_up_does_not_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = Following(ScriptedBackend(lines_of(3)), tmp_path)

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(EngineError):
        following.follower.catch_up()


# --- closing -------------------------------------------------------------------------------------


@pytest.fixture
def in_background() -> Iterator[Callable[[Following], threading.Thread]]:
    started: list[tuple[Following, threading.Thread]] = []

    def start(following: Following) -> threading.Thread:
        thread = threading.Thread(target=following.follower.run, daemon=True)
        started.append((following, thread))
        thread.start()
        return thread

    yield start
    for following, thread in started:
        following.follower.close()
        thread.join(10)


def ends(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()


def test_c23_close_while_nothing_comes(
    tmp_path: Path, in_background: Callable[[Following], threading.Thread]
) -> None:
    backend = ScriptedBackend(lines_of(5), [Connection(5, "open")], [RUNNING])
    following = Following(backend, tmp_path)
    thread = in_background(following)
    assert backend.waiting.wait(10)

    following.follower.close()
    following.follower.close()

    assert ends(thread)
    assert all(stream.closed.is_set() for stream in backend.opened)
    assert spooled(tmp_path, STDOUT) == joined(backend.log, STDOUT)
    Following(backend, tmp_path).follower.catch_up()  # The folder is free again.


def test_c23_close_while_it_waits_to_try_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_background: Callable[[Following], threading.Thread],
) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (10_000.0, 10_000.0))
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    backend = ScriptedBackend(connections=[Connection(0, "refused")] * 100, states=[RUNNING])
    following = Following(backend, tmp_path)
    thread = in_background(following)
    while backend.asked == 0:
        assert thread.is_alive()

    following.follower.close()

    assert ends(thread)


def test_c23_close_before_it_began(tmp_path: Path) -> None:
    backend = ScriptedBackend(lines_of(5), [Connection(5, "open")], [RUNNING])
    following = Following(backend, tmp_path)
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
    following = Following(backend, tmp_path)
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
    following = Following(backend, tmp_path)
    scripted = backend.logs

    def logs(job_id: str, since: int, follow: bool) -> object:
        following.follower.close()
        return scripted(job_id, since, follow)

    backend.logs = logs  # type: ignore[method-assign, assignment]
    assert following.follower.run() is None
    assert backend.opened[0].closed.is_set()


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
    Following(backend, tmp_path).follower.catch_up()

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

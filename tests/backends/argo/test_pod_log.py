"""A pod's log, read through a scripted API server: every byte once, whatever server and node do.

The numbers in the names are the follower's contract's: C1 exactly once, C2 an end is a hint, C3 kinds
of failure, C4 timestamps, C5 the resume point, C6 repeats, C8 no tail, C11 parts of lines, C12 the
last line, C13 bytes, C14 newlines, C16 not started, C19 silence, C23 closing, C25 removal.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.argo import pod_log as log_module
from backends.argo.cluster import ApiError, Cluster
from backends.argo.pod_log import PART_SIZE, PodLog, PodLogDecoder
from stoke.backend.api import EngineState, EngineStatus, Frame, LogDeniedError
from stoke.errors import EngineError
from stoke.logs import follower as follower_module
from stoke.logs.follower import Follower
from stoke.logs.spool import NOTE, STDERR
from stoke.remote.events import Event
from stoke.remote.protocol import frame
from tests.backends.argo.scripted_server import (
    CHUNKED,
    LAST,
    Entry,
    Hold,
    Piece,
    Request,
    Reset,
    ScriptedPodLog,
    ScriptedServer,
    chunk,
    entries_of,
    forbidden,
    served,
    stamp,
    status,
)
from tests.scripted import RUNNING, ScriptedBackend, exited
from tests.spools import lines_in

NONCE = "5f1c0a9be2d34718"
SECOND = 1_000_000_000
MS = 1_000_000
START = 1_763_680_000 * SECOND + 123_456_789


def podlog(cluster: Cluster, since: int = 0, follow: bool = True) -> PodLog:
    return PodLog(cluster, "job-aaaaaa", "main", since, follow)


def read(cluster: Cluster, since: int = 0, follow: bool = True) -> list[Frame]:
    return [frame for batch in podlog(cluster, since, follow) for frame in batch]


def text(frames: list[Frame]) -> bytes:
    return b"".join(frame.data for frame in frames)


def lines_of(count: int, step: int = MS) -> list[Entry]:
    return [Entry(START + n * step, b"line %d\n" % n) for n in range(count)]


# --- lines ---------------------------------------------------------------------------------------

pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"",
            b"\n",
            b"\r\n",
            b"\n\n",
            b"a\rb\n",
            b"\x00\xff\xfe",
            "é\u2028\x85".encode(),
            stamp(START),  # a job may print what looks like one
            b"rpc error: code = Unknown\n",
            b"x" * (PART_SIZE - 1),
            b"x" * PART_SIZE + b"\n",
            b"y" * (PART_SIZE + 1),
            b"z" * (3 * PART_SIZE) + b"\n",
        ]
    ),
)
outputs = st.lists(pieces, max_size=12).map(b"".join)


def parsed(wire: bytes, sizes: list[int]) -> list[Frame]:
    """Fed in pieces of these sizes, over and over."""
    lines = PodLogDecoder()
    frames, at, turn = [], 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)] if sizes else len(wire)
        frames += lines.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
    frames += lines.feed(b"", last=True)
    assert lines.failure is None
    return frames


def whole_log() -> Request:
    return Request("GET", "/log", {"timestamps": "true"}, {}, b"")


@given(
    output=outputs,
    sizes=st.lists(st.integers(1, 50_000), max_size=4),
    step=st.sampled_from([1, SECOND]),
)
def test_c11_c13_c14_every_byte_comes_out_however_the_stream_is_cut(
    output: bytes, sizes: list[int], step: int
) -> None:
    wire = served(entries_of(output, START, step), whole_log())
    frames = parsed(wire, sizes)
    assert text(frames) == output
    assert frames == parsed(wire, [])
    assert all(len(one.data) <= PART_SIZE for one in frames)
    assert all(b"\n" not in one.data[:-1] for one in frames)
    assert [one.time for one in frames] == sorted(one.time for one in frames)


@given(offset=st.integers(-14 * 60, 14 * 60), time=st.integers(SECOND, 2_000_000_000 * SECOND))
def test_c04_times_are_read_whatever_the_nodes_zone(offset: int, time: int) -> None:
    assert PodLogDecoder().feed(stamp(time, offset) + b"x\n") == [Frame(STDERR, time, b"x\n")]


@given(wire=st.binary(max_size=200), sizes=st.lists(st.integers(1, 20), max_size=3))
def test_c13_nothing_that_a_server_sends_raises(wire: bytes, sizes: list[int]) -> None:
    lines = PodLogDecoder()
    for size in sizes or [7]:
        lines.feed(wire[:size])
    lines.feed(wire, last=True)


def test_c11_a_line_without_a_timestamp_is_kept_with_the_one_before() -> None:
    wire = stamp(START) + b"one\nno time\n" + stamp(START + 5) + b"two\n"
    assert parsed(wire, [1]) == [
        Frame(STDERR, START, b"one\n"),
        Frame(STDERR, START, b"no time\n"),
        Frame(STDERR, START + 5, b"two\n"),
    ]


@pytest.mark.parametrize(
    "looks_like", [stamp(START), stamp(START)[:20] + b"x" * 12, b"rpc error: code = "]
)
def test_c11_a_timestamp_within_a_line_belongs_to_the_job(looks_like: bytes) -> None:
    output = b"x" * PART_SIZE + looks_like + b"y\n"
    wire = served(entries_of(output, START), whole_log())
    for sizes in ([1000], [PART_SIZE + 31], []):
        assert text(parsed(wire, sizes)) == output


def test_c11_an_impossible_time_is_no_timestamp() -> None:
    wire = b"2026-99-99T99:99:99.123456789Z x\n"
    assert text(parsed(wire, [1])) == wire


def test_c11_parts_glued_to_another_streams_line_are_kept() -> None:
    """The node's flag for a line's beginning is shared by both streams."""
    entries = [
        Entry(START, b"half a "),
        Entry(START + 1, b"line of stderr\n"),
        Entry(START + 2, b"line\n"),
    ]
    wire = served(entries, whole_log())
    assert text(parsed(wire, [3])) == b"half a line of stderr\nline\n"


@pytest.mark.parametrize(
    "words",
    [
        b"unable to retrieve container logs for containerd://5c7",
        b"failed to create fsnotify watcher: too many open files",
        b'rpc error: code = NotFound desc = an error occurred when try to find container "5c7"',
    ],
)
def test_c09_a_nodes_own_error_is_no_line_of_the_job(
    cluster: Cluster, server: ScriptedServer, words: bytes
) -> None:
    wire = served(lines_of(3), whole_log()) + words
    server.answers["/log"] = [[CHUNKED, chunk(wire), LAST]]
    got: list[Frame] = []
    with pytest.raises(ApiError, match="cannot read its log"):
        for batch in podlog(cluster, follow=False):
            got += batch
    assert text(got) == b"line 0\nline 1\nline 2\n"


def test_c13_memory_is_bounded_by_a_part_not_by_a_line() -> None:
    lines = PodLogDecoder()
    lines.feed(stamp(START))
    block, held = b"x" * 100_000, []
    for _ in range(1000):
        assert all(len(one.data) <= PART_SIZE for one in lines.feed(block))
        held.append(len(lines._rest))
    assert max(held) <= PART_SIZE


# --- requests ------------------------------------------------------------------------------------


def test_c04_c08_c18_c20_the_request_for_a_log(cluster: Cluster, server: ScriptedServer) -> None:
    server.answers["/log"] = [ScriptedPodLog(lines_of(1))]
    read(cluster)
    read(cluster, START)
    first, second = (request.query for request in server.requests)
    assert server.requests[0].path == "/api/v1/namespaces/team-a/pods/job-aaaaaa/log"
    assert first == {"container": "main", "timestamps": "true", "follow": "true"}
    # A second more than it takes: see the long line below.
    since = "2025-11-20T23:06:39Z"
    assert second == {**first, "sinceTime": since}


def test_c05_c11_a_long_line_around_a_whole_second_is_the_same_when_asked_for_again(
    cluster: Cluster, server: ScriptedServer
) -> None:
    """A node that is asked from that second on begins in the middle of the line."""
    line = b"x" * 50_000 + b"\n"
    second = (START // SECOND + 1) * SECOND
    entries = entries_of(line + b"next\n", second - 1_000_000, step=1_000_000)
    server.answers["/log"] = [ScriptedPodLog(entries)]
    frames = read(cluster)
    assert {frame.time for frame in frames[:-1]} == {second - 1_000_000}
    assert read(cluster, second) == frames[-1:]


@pytest.mark.parametrize(("first", "requests"), [(3000, 1), (2500, 1), (1000, 2), (5, 2)])
def test_c05_the_rest_of_a_log_is_requested_by_its_last_lines_if_they_suffice(
    cluster: Cluster, server: ScriptedServer, first: int, requests: int
) -> None:
    """A second of it may hold far more than is missing. Long lines are stored in parts."""
    long = entries_of(b"z" * (3 * PART_SIZE) + b"\n", START + 3000 * MS)
    entries = [*lines_of(3000), *long, Entry(START + 3001 * MS, b"no end")]
    server.answers["/log"] = [ScriptedPodLog(entries)]
    since = entries[first].time
    everything = read(cluster, 0, follow=False)
    del server.requests[:]
    assert read(cluster, since, follow=False) == [one for one in everything if one.time >= since]
    assert ["tailLines" in one.query for one in server.requests] == [True, False][:requests]


def test_c05_a_repeated_second_is_cut_to_the_requested_part(
    cluster: Cluster, server: ScriptedServer
) -> None:
    entries = lines_of(1000)
    server.answers["/log"] = [ScriptedPodLog(entries)]
    since = entries[700].time
    expected = [Frame(STDERR, one.time, one.data) for one in entries[700:]]
    assert read(cluster, since) == expected


def test_c12_a_last_line_without_an_end_comes_once_the_log_is_not_followed(
    cluster: Cluster, server: ScriptedServer
) -> None:
    server.answers["/log"] = [ScriptedPodLog([*lines_of(2), Entry(START + SECOND, b"no end")])]
    assert text(read(cluster, follow=True)) == b"line 0\nline 1\n"
    assert text(read(cluster, follow=False)) == b"line 0\nline 1\nno end"


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (status(404, "NotFound", 'pods "job-aaaaaa" not found'), 404, "not found"),
        (
            status(
                400,
                "BadRequest",
                'container "main" in pod "job-aaaaaa" is waiting to start: PodInitializing',
            ),
            400,
            "PodInitializing",
        ),
        (status(500, "InternalError", "dial tcp 10.0.0.9:10250: no route"), 500, "no route"),
        (status(410, "Expired", "too old"), 410, "too old"),
        (status(429, "TooManyRequests", "later", 1), 429, "later"),
        (status(503, "ServiceUnavailable", "not now"), 503, "not now"),
    ],
)
def test_c03_c16_reasons_for_a_missing_log_are_told_apart(
    cluster: Cluster, server: ScriptedServer, answer: list[Piece], code: int, word: str
) -> None:
    server.answers["/log"] = [answer]
    with pytest.raises(ApiError, match=word) as caught:
        read(cluster)
    assert caught.value.status == code


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (forbidden("get", "pods/log"), "may not get pods/log"),
        (status(401, "Unauthorized", "Unauthorized"), "rejected your credentials"),
    ],
)
def test_c03_reasons_for_a_refused_log_are_told_apart(
    cluster: Cluster, server: ScriptedServer, answer: list[Piece], word: str
) -> None:
    server.answers["/log"] = [answer]
    with pytest.raises(LogDeniedError, match=word):
        read(cluster)


# --- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [[Hold], [CHUNKED, Hold], ScriptedPodLog(lines_of(5), behind=[Hold])]
)
def test_c23_closing_ends_a_reader_and_leaves_no_connection(
    cluster: Cluster, server: ScriptedServer, answer: list[Piece]
) -> None:
    server.answers["/log"] = [answer]
    log = podlog(cluster)
    errors: list[BaseException] = []

    def follow() -> None:
        try:
            for _ in log:
                pass
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=follow)
    reader.start()
    server.wait_for(1)
    log.close()
    reader.join(20)
    assert not reader.is_alive() and errors == []
    server.wait_until_no_client_is_connected()


def test_c23_a_log_that_was_closed_asks_nothing(cluster: Cluster, server: ScriptedServer) -> None:
    log = podlog(cluster)
    log.close()
    assert list(log) == []
    assert server.requests == []


@pytest.mark.parametrize("size", [1, 2, 33])
def test_c09_slices_of_any_size(cluster: Cluster, server: ScriptedServer, size: int) -> None:
    entries = lines_of(50)
    server.answers["/log"] = [ScriptedPodLog(entries, chunk_size=size)]
    assert text(read(cluster)) == b"".join(one.data for one in entries)


def test_c24_a_slow_reader_loses_nothing(cluster: Cluster, server: ScriptedServer) -> None:
    entries = lines_of(20_000, step=1000)
    server.answers["/log"] = [ScriptedPodLog(entries, chunk_size=997)]
    got = []
    for count, batch in enumerate(podlog(cluster)):
        if count < 20:
            threading.Event().wait(0.01)
        got += batch
    assert text(got) == b"".join(one.data for one in entries)


# --- with the follower ---------------------------------------------------------------------------


class ClusterBackend(ScriptedBackend):
    """Its log is read through the API; the state of its job is scripted."""

    def __init__(self, cluster: Cluster, states: list[EngineState | EngineError]) -> None:
        super().__init__(states=states)
        self.cluster = cluster

    def logs(self, job_id: str, since: int, follow: bool) -> PodLog:  # type: ignore[override]
        return podlog(self.cluster, since, follow)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.0, 0.0))


def followed(
    cluster: Cluster, folder: Path, states: list[EngineState | EngineError], nonce: str = NONCE
) -> tuple[bytes, list[Event], list[EngineError], int]:
    """What the spool holds, the events, the trouble and the gaps. Without a nonce, of a log that no
    runner's words begin."""
    events: list[Event] = []
    trouble: list[EngineError] = []
    backend = ClusterBackend(cluster, states)
    follower = Follower(
        backend, "job-aaaaaa", nonce, folder, events.append, lambda: None, trouble.append
    )
    follower.run()
    spooled = b"".join(line.text for line in lines_in(folder) if line.stream != NOTE)
    return spooled, events, trouble, follower.spool.gaps


def log_with_events() -> list[Entry]:
    begin = frame(NONCE, {"event": "begin", "phase": "run", "time": 1.0})
    end = frame(NONCE, {"event": "end", "time": 2.0, "exit_code": 0})
    output = begin + b"one\n\ntwo\r\nno end" + end
    return entries_of(output, START, step=400 * MS)


EVENTS = ["begin", "end"]


def test_c01_c03_exactly_once_wherever_a_connection_is_cut(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    entries = log_with_events()
    wire = len(chunk(served(entries, whole_log())))
    for cut in range(0, wire, 3):
        server.answers["/log"] = [ScriptedPodLog(entries, cut_after=[cut, cut // 2, cut])]
        spooled, events, _, gaps = followed(cluster, tmp_path / str(cut), [RUNNING, exited()])
        assert spooled == b"one\n\ntwo\r\nno end", f"cut at {cut}"
        assert [one["event"] for one in events] == EVENTS
        assert gaps == 0


def test_c01_a_connection_that_is_reset(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    entries = lines_of(3000, step=MS)
    server.answers["/log"] = [
        ScriptedPodLog(entries[:1000], behind=[Reset]),
        ScriptedPodLog(entries[:2000], behind=[Reset]),
        [Reset],
        ScriptedPodLog(entries),
    ]
    spooled, _, _, gaps = followed(cluster, tmp_path / "job", [RUNNING, RUNNING, exited()], "")
    assert spooled == b"".join(one.data for one in entries)
    assert gaps == 0


def test_c02_an_end_is_a_hint(cluster: Cluster, server: ScriptedServer, tmp_path: Path) -> None:
    entries = log_with_events()
    server.answers["/log"] = [
        ScriptedPodLog(entries[:2]),
        ScriptedPodLog(entries[:2]),
        ScriptedPodLog(entries[:4]),
        ScriptedPodLog(entries),
    ]
    states: list[EngineState | EngineError] = [RUNNING, RUNNING, exited()]
    spooled, events, trouble, _ = followed(cluster, tmp_path / "job", states)
    assert spooled == b"one\n\ntwo\r\nno end"
    assert [one["event"] for one in events] == EVENTS
    assert trouble == []


def test_c06_identical_lines_at_one_time_come_as_often_as_they_were_written(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    entries = [Entry(START + n // 10, b"same\n") for n in range(500)]
    wire = len(chunk(served(entries, whole_log())))
    server.answers["/log"] = [ScriptedPodLog(entries, cut_after=[wire // 3, wire // 2, wire - 9])]
    spooled, _, _, gaps = followed(cluster, tmp_path / "job", [RUNNING, exited()])
    assert spooled == b"same\n" * 500
    assert gaps == 0


@pytest.mark.parametrize("size", [PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 5 * PART_SIZE])
def test_c10_c11_long_lines_survive_cuts(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path, size: int
) -> None:
    output = b"x" * size + b"\n" + b"\xff" * size + b"\nend"
    entries = entries_of(output, START, step=MS)
    wire = len(chunk(served(entries, whole_log())))
    cuts = [100, PART_SIZE - 10, PART_SIZE + 50, wire // 2, wire - 3]
    server.answers["/log"] = [ScriptedPodLog(entries, cut_after=cuts)]
    spooled, _, _, _ = followed(cluster, tmp_path / "job", [RUNNING, exited()])
    assert spooled == output


def test_c12_a_last_line_without_an_end_comes_once(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    entries = [*lines_of(3), Entry(START + SECOND, b"no end")]
    server.answers["/log"] = [ScriptedPodLog(entries)]
    spooled, _, _, _ = followed(cluster, tmp_path / "job", [RUNNING, RUNNING, exited()])
    assert spooled == b"line 0\nline 1\nline 2\nno end"


def test_c19_lines_lost_to_a_rotation_are_reported(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    """A node serves the newest file only."""
    entries = lines_of(5000)
    server.answers["/log"] = [ScriptedPodLog(entries[:100]), ScriptedPodLog(entries[3000:])]
    spooled, _, _, gaps = followed(cluster, tmp_path / "job", [RUNNING, exited()], "")
    assert spooled == b"".join(one.data for one in entries[:100] + entries[3000:])
    assert gaps == 1


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SILENCE_SECONDS", 0.2)


def test_c19_a_silent_connection_ends_and_the_next_one_catches_up(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path, short_silence: None
) -> None:
    """As on a node that continues to write into a file that it has rotated away."""
    early, late = lines_of(50), lines_of(80)
    server.answers["/log"] = [
        ScriptedPodLog(early, behind=[Hold]),
        ScriptedPodLog(early, behind=[Hold]),
        ScriptedPodLog(late),
    ]
    states: list[EngineState | EngineError] = [RUNNING, RUNNING, exited()]
    spooled, _, trouble, gaps = followed(cluster, tmp_path / "job", states)
    assert spooled == b"".join(one.data for one in late)
    assert (trouble, gaps) == ([], 0)


def test_c19_a_line_that_was_half_there_when_the_silence_came_is_whole(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path, short_silence: None
) -> None:
    wire = served(lines_of(3), whole_log())
    server.answers["/log"] = [[CHUNKED, chunk(wire[:-4]), Hold], ScriptedPodLog(lines_of(3))]
    spooled, _, _, _ = followed(cluster, tmp_path / "job", [RUNNING, exited()])
    assert spooled == b"line 0\nline 1\nline 2\n"


def test_c19_no_answer_at_all_is_silence_too(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path, short_silence: None
) -> None:
    """A node does not begin to answer before there is a line."""
    server.answers["/log"] = [[Hold], [Hold], ScriptedPodLog(lines_of(1))]
    spooled, _, trouble, _ = followed(cluster, tmp_path / "job", [RUNNING, RUNNING, exited()])
    assert spooled == b"line 0\n"
    assert trouble == []


def test_c19_repeats_within_the_window_are_not_lost_over_a_silence(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path, short_silence: None
) -> None:
    """Identical lines at one time count as often as they were written, also when times go back."""
    same = [Entry(START, b"same\n")] * 5
    back = [Entry(START + 3 * MS, b"a\n"), Entry(START + MS, b"b\n"), Entry(START + 2 * MS, b"a\n")]
    server.answers["/log"] = [
        ScriptedPodLog([*same, *back], behind=[Hold]),
        ScriptedPodLog([*same, *back, *same, Entry(START + 4 * MS, b"end\n")]),
    ]
    spooled, _, _, _ = followed(cluster, tmp_path / "job", [RUNNING, exited()])
    assert spooled == b"same\n" * 5 + b"a\nb\na\n" + b"same\n" * 5 + b"end\n"


def test_c19_a_log_that_is_not_followed_and_falls_silent_is_cut(
    cluster: Cluster, server: ScriptedServer, short_silence: None
) -> None:
    server.answers["/log"] = [ScriptedPodLog(lines_of(2), behind=[Hold])]
    got: list[Frame] = []
    with pytest.raises(ApiError, match="did not answer"):
        for batch in podlog(cluster, follow=False):
            got += batch
    assert text(got) == b"line 0\nline 1\n"


def test_c25_a_pod_deleted_while_it_is_followed(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers["/log"] = [
        ScriptedPodLog(lines_of(8)),
        status(404, "NotFound", 'pods "job-aaaaaa" not found'),
    ]
    states: list[EngineState | EngineError] = [EngineState(EngineStatus.ABSENT)]
    spooled, _, _, gaps = followed(cluster, tmp_path / "job", states)
    assert spooled == b"".join(one.data for one in lines_of(8))
    assert gaps == 0


def test_c03_missing_rights_are_reported_and_tried_again(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers["/log"] = [
        forbidden("get", "pods/log"),
        status(500, "InternalError", "no"),
        ScriptedPodLog(lines_of(4)),
    ]
    spooled, _, _, _ = followed(cluster, tmp_path / "job", [RUNNING, RUNNING, exited()])
    assert spooled == b"line 0\nline 1\nline 2\nline 3\n"


def test_c03_a_log_that_was_refused_to_the_end_is_a_gap(
    cluster: Cluster, server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers["/log"] = [forbidden("get", "pods/log")]
    spooled, _, _, gaps = followed(cluster, tmp_path / "job", [RUNNING, exited()])
    assert (spooled, gaps) == (b"", 1)

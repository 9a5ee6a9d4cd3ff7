"""Records of the runner are taken apart again exactly, and no other line passes for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.common.stream_markers import decode_line, decode_lines
from stoke.backend.api import Frame
from stoke.remote.runner.streams import Tagged

OTHER_LINES = [
    b'time=2026-11-21T10:00:00.000Z level=INFO msg="waiting for signals" argo=true\n',
    b"Error: exit status 2\n",
    b"",
    b"\n",
    b"\x1e\n",
    b"\x1f\n",
    b"\x1ex no record\n",
    b"written past the runner\x1d\n",
]
_BYTES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from([b"\n", b"\n\n", b"\x1e", b"\x1f\n", b"\r\n", b"x" * 8191, b"y" * 8192]),
    )
).map(b"".join)
_WRITES = st.lists(st.tuples(st.sampled_from([1, 2]), _BYTES), max_size=12)


def stored(stream: int, data: bytes) -> list[Frame]:
    """The records of one write as an engine keeps them: a frame a line, all from stdout."""
    return [Frame(1, 7, line + b"\n") for line in Tagged.lines(stream, data).split(b"\n")[:-1]]


@given(_WRITES)
def test_both_streams_come_back_byte_for_byte_and_in_order(writes: list[tuple[int, bytes]]) -> None:
    frames = [frame for stream, data in writes for frame in stored(stream, data)]
    got = decode_lines(frames) if frames else []
    for stream, data in writes:
        while data:
            frame = got.pop(0)
            assert frame.stream == stream and data.startswith(frame.data) and frame.data
            data = data.removeprefix(frame.data)
    assert got == []


@given(_WRITES, st.lists(st.tuples(st.integers(0, 50), st.sampled_from(OTHER_LINES))))
def test_other_lines_between_them_stay_as_they_are(
    writes: list[tuple[int, bytes]], others: list[tuple[int, bytes]]
) -> None:
    frames = [frame for stream, data in writes for frame in stored(stream, data)]
    for at, line in others:
        frames.insert(at, Frame(2, 9, line))
    one_by_one = [decode_line(frame.time, frame.data) or frame for frame in frames]
    assert not frames or decode_lines(frames) == one_by_one
    assert [frame.data for frame in one_by_one if frame.time == 9] == [
        frame.data for frame in frames if frame.time == 9
    ]


@given(_BYTES)
def test_every_marked_line_is_complete_and_short_enough_for_an_engine(data: bytes) -> None:
    out = Tagged.lines(1, data * 50)
    assert out == b"" or out.endswith(b"\n")
    lines = out.split(b"\n")
    assert max(map(len, lines)) < 16 * 1024
    # A runtime drops a \r before the end of a line.
    assert not any(line.endswith(b"\r") for line in lines)


def test_a_line_of_the_job_that_looks_like_another_programs_stays_the_jobs() -> None:
    for line in OTHER_LINES:
        assert b"".join(frame.data for frame in map(job_frame, stored(1, line))) == line


def job_frame(frame: Frame) -> Frame:
    found = decode_line(frame.time, frame.data)
    assert found is not None
    return found


def test_a_cut_marked_line_is_kept_as_far_as_it_came() -> None:
    assert decode_line(7, b"\x1ehalf") == Frame(1, 7, b"half")

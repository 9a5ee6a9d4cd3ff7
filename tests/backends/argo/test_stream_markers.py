"""What the runner tags is taken apart again exactly, and Argo's own lines are never the job's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.argo.stream_markers import untagged
from stoke.backend.api import ENGINE, Frame
from stoke.remote.runner import Tagged

_BYTES = st.lists(
    st.one_of(st.binary(max_size=60), st.sampled_from([b"\n", b"\n\n", b"\x1eO", b"\r\n", b"\x1e"]))
).map(b"".join)
_WRITES = st.lists(st.tuples(st.sampled_from([1, 2]), _BYTES))


def through_the_log(writes: list[tuple[int, bytes]]) -> list[Frame]:
    """The runner's lines as the log has them, one frame each."""
    out = b"".join(Tagged.lines(stream, data) for stream, data in writes)
    return [untagged(7, line + b"\n") for line in out.split(b"\n")[:-1]]


@given(_WRITES)
def test_both_streams_come_back_byte_for_byte(writes: list[tuple[int, bytes]]) -> None:
    frames = through_the_log(writes)
    for stream in (1, 2):
        sent = b"".join(data for to, data in writes if to == stream)
        assert b"".join(one.data for one in frames if one.stream == stream) == sent
    assert ENGINE not in {frame.stream for frame in frames}


@given(_BYTES)
def test_every_line_is_whole_and_short_enough_for_the_engine(data: bytes) -> None:
    out = Tagged.lines(1, data * 500)
    assert out == b"" or out.endswith(b"\n")
    lines = out.split(b"\n")
    assert max(map(len, lines)) < 16 * 1024
    # A runtime drops a \r before the end of a line.
    assert not any(line.endswith(b"\r") for line in lines)


def test_argos_lines_are_argos() -> None:
    for line in (
        b'time=2026-11-21T10:00:00.000Z level=INFO msg="waiting for signals" argo=true\n',
        b"Error: exit status 2\n",
        b"\n",
        b"\x1e\n",
        b"\x1ex not a tag\n",
    ):
        assert untagged(7, line) == Frame(ENGINE, 7, line)


def test_a_line_of_the_job_that_looks_like_argos_stays_the_jobs() -> None:
    line = b'time=2026-11-21T10:00:00.000Z level=INFO msg="sub-process exited" argo=true\n'
    (frame,) = through_the_log([(1, line)])
    assert frame == Frame(1, 7, line)


def test_a_line_that_was_cut_off_is_kept_as_far_as_it_came() -> None:
    assert untagged(7, b"\x1ehalf") == Frame(1, 7, b"half")

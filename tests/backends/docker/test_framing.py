"""Chunks and frames are taken apart exactly, however the bytes are cut."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.common.chunked import ChunkedDecoder
from backends.docker.log import MAX_FRAME, FrameDecoder, LineDecoder
from stoke.backend.api import Frame
from tests.backends.docker.fake_engine import LAST_CHUNK, chunk
from tests.backends.docker.streams import encode, raw, stamp

SECOND = 1_000_000_000
good = Frame(1, 1_700_000_000 * SECOND + 7, b"before\n")
# Few seconds, so that they repeat, go back and meet their neighbours.
times = st.integers(1_700_000_000 * SECOND, 1_700_000_003 * SECOND)
data = st.one_of(
    st.binary(max_size=60),
    # What looks like the stream's own parts.
    st.sampled_from([b"", b"\r\n", b"0\r\n\r\n", stamp(5), raw(1, b"x"), b"\xff\xfe\x00 \n"]),
)
frames = st.lists(st.builds(Frame, st.sampled_from([1, 2]), times, data), max_size=12)
cuts = st.lists(st.integers(0, 4000), max_size=20)


def pieces_of(whole: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(whole)) for cut in at), len(whole)]
    return [whole[a:b] for a, b in pairwise(bounds)]


@given(frames, cuts, st.sampled_from([0, 120, -570]))
def test_frames_arrive_whole_and_in_order(sent: list[Frame], at: list[int], offset: int) -> None:
    reader = FrameDecoder()
    whole = b"".join(encode(frame, offset) for frame in sent)
    got = [frame for piece in pieces_of(whole, at) for frame in reader.feed(piece)]
    assert got == sent
    assert reader.failure is None and not reader.within


@given(frames, cuts, cuts)
def test_chunks_need_not_be_frames(sent: list[Frame], at: list[int], wire: list[int]) -> None:
    whole = b"".join(encode(frame) for frame in sent)
    body = b"".join(chunk(piece) for piece in pieces_of(whole, at) if piece) + LAST_CHUNK
    chunks, reader = ChunkedDecoder(), FrameDecoder()
    got = [frame for piece in pieces_of(body, wire) for frame in reader.feed(chunks.feed(piece))]
    assert got == sent
    assert chunks.ended


@given(frames.filter(bool), st.data())
def test_a_stream_cut_anywhere_never_looks_ended(sent: list[Frame], choice: st.DataObject) -> None:
    body = b"".join(chunk(encode(frame)) for frame in sent) + LAST_CHUNK
    # Before the size of the last chunk is whole; of what comes after it nothing is needed.
    end = choice.draw(st.integers(0, len(body) - len(LAST_CHUNK) + 1))
    chunks, reader = ChunkedDecoder(), FrameDecoder()
    got = reader.feed(chunks.feed(body[:end]))
    assert not chunks.ended
    assert got == sent[: len(got)]


text = st.one_of(data, data.map(lambda some: some.replace(b"\n", b"") + b"\n"))
mixed = st.lists(st.builds(Frame, st.sampled_from([1, 2]), times, text), max_size=12)


@given(mixed, cuts, st.sampled_from([0, 120]), st.booleans())
def test_c09_the_fast_decoder_agrees_with_the_slow_one(
    sent: list[Frame], at: list[int], offset: int, chunks_are_frames: bool
) -> None:
    pieces = [encode(frame, offset) for frame in sent]
    if not chunks_are_frames:
        pieces = pieces_of(b"".join(pieces), at)
    body = b"".join(chunk(piece) for piece in pieces if piece) + LAST_CHUNK
    chunks, closer, lines = ChunkedDecoder(), FrameDecoder(), LineDecoder(FrameDecoder())
    expected = [frame for piece in pieces_of(body, at) for frame in closer.feed(chunks.feed(piece))]
    assert [frame for piece in pieces_of(body, at) for frame in lines.feed(piece)] == expected
    assert lines.ended


rubbish = st.lists(
    st.sampled_from([b"\r\n", b"5\r\n", b"x", b"\n", raw(1, b""), LAST_CHUNK]), max_size=8
).map(b"".join)


@given(rubbish)
def test_c09_no_bytes_are_skipped(between: bytes) -> None:
    line = chunk(encode(good))
    body = line * 2 + between + line + LAST_CHUNK
    lines, chunks, closer = LineDecoder(FrameDecoder()), ChunkedDecoder(), FrameDecoder()
    try:
        expected = closer.feed(chunks.feed(body))
    except ValueError:
        with pytest.raises(ValueError):
            lines.feed(body)
        return
    assert lines.feed(body) == expected
    assert lines.failure == closer.failure


def test_one_byte_at_a_time() -> None:
    sent = [Frame(1, 1_700_000_000 * SECOND + n, b"line %d\n" % n) for n in range(50)]
    body = b"".join(chunk(encode(frame)) for frame in sent) + LAST_CHUNK
    chunks, reader = ChunkedDecoder(), FrameDecoder()
    got = [
        frame for at in range(len(body)) for frame in reader.feed(chunks.feed(body[at : at + 1]))
    ]
    assert got == sent and chunks.ended


@pytest.mark.parametrize(
    "wire",
    [
        b"zz\r\nxx",
        b"-5\r\nxxxxx\r\n",
        b"\r\n\r\n",
        b"5" * 300,
        b"4\r\nabcdef\r\n" + LAST_CHUNK,
        b"4\r\nabcdXX4\r\nabcd\r\n",
    ],
    ids=["no number", "negative", "no size", "endless", "longer than it says", "no end"],
)
def test_data_that_is_not_chunked_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError):
        ChunkedDecoder().feed(wire)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (raw(3, b"Error grabbing logs: unexpected EOF\n"), "Error grabbing logs: unexpected EOF"),
        (raw(0, b"stdin?"), "stream 0"),
        (raw(9, b""), "stream 9"),
        (struct.pack(">BxxxL", 1, MAX_FRAME + 1), f"{MAX_FRAME + 1} bytes"),
        (struct.pack(">BxxxL", 2, 2**32 - 1), f"{2**32 - 1} bytes"),
        (raw(1, b"no time at all"), "without a timestamp"),
        (raw(1, b""), "without a timestamp"),
    ],
    ids=["engine", "stdin", "unknown", "oversize", "negative", "untimed", "empty"],
)
def test_invalid_bytes_are_a_failure_after_the_frames_before_them(bad: bytes, says: str) -> None:
    reader = FrameDecoder()
    assert reader.feed(encode(good) + bad + encode(good)) == [good]
    assert reader.failure is not None and says in reader.failure


def test_a_cut_in_the_middle_of_a_frame_shows() -> None:
    reader = FrameDecoder()
    reader.feed(encode(good)[:-1])
    assert reader.within


def test_times_are_exact_to_the_nanosecond() -> None:
    # 2038 and beyond, a leap day, one nanosecond before a second's end.
    for time in (0, 999_999_999, 1_709_164_800 * SECOND - 1, 4_102_444_800 * SECOND + 1):
        (frame,) = FrameDecoder().feed(encode(Frame(2, time, b"x")))
        assert frame.time == time

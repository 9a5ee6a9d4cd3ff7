"""The mark at the end of a program's streams, by which `stoke exec` knows that it has ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoke.cli.session import Ending
from stoke.remote.session import end_mark

PIECES = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=30)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


@given(
    parts=st.lists(st.one_of(st.binary(max_size=40), st.integers(1, 31)), max_size=6),
    sizes=PIECES,
    code=st.integers(0, 255),
)
def test_output_comes_whole_and_the_mark_never(
    parts: list[bytes | int], sizes: list[int], code: int
) -> None:
    ending = Ending()
    # Beginnings of the token among the output, as a program might guess them.
    output = b"".join(
        part if isinstance(part, bytes) else end_mark(ending.token, 0)[:part] for part in parts
    )
    mark = end_mark(ending.token, code)
    written = {
        stream: b"".join(ending.without_mark(stream, piece) for piece in cut(output + mark, sizes))
        for stream in (1, 2)
    }
    assert written == {1: output, 2: output}
    assert ending.is_complete and ending.exit_code() == code
    assert ending.without_mark(1, b"of a program that was left behind") == b""


@given(output=st.binary(max_size=60), begun=st.integers(0, 35), sizes=PIECES)
def test_a_stream_without_the_mark_comes_whole(output: bytes, begun: int, sizes: list[int]) -> None:
    ending = Ending()
    output += end_mark(ending.token, 0)[:begun]
    written = b"".join(ending.without_mark(1, piece) for piece in cut(output, sizes))
    assert written + ending.held(1) == output
    assert not ending.is_complete and ending.exit_code() is None

"""Colours are distinguished from everything else that escape sequences do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.text.ansi import Styled, TextStyle, styled_line
from stoke.text.sanitize import clean_line

PARTS = st.sampled_from(
    [
        b"a", b"word", b" ", b"\t", b"\r", b"\n", b"\x00", b"\x07", b"\x1b", b"[", b"31m", b"m", b";",
        b"\x1b[31m", b"\x1b[0m", b"\x1b[1;38;5;200m", b"\x1b[2J", b"\x1b]0;title", b"\x1b\\", b"\x9b",
        b"\xc2\x9b1m", b"\xc2\x9d", b"\xe2\x80\xae", b"\xff", b"\xe2\x80\xa8", "語".encode(),
        b"\x1b[" + b"1" * 300 + b"m",
    ]
)  # fmt: skip
LINES = st.lists(PARTS, max_size=14).map(b"".join) | st.binary(max_size=40)


@given(LINES)
def test_the_text_is_the_sanitisers_and_the_spans_lie_in_it_in_order(raw: bytes) -> None:
    styled = styled_line(raw)
    assert styled.text == clean_line(raw)
    at = 0
    for start, end, _ in styled.spans:
        assert at <= start < end <= len(styled.text)
        at = end


@pytest.mark.parametrize(
    ("codes", "style"),
    [
        ("1", TextStyle(bold=True)),
        ("1;2;22", TextStyle()),
        ("31", TextStyle(colour=1)),
        ("97;104", TextStyle(colour=15, background=12)),
        ("38;5;200", TextStyle(colour=200)),
        ("48;2;1;2;3", TextStyle(background=(1, 2, 3))),
        ("38:2::1:2:3", TextStyle(colour=(1, 2, 3))),
        ("38:5:7;4", TextStyle(colour=7, underline=True)),
        ("4:3", TextStyle(underline=True)),
        ("4;4:0", TextStyle()),
        ("7;9;3", TextStyle(italic=True, reverse=True, strike=True)),
        ("31;", TextStyle()),
        ("31;39", TextStyle()),
        ("38;5;999", TextStyle()),
        ("38;2;1", TextStyle(colour=(1, 0, 0))),
        ("38", TextStyle()),
        ("5;8", TextStyle()),
        ("99999999999999999999", TextStyle()),
    ],
)
def test_codes(codes: str, style: TextStyle) -> None:
    spans = ((0, 1, style),) if style != TextStyle() else ()
    assert styled_line(f"\x1b[{codes}mx\x1b[0m\n".encode()) == Styled("x", spans)


def test_a_bar_keeps_the_colours_of_its_last_state() -> None:
    styled = styled_line(b"\x1b[31m10%\r\x1b[32m20%\x1b[0m\r\n")
    assert styled == Styled("20%", ((0, 3, TextStyle(colour=2)),))

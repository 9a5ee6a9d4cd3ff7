"""Hostile output on its way to a terminal (security S1): colours stay, nothing else arrives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.cli.terminal import TerminalFilter
from tests.cli.conftest import Terminal

HOSTILE = [
    ("\x1b]0;PWN\x1b\\", ""),
    ("\x1b]0;PWN\x07", ""),
    ("\x1b]52;c;UFdOQ0xJUA==\x1b\\", ""),
    ("\x1b[2J\x1b[H", ""),
    ("\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\", "x"),
    ('\x1bP$q"p\x1b\\', ""),
    ("\x1b_G1\x1b\\", ""),
    ("\x1b[6n", ""),
    ("\x1b[?1049l", ""),
    ("\x1b[>4;2m", ""),
    ("\x1b[1;2!m", ""),
    ("\x9b31m", "\x1b[31m"),
    ("\x9b2J", ""),
    ("\x9d0;x\x9c", ""),
    ("\u202eabc\u2066", "abc"),
    ("a\x00\x07\x08\x7fb", "ab"),
    ("\x1bc", ""),
    ("\x1b(0", ""),
    ("\x1b\x1b[2J", ""),
    ("\x1b[2\x1b[1mbold", "\x1b[1mbold"),
    ("\x1b[31", ""),
]
HARMLESS = [
    "plain\n",
    "tab\there\r\n",
    "50%\r51%\r",
    "\x1b[1;38;5;9mred",
    "\x1b[0m",
    "żółw 日本 🎉",
]


def fed(pieces: list[bytes]) -> bytes:
    through = TerminalFilter()
    out = b"".join(through.feed(piece) for piece in pieces) + through.finish()
    # The colours' end, which only what still has a colour gets.
    return out.removesuffix(b"\x1b[0m") if not b"".join(pieces).endswith(b"\x1b[0m") else out


@pytest.mark.parametrize(("hostile", "left"), HOSTILE)
def test_hostile_text_is_taken_out_wherever_it_is_cut(hostile: str, left: str) -> None:
    data = f"before{hostile}".encode()
    for cut in range(len(data) + 1):
        assert fed([data[:cut], data[cut:]]) == f"before{left}".encode()


@pytest.mark.parametrize("text", HARMLESS)
def test_text_and_colours_stay_wherever_they_are_cut(text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        assert fed([data[:cut], data[cut:]]) == data


@given(st.lists(st.binary(max_size=40)))
def test_nothing_but_colours_ever_follows_an_escape(pieces: list[bytes]) -> None:
    through = TerminalFilter()
    out = b"".join(through.feed(piece) for piece in pieces) + through.finish()
    text = out.decode()
    for part in text.split("\x1b")[1:]:
        assert part[0] == "[" and part.lstrip("[0123456789;:")[0] == "m"
    controls = {character for character in text if character < " " or "\x7f" <= character < "\xa0"}
    assert controls <= set("\x1b\n\r\t")


def test_a_string_without_an_end_hides_no_more_than_its_line() -> None:
    assert fed([b"\x1b]0;no end\nthe next line\n"]) == b"\nthe next line\n"


def test_a_colour_that_is_left_on_ends_with_the_output() -> None:
    through = TerminalFilter()
    assert through.feed(b"\x1b[31mred") + through.finish() == b"\x1b[31mred\x1b[0m"
    assert through.feed(b"\x1b[31mred\x1b[0m") + through.finish() == b"\x1b[31mred\x1b[0m"


def test_half_a_character_at_the_end_is_shown_as_damaged() -> None:
    assert fed(["ż".encode()[:1]]) == "\ufffd".encode()


def test_a_terminal_that_knows_no_utf8_gets_no_byte_it_could_take_for_a_command() -> None:
    # U+00DB is C3 9B in UTF-8, and 9B alone begins a sequence on an eight-bit terminal.
    assert TerminalFilter("latin-1").feed("Û€".encode()) == b"\xdb?"


def test_a_job_cannot_speak_to_the_terminal(terminal: Callable[..., Terminal]) -> None:
    code = (
        "import sys\n"
        "for stream in (sys.stdout, sys.stderr):\n"
        "    stream.write('\\x1b]0;PWN\\x07\\x1b[2J\\x1b[31mred\\x1b[0m \\x9b6n\\u202e\\n')\n"
    )
    at = terminal("run", "-c", code, "--name", "\x1b]0;NAME\x07")
    assert at.wait() == 0
    assert at.screen.count(b"\x1b[31mred\x1b[0m \r\n") == 2
    for hostile in (b"\x1b]", b"PWN", b"\x1b[2J", b"\x9b", "\u202e".encode()):
        assert hostile not in at.screen

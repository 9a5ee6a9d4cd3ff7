"""Hostile output on its way to a terminal (security S1): colours stay, nothing else arrives."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.cli.terminal import JobScreen, TerminalFilter
from tests.cli.conftest import only_job
from tests.terminals import Terminal
from tests.tui.screen_model import ScreenModel

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
    ("\x1b[8msecret", "secret"),
    ("\x1b[08;8:1msecret", "secret"),
    ("\x1b[1;8;31msecret", "\x1b[1;31msecret"),
    ("\x1b[38;8msecret", "\x1b[38msecret"),
    ("\x1b[38;5;8;8msecret", "\x1b[38;5;8msecret"),
    ("\x1b[48;2;8;8;8;8msecret", "\x1b[48;2;8;8;8msecret"),
    ("\x9b8msecret", "secret"),
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


# ------------------------------------------------------------------ progress bars

WIDTH, HEIGHT = 80, 24

# As rich.live draws: the cursor goes up over its own rows and erases them one by one.
LIVE = r"""
import sys, time
def draw(rows, up):
    sys.stdout.write("\r" + "\x1b[2K\x1b[1A" * up + "\x1b[2K" + "\n".join(rows))
    sys.stdout.flush()
for step in range(4):
    rows = [f"download {'#' * step}", f"convert {'=' * step}", "two bars"]
    draw(rows, 2 if step else 0)
    time.sleep(0.01)
print("\n\x1b[32mdone\x1b[0m")
"""
# As tqdm draws bars below one another, and takes the lower one away.
NESTED = r"""
import sys, time
say = sys.stderr.write
for epoch in range(3):
    say(f"\repochs {epoch}/3")
    for batch in range(5):
        say(f"\n\r  batch {batch}/5\x1b[A")
        sys.stderr.flush()
        time.sleep(0.005)
    say("\n\r" + " " * 20 + "\r\x1b[A")
say("\repochs 3/3\ntrained\n")
"""
# As click and others redraw one line.
ERASED = r"""
import sys, time
for step in range(5):
    print(f"\r\x1b[K{'.' * (9 - step)} {step}", end="", flush=True)
    time.sleep(0.005)
print("\r\x1b[2K\x1b[1Gready: \x1b[2D;")
print("column\x1b[3Gx\x1b[Cy\x1b[2Dz\x1b[K")
"""


def shown(data: bytes) -> list[str]:
    """The rows of a terminal that was sent `data`."""
    model = ScreenModel(WIDTH, HEIGHT)
    model.feed(data)
    return model.text().rstrip("\n").split("\n")


@pytest.mark.parametrize("code", [LIVE, NESTED, ERASED], ids=["live", "nested", "erased"])
@pytest.mark.parametrize("quiet", [True, False])
def test_progress_bars_look_as_with_python(
    terminal: Callable[..., Terminal], place: list[str], tmp_path: Path, code: str, quiet: bool
) -> None:
    script = tmp_path / "bars.py"
    script.write_text(code)
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, str(script)], stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    plain = b""
    with contextlib.suppress(OSError):  # what Linux says at the end
        while data := os.read(ours, 1 << 16):
            plain += data
    os.close(ours)
    at = terminal("run", *place, *(["-q"] if quiet else []), str(script))
    assert at.wait() == 0
    rows = shown(at.screen)
    if not quiet:
        *rows, last = [row for row in rows if not row.startswith("stoke: ") or "succ" in row]
        assert last.startswith("stoke: succeeded in ")
    assert rows == shown(plain)
    replayed = terminal("logs", only_job().id)
    assert replayed.wait() == 0
    assert shown(replayed.screen) == shown(plain)


MOVES = st.one_of(
    st.sampled_from(["\n", "\r", "text", "\x1b[2K", "\x1b[J", "\x1b[2J", "\x1b[H", "\x1bM", "\x1b8",
                     "\x1b[1;1H", "\x1b[3d", "\x1b[5T", "\x1b[5S", "\x1b[2r", "\x1b[u", "\x1b[L"]),
    st.builds("\x1b[{}{}".format, st.integers(0, 99), st.sampled_from("ABEFKJGCDPX@")),
    st.text(st.characters(codec="utf-8"), max_size=100),
)  # fmt: skip


def on_the_line(data: bytes) -> bytes:
    """What a terminal's line discipline makes of it."""
    return data.replace(b"\n", b"\r\n")


@given(st.lists(MOVES, max_size=40), st.integers(1, 6), st.integers(3, 12))
def test_no_row_that_is_not_the_jobs_is_ever_changed(
    moves: list[str], lines: int, height: int
) -> None:
    before = [f"stoke: line {number}" for number in range(lines)]
    model = ScreenModel(20, height)
    # More rows than the screen has, to see what scrolls off.
    seen: list[str] = []
    screen = JobScreen(lambda: height)
    through = TerminalFilter("utf-8", screen)
    model.feed("".join(f"{line}\r\n" for line in before).encode())
    for move in moves:
        model.feed(on_the_line(through.feed(move.encode())))
        seen = model.text().split("\n")
        ours = [row for row in seen if row.startswith("stoke: line ")]
        # They leave at the top, one by one and whole, and nothing else happens to them.
        assert ours == before[len(before) - len(ours) :]
        assert seen[: len(ours)] == ours
    model.feed(on_the_line(through.finish() + screen.below().encode()))
    model.feed(b"stoke: end")
    assert "stoke: end" in model.text().split("\n")


def test_a_line_of_ours_in_between_is_out_of_the_jobs_reach() -> None:
    screen = JobScreen(lambda: HEIGHT)
    out, err = TerminalFilter("utf-8", screen), TerminalFilter("utf-8", screen)
    assert out.feed(b"one\ntwo\n\x1b[2Aup") == b"one\ntwo\n\x1b[2Aup"
    assert screen.below() == "\x1b[2B\r"
    screen.clear()
    # The other stream is on the same screen.
    assert err.feed(b"\x1b[Athree\x1b[9F") == b"three\r"
    assert err.feed(b"\n\n\x1b[9B") == b"\n\n"
    assert out.feed(b"\x1b[9A\x1b[1B") == b"\x1b[2A\x1b[1B"


def test_without_a_screen_of_its_own_a_job_moves_nothing() -> None:
    assert fed([b"a\x1b[2K\x1b[1A\x1b[3Gb\x08c"]) == b"abc"

"""Copying uses the first way that works, reports it, and cuts nothing off."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from textual.app import App

from stoke.errors import StokeError
from stoke.files.paths import state_dir
from tests.tui.conftest import WAIT_SECONDS
from tui.terminal.clipboard import copy

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
Tmux = Callable[..., str]


class Written:
    """Replace the app and its driver, and record the bytes sent to the terminal."""

    def __init__(self) -> None:
        self.written = ""
        self._driver = self

    def write(self, data: str) -> None:
        self.written += data

    def copy_to_clipboard(self, text: str) -> None:
        self.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a")


def copied(text: str) -> tuple[str, str]:
    """(the way, what went to the terminal)"""
    app = Written()
    return copy(cast("App[Any]", app), text), app.written


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    """A real tmux without configuration, in which this process seems to run."""
    command = ["tmux", "-f", "/dev/null", "-S", str(tmp_path / "tmux")]

    def run(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], capture_output=True, check=True)
        return done.stdout.decode()

    run("new-session", "-d", "-s", "test", "sleep 600")
    monkeypatch.setenv("TMUX", run("display-message", "-p", "#{socket_path},#{pid},0").strip())
    yield run
    run("kill-server")


def test_inside_tmux_the_text_is_in_its_buffer(tmux: Tmux) -> None:
    text = "one\n\ttwo 語\n" * 100_000
    way, written = copied(text)
    assert way == "copied through tmux"
    assert written == ""
    assert tmux("save-buffer", "-") == text


def test_an_old_tmux_without_w_still_gets_the_text(
    tmux: Tmux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "bin" / "tmux"
    older.parent.mkdir()
    real = shutil.which("tmux")
    older.write_text(f'#!/bin/sh\n[ "$2" = -w ] && exit 1\nexec {real} "$@"\n')
    older.chmod(0o755)
    monkeypatch.setenv("PATH", str(older.parent), prepend=os.pathsep)
    assert copied("kept")[0] == "copied into tmux's buffer"
    assert tmux("save-buffer", "-") == "kept"


def test_tmux_passes_the_text_to_the_outer_terminal(
    tmux: Tmux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tmux whose terminal is another tmux."""
    outer = ["tmux", "-f", "/dev/null", "-S", str(tmp_path / "outer")]
    inner = os.environ["TMUX"].split(",")[0]
    attach = f"env -u TMUX tmux -S {inner} attach -t test"
    subprocess.run([*outer, "new-session", "-d", attach], check=True)
    try:
        # With this it accepts OSC 52 from a program inside, as terminals do.
        subprocess.run([*outer, "set", "-g", "set-clipboard", "on"], check=True)
        _until(lambda: "test" in tmux("list-clients"))
        assert copied("over the wire")[0] == "copied through tmux"
        show = [*outer, "show-buffer"]
        _until(lambda: subprocess.run(show, capture_output=True).stdout == b"over the wire")
    finally:
        subprocess.run([*outer, "kill-server"], check=True)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_tmux_that_has_ended_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", "/nowhere/tmux,1,0")
    way, written = copied("text")
    assert way == "copied through the terminal (OSC 52)"
    assert written == "\x1b]52;c;dGV4dA==\a"


def test_gnu_screen_gets_the_text_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STY", "1.pts-0.host")
    text = "text " * 1000
    way, written = copied(text)
    assert way == "copied through screen (OSC 52)"
    pieces = re.findall("\x1bP(.*?)\x1b\\\\", written, re.DOTALL)
    assert max(map(len, pieces)) < 768
    encoded = base64.b64encode(text.encode()).decode()
    assert "".join(pieces) == f"\x1b]52;c;{encoded}\a"


# 74,994 bytes of base64 hold 18,748 groups of three.
@pytest.mark.parametrize(("size", "fits"), [(18_748 * 3, True), (18_748 * 3 + 1, False)])
def test_a_text_too_long_for_the_terminals_clipboard_is_saved_to_a_file(
    size: int, fits: bool
) -> None:
    way, written = copied("x" * size)
    kept = state_dir() / "copied.txt"
    if fits:
        assert "OSC 52" in way
        assert len(written) > size
        assert not kept.exists()
        return
    assert written == ""
    assert "too long" in way
    assert str(kept) in way
    assert kept.read_text() == "x" * size
    assert kept.stat().st_mode & 0o077 == 0


def test_an_error_of_writing_that_file_is_reported() -> None:
    (state_dir() / "copied.txt").mkdir(parents=True)
    with pytest.raises(StokeError, match="cannot copy"):
        copied("x" * 100_000)

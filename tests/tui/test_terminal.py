"""The installed program on a terminal of its own: what it writes, byte for byte."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from stoke.history import History
from stoke.job import Job, JobState, Phase
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from stoke.paths import history_file, job_dir, state_dir
from tests.tui.conftest import WAIT_SECONDS
from tests.tui.test_hostile import ALL

STOKE = [sys.executable, "-c", "from stoke.cli.main import main; main()"]
# What only the hostile strings hold; the program's own sequences are others.
FORBIDDEN = (
    *(b"\x1b]0;PWN", b"\x1b]52;", b"\x1b]8;", b"\x1bP$q", b"\x1b[6n"),
    *(b"\x9b31m", b"\xc2\x9b", b"\xc2\x9d", b"\xe2\x80\xae"),
)


class Terminal:
    """The program in a pty of 120 x 40, and all it has written."""

    def __init__(self, *arguments: str) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color"}
        self.program = subprocess.Popen(
            [*STOKE, *arguments], stdin=inner, stdout=inner, stderr=inner, env=env
        )
        os.close(inner)
        self.written = b""

    def read(self, seconds: float) -> bytes:
        """What arrives until nothing has for `seconds`."""
        got = b""
        while select.select([self.fd], [], [], seconds)[0]:
            try:
                got += os.read(self.fd, 65536)
            except OSError:
                break
        self.written += got
        return got

    def until(self, text: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.text():
            assert time.monotonic() < deadline, f"{text!r} never appeared"
            self.read(0.1)

    def text(self) -> str:
        """All that was ever written, without the program's own sequences."""
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", self.written.decode(errors="replace"))

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait()
        os.close(self.fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def hostile_job() -> None:
    spec = {"code": f"x = '''{ALL}'''\n", "args": [ALL], "env": {"A": ALL}, "image": ALL}
    with History() as history:
        job = Job("job-aaaaaa", ALL, "local", "default", JobState.QUEUED, time.time())
        history.add(job, json.dumps(spec), None)
        history.set_phase(job.id, Phase(ALL, 1.0, 1.0, True, 1, 1, 1))
        with sqlite3.connect(history_file()) as database:
            database.execute("UPDATE jobs SET backend = ?, scope = ?, image = ?", (ALL,) * 3)
        history.update(
            job.id, state=JobState.FAILED, reason=f"because {ALL}", finished_at=time.time()
        )
    for stream in (STDOUT, STDERR):
        writer = SpoolWriter(job_dir("job-aaaaaa"))
        writer.add(stream, 1, f"a line {ALL}\n".encode())
        writer.add(stream, 1, b"bytes \x9b31m \x9d0;x\x9c \xff\n")
        writer.note(1, f"gap: {ALL}")
        writer.close()


def test_what_jobs_write_never_reaches_the_terminal_raw(
    hostile_job: None, terminal: Terminal
) -> None:
    terminal.until("a line")
    for keys in (
        b"w",
        b"]",
        b"]",
        b"?",
        b"\x1b",
        b"y",
        b"d",
        b"\x1b",
        b"\x0e",
        b"3",
        b"2",
        b"1",
        b"r",
    ):
        terminal.press(keys)
        terminal.read(0.3)
    # What `y` copies goes out as the program's own OSC 52; it holds the id, nothing of the job's.
    copied = b"\x1b]52;c;am9iLWFhYWFhYQ=="
    written = terminal.written.replace(copied, b"")
    for forbidden in FORBIDDEN:
        at = written.find(forbidden)
        assert at < 0, written[max(0, at - 60) : at + 60]


def test_at_rest_it_writes_nothing(hostile_job: None, terminal: Terminal) -> None:
    terminal.until("a line")
    for screen, shown in ((b"2", "prediction:"), (b"\x1b\x1b3", "Caches")):
        terminal.read(1.5)
        assert terminal.read(2.5) == b""
        terminal.press(screen)
        terminal.until(shown)
    terminal.read(1.5)
    assert terminal.read(2.5) == b""


def test_leaving_says_what_still_runs() -> None:
    code = "import time; print('begun', flush=True); time.sleep(600)"
    command = [*STOKE, "run", "--detach", "-c", code]
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    terminal = Terminal()
    try:
        terminal.until("begun")
        terminal.press(b"q")
        terminal.until(f"stoke logs -f {job}")
        assert terminal.program.wait(WAIT_SECONDS) == 0
    finally:
        terminal.close()
        subprocess.run([*STOKE, "stop", job], capture_output=True, check=False)


def test_a_lost_connection_loses_no_draft(terminal: Terminal) -> None:
    terminal.until("No jobs yet")
    terminal.press(b"2")
    terminal.until("Python code")
    terminal.press(b"precious = 1")
    deadline = time.monotonic() + WAIT_SECONDS
    kept = state_dir() / "draft.json"
    while not (kept.exists() and "precious = 1" in kept.read_text()):
        assert time.monotonic() < deadline
        terminal.read(0.1)
    terminal.program.send_signal(signal.SIGHUP)
    terminal.program.wait(WAIT_SECONDS)
    assert "precious = 1" in kept.read_text()


def test_a_key_gives_the_mouse_back_to_the_terminal(terminal: Terminal) -> None:
    terminal.until("No jobs yet")
    assert b"\x1b[?1000h" in terminal.written
    terminal.press(b"M")
    terminal.until("mouse off")
    assert b"\x1b[?1000l" in terminal.written
    terminal.written = b""
    terminal.press(b"M")
    terminal.until("mouse on")
    assert b"\x1b[?1000h" in terminal.written

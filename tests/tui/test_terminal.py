"""The installed program on a terminal of its own: what it writes, byte for byte."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.files.crash_report import crash_file
from stoke.files.paths import history_file, job_dir, state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from tests.tui.conftest import WAIT_SECONDS
from tests.tui.screen_model import ScreenModel
from tests.tui.test_hostile import ALL

MAIN = "from stoke.cli.main import main; main()"
STOKE = [sys.executable, "-c", MAIN]
# What only the hostile strings hold; the program's own sequences are others.
FORBIDDEN = (
    *(b"\x1b]0;PWN", b"\x1b]52;", b"\x1b]8;", b"\x1bP$q", b"\x1b[6n"),
    *(b"\x9b31m", b"\xc2\x9b", b"\xc2\x9d", b"\xe2\x80\xae"),
)
ASK, ANSWER = b"\x1b[6n", b"\x1b[40;120R"


class Terminal:
    """The program in a pty of 120 x 40, optionally inside another program, and all of its output."""

    def __init__(
        self, *arguments: str, inside: str = "", program: str = MAIN, **variables: str
    ) -> None:
        self.fd, inner = pty.openpty()
        self.resize(120, 40)
        env = {**os.environ, "TERM": "xterm-256color", **variables}
        command = [*inside.split(), sys.executable, "-c", program, *arguments]
        self.program = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env)
        os.close(inner)
        self.written = b""
        self.answers = True
        """Whether it answers requests for the cursor position."""
        self.asked = 0
        self._screen = ScreenModel(120, 40)

    def read(self, seconds: float) -> bytes:
        """Read until nothing has arrived for `seconds`."""
        got = b""
        # Not select, which is limited to descriptors below 1,024: a worker may have more files open.
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        while waiting.poll(seconds * 1000):
            try:
                got += os.read(self.fd, 65536)
            except OSError:
                break
        self.written += got
        self._screen.feed(got)
        asked = self.written.count(ASK)
        if self.answers:
            self.press(ANSWER * (asked - self.asked))
        self.asked = asked
        return got

    def until(self, text: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.text():
            assert time.monotonic() < deadline, f"{text!r} never appeared"
            self.read(0.1)

    def until_gone(self, text: str) -> None:
        """Wait until a text that was shown is drawn over."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text in self.text():
            assert time.monotonic() < deadline, f"{text!r} never went"
            self.read(0.1)

    def text(self) -> str:
        """Return what is on the terminal."""
        return self._screen.text()

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

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


@pytest.mark.skipif(not shutil.which("screen"), reason="needs GNU screen")
def test_text_copied_inside_gnu_screen_reaches_the_outer_terminal(tmp_path: Path) -> None:
    line = " ".join(f"word-{number}" for number in range(600))
    with History() as history:
        history.add(
            Job("job-aaaaaa", "job", "local", "default", JobState.QUEUED, time.time()), None, None
        )
        history.update("job-aaaaaa", state=JobState.SUCCEEDED, finished_at=time.time())
    writer = SpoolWriter(job_dir("job-aaaaaa"))
    writer.add(STDOUT, 1, f"{line}\n".encode())
    writer.close()
    folder = str(tmp_path / "screen")
    os.mkdir(folder, 0o700)
    terminal = Terminal(inside="screen -c /dev/null -S stoke", SCREENDIR=folder, TMUX="")
    try:
        copied = b"\x1b]52;c;" + base64.b64encode(line.encode()) + b"\a"
        deadline = time.monotonic() + WAIT_SECONDS
        while copied not in terminal.written:
            assert time.monotonic() < deadline, "what was copied never came"
            if b"word-0" in terminal.written:
                terminal.press(b"\ry")
            terminal.read(0.5)
    finally:
        # GNU screen outlives its terminal.
        quits = ["screen", "-S", "stoke", "-X", "quit"]
        subprocess.run(quits, env={**os.environ, "SCREENDIR": folder}, check=False)
        terminal.close()


def test_output_of_jobs_never_reaches_the_terminal_unsanitized(
    hostile_job: None, terminal: Terminal
) -> None:
    terminal.until("a line")
    for keys, shown in (
        (b"w]", "peak memory"),
        (b"]", "image"),
        (b"?", "Keys: Jobs"),
        (b"\x1b", "-Keys: Jobs"),
        (b"y", "job id"),
        (b"y", "copied through"),
        (b"d", "Remove this job?"),
        (b"\x1b", "-Remove this job?"),
        (b"r", "image"),
        (b"3", "share a scope"),
        (b"2", "Python code"),
    ):
        terminal.press(keys)
        (terminal.until_gone if shown[0] == "-" else terminal.until)(shown.lstrip("-"))
    # The job id, which `y` copies in the program's own OSC 52 sequence.
    copied = b"\x1b]52;c;am9iLWFhYWFhYQ=="
    assert copied in terminal.written
    written = terminal.written.replace(copied, b"")
    for forbidden in FORBIDDEN:
        at = written.find(forbidden)
        assert at < 0, written[max(0, at - 60) : at + 60]


def test_an_idle_program_writes_nothing_to_the_terminal(
    hostile_job: None, terminal: Terminal
) -> None:
    # Leave the editor, then the form.
    caches = ((b"\x1b", "Accept"), (b"\x1b", "a line"), (b"3", "share a scope"))
    for steps in (((b"", "a line"),), ((b"2", "Python code"),), caches):
        for key, shown in steps:
            terminal.press(key)
            terminal.until(shown)
        while "Loading ..." in terminal.text():
            terminal.read(0.1)
        terminal.read(1.5)
        assert terminal.read(2.5) == b""


def test_quitting_lists_the_jobs_that_still_run() -> None:
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


def test_a_key_returns_the_mouse_to_the_terminal(terminal: Terminal) -> None:
    terminal.until("No jobs yet")
    assert b"\x1b[?1000h" in terminal.written
    terminal.press(b"M")
    terminal.until("mouse off")
    assert b"\x1b[?1000l" in terminal.written
    before = len(terminal.written)
    terminal.press(b"M")
    terminal.until("mouse on")
    assert b"\x1b[?1000h" in terminal.written[before:]


SSH = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}


@pytest.fixture
def flood() -> Iterator[str]:
    """A job that prints a window of lines again and again."""
    code = """
import time
for number in range(1_000_000):
    print("line", number, flush=True)
    time.sleep(0.002)
"""
    command = [*STOKE, "run", "--detach", "-c", code]
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    yield job
    subprocess.run([*STOKE, "stop", "--now", job], capture_output=True, check=False)


def test_over_ssh_a_log_is_drawn_four_times_a_second_at_most(flood: str) -> None:
    terminal = Terminal(**SSH)
    try:
        terminal.until("following")
        begun, asked = time.monotonic(), terminal.asked
        while terminal.asked < asked + 10:
            assert time.monotonic() < begun + WAIT_SECONDS
            terminal.read(0.01)
        # Each is one frame of the log.
        assert (terminal.asked - asked) / 4 <= time.monotonic() - begun + 0.5
    finally:
        terminal.close()


def test_a_slow_terminal_gets_no_further_frame_of_the_log(flood: str) -> None:
    terminal = Terminal(**SSH)
    terminal.answers = False
    try:
        while not terminal.asked:
            terminal.read(0.1)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            terminal.read(0.1)
        assert terminal.asked == 1
        # Keys still work.
        terminal.press(b"f")
        terminal.until("below")
        terminal.press(b"f" + ANSWER)
        while terminal.asked == 1:
            terminal.read(0.1)
        # An answer that is still on its way must not appear in the shell.
        terminal.press(b"q")
        terminal.read(0.3)
        assert terminal.program.poll() is None
        terminal.press(ANSWER)
        terminal.until(f"stoke logs -f {flood}")
        assert terminal.program.wait(WAIT_SECONDS) == 0
    finally:
        terminal.close()


def test_the_screen_is_right_after_a_thousand_resizes(
    hostile_job: None, terminal: Terminal
) -> None:
    terminal.until("a line")
    for number in range(1000):
        terminal.resize(20 + number % 150, 5 + number % 60)
        if number % 50 == 0:
            terminal.read(0.01)
    terminal.resize(20, 5)
    terminal.read(0.3)
    terminal.press(b"?")
    terminal.read(0.3)
    terminal.resize(120, 40)
    terminal.press(b"\x1b")
    terminal.read(1.5)
    before = terminal.text()
    assert "a line" in before and "because" in before
    # A full redraw gives the same screen.
    terminal.press(b"\x0c")
    terminal.read(1.5)
    assert terminal.text() == before
    terminal.press(b"q")
    assert terminal.program.wait(WAIT_SECONDS) == 0


def test_a_damaged_history_is_reported_with_a_hint(terminal: Terminal) -> None:
    terminal.until("No jobs yet")
    terminal.press(b"q")
    assert terminal.program.wait(WAIT_SECONDS) == 0
    for file in history_file().parent.glob(f"{history_file().name}*"):
        file.write_bytes(b"this is no database\n" * 1000)
    again = Terminal()
    try:
        again.until("damaged")
        assert str(history_file().name) in again.text()
        again.program.wait(WAIT_SECONDS)
    finally:
        again.close()


def test_the_screens_survive_a_history_damaged_meanwhile(
    hostile_job: None, terminal: Terminal
) -> None:
    terminal.until("a line")
    for file in history_file().parent.glob(f"{history_file().name}*"):
        file.write_bytes(b"this is no database\n" * 10_000)
    terminal.until("history:")
    terminal.press(b"?")
    terminal.until("Keys: Jobs")
    terminal.press(b"\x1b")  # The search of the help takes letters.
    terminal.read(0.5)
    terminal.press(b"q")
    assert terminal.program.wait(WAIT_SECONDS) is not None


BROKEN = f"""
from tui.app import StokeApp

def broken(self):
    password = "hunter2"
    raise RuntimeError("broken \\x1b[2J here")

StokeApp.action_mouse = broken
{MAIN.replace("main()", "raise SystemExit(main())")}
"""


def test_a_crash_restores_the_terminal_and_keeps_its_traceback_in_a_file() -> None:
    """No local variable is printed or written: it may hold a secret."""
    terminal = Terminal(program=BROKEN)
    try:
        terminal.until("No jobs yet")
        before = len(terminal.written)
        terminal.press(b"M")
        terminal.until("error: stoke itself failed: RuntimeError: broken")
        assert terminal.program.wait(WAIT_SECONDS) == 1
        last = terminal.written[before:]
        assert b"\x1b[?1049l" in last and b"\x1b[?25h" in last
        assert str(crash_file()) in terminal.text().replace("\n", "")
        assert b"hunter2" not in last
        assert b"Traceback" not in last
    finally:
        terminal.close()
    report = crash_file().read_text()
    assert "RuntimeError: broken" in report and "Traceback" in report
    assert "hunter2" not in report
    assert crash_file().stat().st_mode & 0o777 == 0o600

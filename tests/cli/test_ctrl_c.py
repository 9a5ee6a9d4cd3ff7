"""ctrl+c in `stoke run`: what the code hears of it, and what the command ends with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stoke.history.job import JobState
from tests.cli.conftest import only_job
from tests.terminals import Terminal

CHECKPOINT = """
import sys, time
try:
    print("began")
    while True: time.sleep(0.05)
except KeyboardInterrupt:
    print("checkpoint written")
    sys.exit(int(sys.argv[1]))
finally:
    print("finally")
"""
CTRL_C = "\x03"
FOREVER = "import time\nprint('began')\nwhile True: time.sleep(0.05)\n"


@pytest.mark.parametrize("code", [0, 5])
def test_the_code_catches_it_and_ends_as_it_likes(
    terminal: Callable[..., Terminal], place: list[str], code: int
) -> None:
    at = terminal("run", *place, "-c", CHECKPOINT, "--", str(code))
    at.until(b"began")
    at.type(CTRL_C)
    assert at.wait() == code
    assert b"checkpoint written\r\nfinally\r\n" in at.screen
    job = only_job()
    assert (job.state, job.exit_code, job.reason) == (JobState.STOPPED, code, "interrupted")


def test_code_that_does_not_catch_it_ends_as_python_does(
    terminal: Callable[..., Terminal], place: list[str]
) -> None:
    at = terminal("run", *place, "-c", FOREVER)
    at.until(b"began")
    at.type(CTRL_C)
    assert at.wait() == 130
    assert b"KeyboardInterrupt" in at.screen
    job = only_job()
    assert (job.state, job.exit_code, job.reason) == (JobState.STOPPED, 130, "interrupted")


def test_all_processes_of_the_code_hear_it(
    terminal: Callable[..., Terminal], place: list[str]
) -> None:
    worker = "try: print('began'); sys.stdin.read()\nexcept KeyboardInterrupt: print('worker too')"
    code = (
        "import subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', '''import sys\n{worker}'''],"
        " stdin=subprocess.PIPE)\n"
        "try: worker.wait()\nexcept KeyboardInterrupt: worker.wait()\n"
    )
    at = terminal("run", *place, "-c", code)
    at.until(b"began")
    at.type(CTRL_C)
    assert at.wait() == 0
    assert b"worker too" in at.screen


def test_the_second_ctrl_c_kills_code_that_ignores_the_first(
    terminal: Callable[..., Terminal], place: list[str]
) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('heard'))\n" + FOREVER
    at = terminal("run", *place, "-c", code)
    at.until(b"began")
    at.type(CTRL_C)
    at.until(b"heard")
    at.type(CTRL_C)
    assert at.wait() == 130
    assert only_job().state is JobState.STOPPED

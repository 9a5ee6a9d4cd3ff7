"""Log readers pause after a key press, for a limited time."""

from __future__ import annotations

import subprocess
import time

import pytest

from stoke.backend.pool import Backends
from stoke.config.model import Config
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from stoke.request.spec import JobSpec
from tests.spools import size_of
from tests.tui.conftest import WAIT_SECONDS
from tests.tui.test_terminal import MAIN, STOKE, Terminal
from tui.terminal.throttle import MOST_SECONDS, PAUSE_SECONDS, SHARE, Throttle


def paused(*, every: float, seconds: float) -> float:
    """Return how long readers pause while a key is pressed again and again."""
    now = 1000.0
    made = Throttle(lambda: now)
    assert made.left() == 0.0
    total, pressed, end = 0.0, now, now + seconds
    while now < end:
        if now >= pressed:
            made.key_pressed()
            pressed += every
        total += 0.001 if made.left() > 0.0005 else 0.0
        now += 0.001
    return total


def test_a_single_key_pauses_readers_for_the_full_time() -> None:
    assert paused(every=1.0, seconds=60.0) == pytest.approx(60 * PAUSE_SECONDS, rel=0.05)


@pytest.mark.parametrize("every", [0.01, 0.033, 0.09, 0.15])
def test_log_readers_keep_their_share_of_time_during_continuous_keys(every: float) -> None:
    limit = 60 * SHARE + MOST_SECONDS + PAUSE_SECONDS
    assert paused(every=every, seconds=60.0) <= limit


def test_log_readers_pause_after_a_key() -> None:
    endless = "import tui.terminal.throttle as t; t.PAUSE_SECONDS = t.MOST_SECONDS = 3600.0; "
    code = (
        "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.01)"
    )
    with History() as history:
        request = Request(JobSpec(code=code), name="flood")
        job = submit(prepare(request, Backends(Config()).get("local"), history), history)
    terminal = Terminal(program=endless + MAIN)

    def rows() -> int:
        terminal.read(0.05)
        return size_of(job_dir(job.id))[1] if (job_dir(job.id) / "log").exists() else 0

    try:
        for least in (20, 40):
            deadline = time.monotonic() + WAIT_SECONDS
            while rows() < least:
                assert time.monotonic() < deadline
        terminal.press(b"j")
        terminal.read(0.3)
        before = rows()
        terminal.read(0.5)
        assert rows() == before
        terminal.press(b"q")
        assert terminal.program.wait(WAIT_SECONDS) == 0, "leaving waits for no key"
    finally:
        terminal.close()
        subprocess.run([*STOKE, "stop", "--now", job.id], capture_output=True, check=False)

"""One real job, from the form to its end, on the local backend."""

from __future__ import annotations

import os
import subprocess

import pytest
from textual.widgets import TextArea

from stoke.config.model import Config
from stoke.files.paths import job_dir, state_dir
from stoke.history.job import JobState
from tests.tui.conftest import screen_text, shows, until
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.log.view import LogView

CODE = """\
import sys, time
for number in range(20):
    print("line", number, flush=True)
    time.sleep(0.05)
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_submit_watch_and_see_the_end(size: tuple[int, int]) -> None:
    app = StokeApp(Config())
    async with app.run_test(size=size, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query("#code"))
        app.screen.query_one("#code", TextArea).load_text(CODE)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.current_mode == "jobs")
        await until(pilot, lambda: "line 19" in screen_text(app))
        await until(pilot, lambda: "failed" in screen_text(app))
        await until(pilot, lambda: "exit 3" in screen_text(app))
        await until(pilot, lambda: "to stderr" in screen_text(app))
        await until(pilot, lambda: app.screen.query_one(LogView).lines.rows == 21)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "run " in screen_text(app))
        job = app.context.history.list()[0]
        await until(pilot, lambda: not (app.context.history.get(job.id) or job).provisional)
        assert (app.context.history.get(job.id) or job).state == JobState.FAILED


async def test_a_job_outlives_the_screens_and_is_found_and_stopped_by_the_next() -> None:
    first = StokeApp(Config())
    async with first.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: first.screen.query("#code"))
        first.screen.query_one("#code", TextArea).load_text(
            "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
        )
        await pilot.press("ctrl+r")
        await until(pilot, lambda: first.current_mode == "jobs")
        await until(pilot, lambda: "begun" in screen_text(first))
        await pilot.press("q")
    second = StokeApp(Config())
    async with second.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "running" in screen_text(second))
        await until(pilot, lambda: "begun" in screen_text(second))
        await pilot.press("s")
        await until(pilot, lambda: isinstance(second.screen, Confirm))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "stopped" in screen_text(second))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_f13_a_log_that_cannot_be_kept_is_shown_with_the_reason() -> None:
    spools = state_dir() / "jobs"
    spools.mkdir(parents=True)
    app = StokeApp(Config())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", spools], check=True)
    try:
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            await pilot.press("2")
            await until(pilot, lambda: app.screen.query("#code"))
            app.screen.query_one("#code", TextArea).load_text(CODE)
            await pilot.press("ctrl+r")
            await until(pilot, lambda: "line 19" in screen_text(app))
            # The header has more than one row here.
            assert "not saved" in screen_text(app) and "(Read-only" in screen_text(app)
            await until(pilot, lambda: "failed? exit 3" in screen_text(app))
            await until(pilot, lambda: app.screen.query_one(LogView).lines.rows == 21)
            subprocess.run(["umount", "--lazy", spools], check=True)
            job = app.context.history.list()[0]
            await until(pilot, lambda: not (app.context.history.get(job.id) or job).provisional)
            await until(pilot, lambda: shows(app, "line 19", without="not saved"))
            assert app.screen.query_one(LogView).lines.rows == 21
            assert (job_dir(job.id) / "log").read_bytes().endswith(b"to stderr\n")
    finally:
        subprocess.run(["umount", "--lazy", "--quiet", spools])

"""Snapshots of the screens. After an intended change:
pytest tests/tui/test_snapshots.py --snapshot-update"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stoke.history.job import JobState
from stoke.logs.spool import STDERR
from tests.tui.conftest import Desk, screen_text, until
from tui.app import StokeApp

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
Compare = Callable[..., bool]


def shows(what: str, *keys: str) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Press keys once the screen is drawn, and wait for `what`."""

    async def run(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, StokeApp)
        await until(pilot, lambda: "No jobs yet" in screen_text(app) or "lines" in screen_text(app))
        # The first activation of a tab arrives late, and would undo a key pressed before it.
        await still(pilot)
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await until(pilot, lambda: what in screen_text(app), what)
        await still(pilot)

    return run


async def still(pilot: Pilot[Any]) -> None:
    """Wait until the screen stops changing."""
    pictures: list[str] = []

    def unchanged() -> bool:
        pictures.append(pilot.app.export_screenshot(simplify=True))
        return len(pictures) > 5 and len(set(pictures[-5:])) == 1

    await until(pilot, unchanged, "a screen that no longer changes")


@pytest.fixture
def jobs(desk: Desk) -> Desk:
    """A warm run, a cold one, a failed one and a running one."""
    log = b"".join(b"epoch %d  loss %.4f\n" % (number, 1 / (number + 1)) for number in range(60))
    spec = {
        "code": "import numpy\n\nprint(numpy.arange(3))\n",
        "dependencies": ["numpy", "pandas>=2,<3"],
        "env": {"MODE": "fast", "API_TOKEN": "hidden"},
    }
    desk.job("fit-model-aaaaaa", age=90, hit=True, log=log, spec=spec, exit_code=0, cpu_seconds=2.5,
             peak_memory=180_000_000, predicted_python="hit", predicted_seconds=0.003)  # fmt: skip
    desk.job("fit-model-bbbbbb", age=4000, hit=False, log=log, backend="docker", exit_code=0)
    desk.job("report-cccccc", JobState.RUNNING, age=9000, log=b"working\nand working\n")
    desk.job("clean-up-dddddd", JobState.STOPPED, age=90_000, hit=True, exit_code=143)
    return desk


@SIZES
def test_jobs_empty(snap_compare: Compare, app: StokeApp, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("No jobs yet"))


@SIZES
def test_jobs(snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("epoch 59"))


@SIZES
def test_jobs_failed(
    snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]
) -> None:
    jobs.job("broken-eeeeee", JobState.FAILED, age=30, log=b"reading\nlines of data\n", exit_code=125,
             reason="lock: there is no package called nmpy")  # fmt: skip
    jobs.spool("broken-eeeeee", b"Traceback (most recent call last):\nKeyError: 'x'\n", STDERR)
    assert snap_compare(app, terminal_size=size, run_before=shows("no package called nmpy"))


@SIZES
def test_phases(snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(
        app, terminal_size=size, run_before=shows("2 of 41", "j", "right_square_bracket")
    )


def test_spec(snap_compare: Compare, app: StokeApp, jobs: Desk) -> None:
    keys = ("left_square_bracket",)
    assert snap_compare(app, terminal_size=(120, 40), run_before=shows("stoke rerun", *keys))


@SIZES
def test_stop_asks(snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]) -> None:
    keys = ("j", "j", "s")
    assert snap_compare(app, terminal_size=size, run_before=shows("Stop this job?", *keys))


@SIZES
def test_palette(snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows(":race", "colon"))


def test_help(snap_compare: Compare, app: StokeApp, jobs: Desk) -> None:
    assert snap_compare(
        app, terminal_size=(80, 24), run_before=shows("Keys: Jobs", "question_mark")
    )

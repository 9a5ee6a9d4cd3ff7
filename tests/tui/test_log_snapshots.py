"""Snapshots of the log. After an intended change:
pytest tests/tui/test_log_snapshots.py --snapshot-update"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from stoke.files.paths import job_dir
from stoke.history.job import JobState
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from tests.tui.conftest import NOW, Desk, screen_text, until
from tests.tui.test_hostile import ALL
from tests.tui.test_snapshots import Compare, still
from tui.app import StokeApp

JOB = "fit-model-aaaaaa"
SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def shows(what: str, *keys: str) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Focus the log, press keys (`=text` is typed) and wait for `what`."""

    async def run(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, StokeApp)
        await until(pilot, lambda: "lines ·" in screen_text(app))
        # The first activation of a tab arrives late, and would undo a key pressed before it.
        await still(pilot)
        for key in ("enter", *keys):
            await pilot.press(*(key[1:] if key.startswith("=") else [key]))
            await pilot.pause()
        await until(pilot, lambda: what in screen_text(app), what)
        await still(pilot)

    return run


@pytest.fixture
def running(desk: Desk) -> Desk:
    """A running job with colours, both streams, a progress bar, a long line and a note."""
    desk.job(JOB, JobState.RUNNING, age=90)
    writer = SpoolWriter(job_dir(JOB))

    def add(stream: int, text: str, seconds: int) -> None:
        writer.add(stream, int((NOW + seconds) * 1e9), text.encode())

    add(STDOUT, "\x1b[32mINFO\x1b[0m reading \x1b[1;34mdata.csv\x1b[0m\n", 0)
    add(STDERR, "".join(f"\r{n:3}% of the rows" for n in range(101)) + "\n", 1)
    for epoch in range(40):
        add(STDOUT, f"epoch {epoch:3}  loss {1 / (epoch + 1):.4f}\n", 2 + epoch)
        if epoch % 10 == 9:
            add(STDERR, "\x1b[33mWARNING\x1b[0m the loss hardly changes\n", 2 + epoch)
    writer.note(int((NOW + 45) * 1e9), "gap: 2.0 s of the log may be missing")
    add(STDOUT, "weights " + " ".join(f"{n / 7:.3f}" for n in range(60)) + "\n", 50)
    add(
        STDERR, "Traceback (most recent call last):\n  File \"fit.py\", line 3\nKeyError: 'x'\n", 51
    )
    add(STDOUT, "結果 résumé ready\nsaved\n", 52)
    writer.close()
    return desk


@SIZES
def test_empty(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    desk.job(JOB, JobState.RUNNING, age=90)
    assert snap_compare(app, terminal_size=size, run_before=shows("0 lines ·"))


@SIZES
def test_following(
    snap_compare: Compare, app: StokeApp, running: Desk, size: tuple[int, int]
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("following", "t"))


@SIZES
def test_wrapped_and_paused(
    snap_compare: Compare, app: StokeApp, running: Desk, size: tuple[int, int]
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("53 lines", "w", "k", "k", "k"))


@SIZES
def test_filtered(
    snap_compare: Compare, app: StokeApp, running: Desk, size: tuple[int, int]
) -> None:
    keys = ("ampersand", "=warn", "enter")
    assert snap_compare(app, terminal_size=size, run_before=shows("&warn 4 of", *keys))


@SIZES
def test_searching(
    snap_compare: Compare, app: StokeApp, running: Desk, size: tuple[int, int]
) -> None:
    keys = ("g", "slash", "=the loss", "enter", "n")
    assert snap_compare(app, terminal_size=size, run_before=shows("2 of 4", *keys))


@SIZES
def test_asking(snap_compare: Compare, app: StokeApp, running: Desk, size: tuple[int, int]) -> None:
    keys = ("slash", "f3")
    assert snap_compare(app, terminal_size=size, run_before=shows("regular", *keys))


@SIZES
def test_hostile(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    desk.job(JOB, age=90)
    lines = [f"begins {ALL} ends", "\x00nul\x00", "tab\there", "", "x" * 5000, "語" * 400]
    lines += ["e" + "\u0301" * 3000 + "|", "half \x1b[31mred \x1b]0;no end", "\x1b[7;8;5mreversed"]
    desk.spool(JOB, "\n".join(lines).encode() + b"\n\xff\xfe bytes\n10%\r20%\r\n")
    desk.spool(JOB, b"to stderr \x9b31m\n", STDERR)
    assert snap_compare(app, terminal_size=size, run_before=shows("begins", "g"))

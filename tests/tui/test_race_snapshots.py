"""Snapshots of Race. After an intended change:
pytest tests/tui/test_race_snapshots.py --snapshot-update"""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot

from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.race.earlier import keep
from stoke.race.recording import Recording
from tests.tui.conftest import NOW, Desk, FakeBackend, screen_text, until
from tests.tui.test_race_screen import raced, recorded
from tests.tui.test_snapshots import Compare, still
from tui.app import StokeApp
from tui.race.screen import RaceScreen

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)
HOSTILE = "[/nope]\x1b]0;PWN\x1b\\\u202e日本[@click=app.quit]x"


def replayed(recording: Recording, seconds: float) -> tuple[StokeApp, Any]:
    """Return the program `seconds` into a replay of this recording, and what to wait for."""
    now = [NOW]
    app = StokeApp(Config(), clock=lambda: now[0], recording=recording)

    async def run(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "Replay of both" in screen_text(app))
        now[0] += seconds
        wanted = "MISS" if seconds < 8 else "faster"
        await until(pilot, lambda: wanted in screen_text(app), wanted)
        await still(pilot)

    return app, run


@SIZES
def test_race_empty(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    async def run(pilot: Pilot[Any]) -> None:
        await pilot.press("5")
        await until(pilot, lambda: "A race runs a request twice" in screen_text(app))
        await still(pilot)

    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_race_lists(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    for number, name in enumerate(
        ("fit", "train", "[/nope]\x1b]0;PWN\x1b\\日本", "report", "score")
    ):
        desk.job(f"one-{number:06}", age=600 * number, name=name, hit=number % 2 == 0)
        keep(recorded(name).model_copy(update={"raced_at": NOW - 86400 * number}))

    async def run(pilot: Pilot[Any]) -> None:
        await pilot.press("5")
        await until(pilot, lambda: "12x" in screen_text(app) and "train" in screen_text(app))
        await still(pilot)

    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_race_with_outputs(snap_compare: Compare, desk: Desk, size: tuple[int, int]) -> None:
    app, replay = replayed(recorded(warmed=7.4), 60.0)

    async def run(pilot: Pilot[Any]) -> None:
        await replay(pilot)
        race = app.screen
        assert isinstance(race, RaceScreen)
        lines = [f"epoch {number:2}/40  loss {2 / (number + 1):.4f}" for number in range(30)]
        race._outputs = {"cold": [*lines, "saved model.bin"], "warm": lines[:12]}
        race._show()
        await still(pilot)

    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_race_running(snap_compare: Compare, desk: Desk, size: tuple[int, int]) -> None:
    app, run = replayed(recorded(), 4.0)
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_race_done(snap_compare: Compare, desk: Desk, size: tuple[int, int]) -> None:
    app, run = replayed(recorded(warmed=7.4), 60.0)
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_race_failed(
    snap_compare: Compare,
    app: StokeApp,
    desk: Desk,
    backends: dict[str, FakeBackend],
    size: tuple[int, int],
) -> None:
    backends["local"].down = EngineError("the engine is gone", "bring it back")

    async def run(pilot: Pilot[Any]) -> None:
        await raced(pilot, app, "print(1)")
        await until(pilot, lambda: "the engine is gone" in screen_text(app))
        await still(pilot)

    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_race_hostile(snap_compare: Compare, desk: Desk, size: tuple[int, int]) -> None:
    app, run = replayed(recorded(HOSTILE, [HOSTILE] * 20, notes=[HOSTILE]), 60.0)
    assert snap_compare(app, terminal_size=size, run_before=run)

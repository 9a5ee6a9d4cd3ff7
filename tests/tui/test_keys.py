"""Keys: one meaning each on all screens, and none in the key bar that does nothing."""

from __future__ import annotations

from collections import defaultdict

import pytest
from textual.pilot import Pilot

from stoke.backend.api import Volume
from stoke.config.model import Config
from stoke.history.job import JobState
from tests.tui.conftest import NOW, Desk, screen_text, until
from tui import keymap, ui_state
from tui.app import StokeApp
from tui.widgets.key_bar import KeyBar

# They move, accept or leave, wherever they are pressed.
EVERYWHERE = {
    *("up", "down", "left", "right", "j", "k", "g", "G", "home", "end", "pageup", "pagedown"),
    *("tab", "enter", "escape", "q", "ctrl+u", "ctrl+d"),
}
# Descriptions that are one meaning in the words of their screen. y and n answer a confirmation.
SAME = (
    {"Run again", "Race again", "Run an example"},
    {"Add packages", "Add packages and run again"},
    {"Remove", "Clear"},
    {"Mark", "Show or hide"},
    {"Copy", "Copy all of it", "Yes"},
    {"Next match", "No"},
    {"Cancel work", "Cancel measuring", "Cancel the dry run"},
    {"Help", "Close"},
    {"Columns", "Close"},
)


def test_each_key_has_one_meaning_on_all_screens() -> None:
    meanings = defaultdict(set)
    for action, binding in keymap.actions().items():
        for key in binding.key.split(","):
            if key not in EVERYWHERE:
                meanings[key].add((binding.description, action))
    changing = {
        key: sorted(found)
        for key, found in meanings.items()
        if len(words := {description for description, _ in found}) > 1
        and not any(words <= same for same in SAME)
    }
    assert not changing


async def opened(pilot: Pilot[None], app: StokeApp, *keys: str) -> KeyBar:
    await until(pilot, lambda: "Spec" in screen_text(app))
    for key in keys:
        await pilot.press(key)
        await pilot.pause(0.1)
    bar = app.screen.query_one(KeyBar)
    await until(pilot, lambda: bar._places)
    return bar


def state(app: StokeApp) -> tuple[object, ...]:
    """Return all that a key may change."""
    if not app.is_running:
        return ()
    picture = [list(line) for line in app.screen._compositor.render_strips()]
    return picture, app.screen, app.current_mode, len(app._notifications), app.screen.focused


async def press(pilot: Pilot[None], app: StokeApp, key: str) -> None:
    before = state(app)
    await pilot.press(key)
    await until(pilot, lambda: state(app) != before, f"an effect of {key}")


@pytest.mark.parametrize(
    "place",
    [(), ("j",), ("enter",), ("right_square_bracket", "enter"), ("2",), ("3",), ("4",), ("5",)],
    ids=["finished", "running", "log", "phases", "new", "caches", "metrics", "race"],
)
async def test_each_key_of_the_key_bar_does_something(desk: Desk, place: tuple[str, ...]) -> None:
    desk.job("fit-aaaaaa", age=60, hit=True, log=b"ERROR no\nplain\n" * 50)
    desk.job("fit-bbbbbb", JobState.RUNNING, age=70, log=b"plain\n" * 50)
    local = desk.backends["local"]
    local.held = [Volume("local", "stoke-default-python", "default", "python", "", 1, NOW, 1, ())]
    local.measured = {"stoke-default-python": (10**9, 2)}
    tried: set[str] = set()
    left = True
    while left:
        ui_state.save("screens", {"welcomed": True})
        app = StokeApp(Config(), clock=lambda: NOW)
        async with app.run_test(size=(160, 40), notifications=True) as pilot:
            bar = await opened(pilot, app, *place)
            untried = [key for key, _ in bar._places if key.key not in tried]
            left = len(untried) > 1
            if not untried:
                break
            tried.add(untried[0].key)
            await press(pilot, app, untried[0].key)
    assert len(tried) > 2

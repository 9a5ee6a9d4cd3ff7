"""Caches: the contents of volumes, measuring, and the confirmation before clearing."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from stoke.backend.api import Volume
from stoke.errors import EngineError
from stoke.history.job import Phase
from tests.tui.conftest import NOW, Desk, FakeBackend, said, screen_text, shows, shows_all, until
from tui.app import StokeApp
from tui.caches.clear import ClearCache
from tui.caches.screen import CachesScreen


@pytest.fixture
def local(backends: dict[str, FakeBackend]) -> FakeBackend:
    made = backends["local"]
    made.held = [
        Volume("local", "default", "python", "stoke-default-python"),
        Volume("local", "team-a", "python", "stoke-team-a-python", in_use_by=("fit-aaaaaa",),
               bytes=5 * 1000**3, entries=12, measured_at=NOW - 7200),
    ]  # fmt: skip
    made.measured = {
        "stoke-default-python": (300 * 1000**2, 4),
        "stoke-team-a-python": (5 * 1000**3, 12),
    }
    return made


async def opened(pilot: Pilot[Any], app: StokeApp) -> None:
    await pilot.press("3")
    await until(pilot, lambda: isinstance(app.screen, CachesScreen))
    await until(pilot, lambda: "team-a" in screen_text(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_rows_show_size_age_and_users(
    app: StokeApp, desk: Desk, local: FakeBackend, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        await opened(pilot, app)
        text = screen_text(app)
        for what in ("4.7 GiB", "none", "1 not measured"):
            assert what in text
        # A narrow list counts the users; the line below names them.
        assert "fit-aaaaaa" in text if size[0] > 80 else "1 job" in text
        await pilot.press("j")
        await until(pilot, lambda: "in use by fit-aaaaaa" in screen_text(app))
        # A narrow screen has the age of the selected row below the table.
        assert ("2h" if size[0] > 80 else "measured 2h ago") in screen_text(app)
        assert "can change each other's packages" in " ".join(text.split())


async def test_measuring_fills_the_row(app: StokeApp, desk: Desk, local: FakeBackend) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("m")
        await until(pilot, lambda: "286 MiB" in screen_text(app))
        # In the sum at once, in the plot when the history has been read again.
        await until(pilot, lambda: shows(app, "286 MiB", without="not measured"))


async def test_folders_of_this_machine_are_measured_in_the_background(
    app: StokeApp, desk: Desk, local: FakeBackend
) -> None:
    local.capabilities = replace(local.capabilities, caches_here=True)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: shows(app, "286 MiB", without="not measured"))
        # A job adds to a volume that is measured.
        local.measured["stoke-team-a-python"] = (8 * 1000**3, 13)
        desk.job("warm-7k2pqa", age=60)
        desk.history.query("UPDATE jobs SET scope = 'team-a' WHERE id = 'warm-7k2pqa'")
        desk.history.set_phase("warm-7k2pqa", Phase("python", NOW - 50, 40.0, False, 3, 0))
        await until(pilot, lambda: "7.5 GiB" in screen_text(app))
        assert not app._notifications


async def test_clearing_requires_the_name_of_the_scope(
    app: StokeApp, desk: Desk, local: FakeBackend
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: "286 MiB in 4 entries" in screen_text(app))
        assert app.screen.query_one("#cancel", Button).has_focus
        assert "Not in use." in screen_text(app)
        go = app.screen.query_one("#go", Button)
        assert go.disabled
        app.screen.query_one(Input).focus()
        await pilot.press(*"defaul")
        await pilot.pause()
        assert go.disabled
        await pilot.press("t", "enter", "enter")
        await until(pilot, lambda: local.cleared == ["stoke-default-python"])
        await until(pilot, lambda: "freed 286 MiB" in screen_text(app))
        # The cache of the other scope is in use.
        await until(pilot, lambda: shows(app, "team-a", without="none"))


async def test_cancel_clears_nothing(app: StokeApp, desk: Desk, local: FakeBackend) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        for key in ("enter", "escape"):
            await pilot.press("d")
            await until(pilot, lambda: isinstance(app.screen, ClearCache))
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, CachesScreen))
        assert local.cleared == []


async def test_a_cache_in_use_cannot_be_cleared(
    app: StokeApp, desk: Desk, local: FakeBackend
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("j", "d")
        await until(pilot, lambda: "In use by fit-aaaaaa" in screen_text(app))
        await until(pilot, lambda: "4.7 GiB in 12 entries" in screen_text(app))
        app.screen.query_one(Input).focus()
        await pilot.press(*"team-a")
        await pilot.pause()
        assert app.screen.query_one("#go", Button).disabled


async def test_a_failing_backend_is_reported_below_the_rows_of_the_others(
    app: StokeApp, desk: Desk, local: FakeBackend, backends: dict[str, FakeBackend]
) -> None:
    backends["docker"].down = EngineError("no engine answers", "start it: dockerd")
    desk.job("fit-aaaaaa", backend="docker", hit=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: shows_all(app, "docker: no engine answers", "start it: dockerd"))


async def test_a_failing_backend_that_no_job_has_used_is_only_named(
    app: StokeApp, desk: Desk, local: FakeBackend, backends: dict[str, FakeBackend]
) -> None:
    backends["docker"].down = EngineError("no engine answers", "start it: dockerd")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await until(
            pilot, lambda: "Unavailable: docker. stoke doctor says why." in screen_text(app)
        )
        assert "no engine answers" not in screen_text(app)


async def test_an_error_while_clearing_is_shown_with_its_hint(
    app: StokeApp, desk: Desk, local: FakeBackend
) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: "286 MiB in 4 entries" in screen_text(app))
        local.down = EngineError("a job took it meanwhile", "stop it first")
        app.screen.query_one(Input).value = "default"
        await pilot.pause()
        app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: shows_all(app, "a job took it meanwhile", "stop it first"))


async def test_no_volume_yet(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "No caches yet" in screen_text(app))
        assert "m" not in app.screen.active_bindings


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_a_measurement_shows_its_steps_and_can_be_cancelled(
    app: StokeApp, desk: Desk, local: FakeBackend, key: str
) -> None:
    local.at_work = True
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("m")
        await until(pilot, lambda: "measured 1,200 of 3,000 (esc cancels)" in screen_text(app))
        assert "m" not in app.screen.active_bindings, "one at a time on a volume"
        # Another volume can be measured meanwhile.
        await pilot.press("j", "m")
        await until(pilot, lambda: screen_text(app).count("measured 1,200 of 3,000") == 2)
        await pilot.press(key)
        await until(pilot, lambda: "measuring stoke-team-a-python: cancelled" in said(app))
        await until(pilot, lambda: screen_text(app).count("measured 1,200 of 3,000") == 1)
        local.at_work = False
        await until(pilot, lambda: "286 MiB" in screen_text(app))
        assert isinstance(app.screen, CachesScreen)


async def test_closing_a_dialog_or_the_environments_cancels_the_measurement(
    app: StokeApp, desk: Desk, local: FakeBackend
) -> None:
    local.at_work = True
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        for press in ("d", "enter"):
            threads = threading.active_count()
            await pilot.press(press)
            await until(pilot, lambda: "measured 1,200 of 3,000" in screen_text(app))
            assert threading.active_count() > threads
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, CachesScreen))
            await until(pilot, lambda threads=threads: threading.active_count() <= threads)  # type: ignore[misc]


async def test_a_dry_run_can_be_cancelled_and_reports_a_failing_engine(
    app: StokeApp, desk: Desk, local: FakeBackend
) -> None:
    local.at_work = True
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("p", "enter")
        await until(pilot, lambda: "dry run: measured 1,200 of 3,000" in screen_text(app))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "Cancelled; nothing was deleted." in screen_text(app))
        local.down = EngineError("no engine answers", "start it: dockerd")
        await pilot.press("enter")
        await until(pilot, lambda: "start it: dockerd" in screen_text(app))
        assert app.screen.query_one("#go", Button).disabled
        for text in ("", "soon"):
            app.screen.query_one("#prune-unused", Input).value = text
            await pilot.press("enter")
            wanted = "is not a duration" if text else "Enter an age, a size, or both."
            await until(pilot, lambda wanted=wanted: wanted in screen_text(app))  # type: ignore[misc]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CachesScreen))

"""The introduction at the first start."""

from __future__ import annotations

import pytest

from stoke.config.model import Config
from stoke.errors import EngineError
from tests.tui.conftest import NOW, Desk, FakeBackend, said, until
from tui import ui_state
from tui.app import StokeApp
from tui.dialogs.welcome import EXAMPLE, Welcome


@pytest.fixture
def new(not_the_first_start: None) -> None:
    ui_state.save("screens", {})


async def test_the_introduction_is_shown_once_and_on_f2(
    new: None, app: StokeApp, desk: Desk
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "runs Python somewhere else" in said(app))
        await pilot.press("escape")
    again = StokeApp(app.context.config)
    async with again.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "No jobs yet" in said(again))
        assert not isinstance(again.screen, Welcome)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(again.screen, Welcome))


async def test_the_example_runs_with_one_key(
    new: None, app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Welcome))
        await pilot.press("r")
        await until(pilot, lambda: backends["local"].deliveries)
        assert backends["local"].deliveries[0].spec.code == EXAMPLE
        assert backends["local"].deliveries[0].spec.dependencies == ("cowsay",)
        await until(pilot, lambda: "example-" in said(app))


async def test_an_example_that_cannot_run_shows_the_error(
    new: None, app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    backends["local"].down = EngineError("there is no engine", "start one")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Welcome))
        await pilot.press("enter")
        await until(pilot, lambda: "there is no engine start one" in said(app))


@pytest.mark.parametrize(("key", "shown"), [("2", "prediction"), ("question_mark", "Keys: Jobs")])
async def test_the_keys_of_the_introduction_work(
    new: None, app: StokeApp, desk: Desk, key: str, shown: str
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Welcome))
        await pilot.press(key)
        await until(pilot, lambda: shown in said(app))


async def test_a_user_with_jobs_sees_no_introduction(new: None, app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "fit-aaaaaa" in said(app))
        assert not isinstance(app.screen, Welcome)


async def test_read_only_offers_no_example(new: None, desk: Desk) -> None:
    app = StokeApp(Config(read_only=True), clock=lambda: NOW)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Welcome))
        assert not app.screen.query_one("#example").display
        assert "x run an example" not in said(app)
        # A key that does something comes after one that must not: both have been handled then.
        await pilot.press("r", "escape")
        await until(pilot, lambda: "No jobs yet" in said(app))
        assert not desk.backends["local"].deliveries

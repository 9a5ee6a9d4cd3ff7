"""Metrics: figures of the caches by backend, scope and time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from textual.pilot import Pilot

from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.history.database import CacheSize
from tests.tui.conftest import NOW, Desk, FakeBackend, screen_text, shows, until
from tui.app import StokeApp
from tui.metrics.screen import MetricsScreen


async def opened(pilot: Pilot[Any], app: StokeApp, what: str) -> None:
    await pilot.press("4")
    await until(pilot, lambda: isinstance(app.screen, MetricsScreen))
    await until(pilot, lambda: what in screen_text(app), what)


@pytest.fixture
def jobs(desk: Desk) -> Desk:
    """One cold and three warm runs on local; an old cold run on docker."""
    numpy = {"dependencies": ["numpy"]}
    for number, hit in enumerate((False, True, True, True)):
        desk.job(f"fit-aaaaa{number}", age=5000 - number, hit=hit, spec=numpy, request_hash="a",
                 predicted_python="hit" if hit else "miss")  # fmt: skip
    desk.job("old-bbbbbb", age=90 * 86400, hit=False, backend="docker",
             spec={"dependencies": ["pandas"]}, request_hash="b", predicted_python="hit")  # fmt: skip
    desk.history.add_cache_size(
        CacheSize("local", None, "default", "python", NOW - 9, 7 * 10**8, 3)
    )
    return desk


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_figures_of_the_history(app: StokeApp, jobs: Desk, size: tuple[int, int]) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        await opened(pilot, app, "75%")
        text = screen_text(app)
        for what in ("5.2 s", "1 ms", "16 s", "668 MiB", "80% of 5 predictions right"):
            assert what in text, what


async def test_keys_select_backend_scope_and_time(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app, "all backends, all scopes, all time")
        await pilot.press("B")
        await until(pilot, lambda: shows(app, "docker, all scopes", without="75%"))
        await pilot.press("B", "I")
        await until(pilot, lambda: "local, scope default" in screen_text(app))
        await until(pilot, lambda: "75%" in screen_text(app))
        await pilot.press("B", "I")
        await until(pilot, lambda: "all backends, all scopes" in screen_text(app))
        await pilot.press("T")
        await until(pilot, lambda: "last day" in screen_text(app))
        await until(pilot, lambda: shows(app, "local", without="docker"))


async def test_figures_appear_with_the_first_job(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app, "No figures yet")
        # A new job appears without a key.
        desk.job("fit-aaaaaa", hit=True, request_hash="a", spec={"dependencies": ["numpy"]})
        await until(pilot, lambda: "python 100%" in screen_text(app))


async def test_an_unreadable_history_is_reported(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise EngineError("the history is damaged", "put it aside")

    monkeypatch.setattr("tui.metrics.cache_figures.read_metrics", broken)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app, "the history is damaged")
        assert "put it aside" in screen_text(app)
        await pilot.press("3")
        await until(pilot, lambda: "history: the history is damaged" in screen_text(app))


async def test_lines_differ_without_colours(
    desk: Desk, backends: dict[str, FakeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, size in (("python", 7 * 10**8), ("system", 3 * 10**8)):
        desk.history.add_cache_size(CacheSize("local", None, "default", kind, NOW - 900, size, 3))
    desk.job("fit-aaaaaa", hit=True, request_hash="a", spec={"dependencies": ["numpy"]})
    monkeypatch.setenv("NO_COLOR", "1")
    app = StokeApp(Config(), clock=lambda: NOW)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app, "+ system 286 MiB")
        await until(pilot, lambda: "++++++++" in screen_text(app))
        assert "⠒ python 668 MiB" in screen_text(app)
        assert re.search("[⠀-⣿]{8}", screen_text(app))


async def test_charts_use_the_whole_width(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(200, 60), notifications=True) as pilot:
        await opened(pilot, app, "ago")
        (axis,) = (line for line in screen_text(app).splitlines() if line.count(" ago") == 2)
        assert axis.rindex("now") > 185
        assert 85 < axis.index("now") < 100

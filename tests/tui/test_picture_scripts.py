"""tools/screenshots.py and tools/tour.py find the widgets that they wait for."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from tests.tui.conftest import until
from tools import screenshots
from tui.app import StokeApp

TOOLS = Path(screenshots.__file__).parent
IDS = {"jobs": "#log", "new": ("#code", "#field"), "race": "#race"}


async def test_every_widget_that_the_scripts_query_is_on_a_screen(app: StokeApp) -> None:
    text = "".join((TOOLS / name).read_text() for name in ("screenshots.py", "tour.py"))
    wanted = set(re.findall(r"""query(?:_one)?\("([^"]+)\"""", text))
    assert {"#code", "#log-view", "#race-ratio"} <= wanted
    found: set[str] = set()
    async with app.run_test(size=(120, 40)) as pilot:
        for mode in ("jobs", "new", "race"):
            app.action_switch(mode)
            await until(pilot, partial(_is_shown, app, mode))
            # A screen mounts some of its widgets after the first frame.
            left = {one for one in wanted if one.startswith(IDS[mode])}
            await until(pilot, partial(_has_all, app, left))
            found |= left
    assert found == wanted


def _is_shown(app: StokeApp, mode: str) -> bool:
    return app.current_mode == mode


def _has_all(app: StokeApp, widgets: set[str]) -> bool:
    return all(app.screen.query(one) for one in widgets)

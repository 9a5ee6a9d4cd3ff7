"""Make screenshots/tour.svg, the recording in README.md: the real program, a job cold, the same warm,
and a race of both. It is uncut and plays at its real speed.

    python tools/tour.py
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate

from tools.film import Film
from tools.screenshots import ROOT, at_home, over, race_result, until

if TYPE_CHECKING:
    from tui.app import StokeApp

SIZE = (100, 28)
EVERY_SECONDS = 0.05
CODE = """\
import time

import numpy as np

x = np.linspace(0, 10, 400)
y = 3 * x + 2
slope = level = 0.0
for step in range(1, 9):
    error = slope * x + level - y
    slope -= 0.01 * (error * x).mean()
    level -= 0.05 * error.mean()
    print(f"INFO step {step}  loss {(error**2).mean():8.3f}", flush=True)
    time.sleep(0.1)
"""
CAPTION = Style(bold=True)


class Camera:
    """Films the app's screen, under it a line that says which keys were pressed and why."""

    def __init__(self, app: StokeApp) -> None:
        self._app = app
        width, height = SIZE
        self.film = Film(width, height + 2)
        self._began = time.monotonic()
        self.caption = ""

    def look(self) -> None:
        app = self._app
        # The parts of Textual that its own screenshots are made with.
        update = app.screen._compositor.render_update(
            full=True, screen_stack=app._background_screens
        )
        assert isinstance(update, LayoutUpdate)
        rows = [[segment for strip in row for segment in strip] for row in update.strips]
        blank = Segment(" " * SIZE[0])
        caption = Segment(f" {self.caption}".ljust(SIZE[0]), CAPTION)
        self.film.add(time.monotonic() - self._began, [*rows, [blank], [caption]])

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(EVERY_SECONDS)


async def film() -> Film:
    from textual.widgets import TextArea

    from stoke.config.loader import load_config
    from tui.app import StokeApp
    from tui.dialogs.welcome import Welcome
    from tui.new_job.form_field import FormField

    app = StokeApp(load_config())

    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Welcome))
        await pilot.press("escape", "2")
        await until(pilot, lambda: app.screen.query("#code"))
        app.screen.query_one("#code", TextArea).load_text(CODE)
        app.screen.query_one("#field-name", FormField).text = "fit-line"
        app.screen.query_one("#field-dependencies", FormField).text = "numpy"
        await pilot.pause(0.5)
        camera = Camera(app)
        filming = asyncio.create_task(camera.run())

        async def press(why: str, *keys: str) -> None:
            camera.caption = why
            await pilot.pause(0.7)
            await pilot.press(*keys)

        camera.caption = "code and its packages; nothing is cached yet"
        await pilot.pause(0.8)
        await press("ctrl+r   submit and watch", "ctrl+r")
        await until(pilot, lambda: over(app, 1))
        await pilot.pause(0.7)
        await press("r   again: the environment is there now", "escape", "r")
        await until(pilot, lambda: over(app, 2))
        await pilot.pause(0.5)
        await press("ctrl+t   race it: cold in a scope of its own, then warm", "ctrl+t")
        await until(pilot, lambda: race_result(app))
        camera.caption = "the same code, the same packages"
        await pilot.pause(0.5)
        filming.cancel()
        with suppress(asyncio.CancelledError):
            await filming
        camera.look()
    return camera.film


def main() -> None:
    with at_home():
        picture = asyncio.run(film()).svg()
    path = ROOT / "screenshots" / "tour.svg"
    path.write_text(picture)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

"""Make screenshots/*.svg from the real program.

    python tools/screenshots.py

The start, the form, the phases and the race are of real jobs on the local backend. The lists and
charts are of tools/example_history.py, and are the same at each call. Uses temporary folders, which are
removed afterwards.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools import example_history

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from tui.app import StokeApp

ROOT = Path(__file__).parent.parent
SIZE = (120, 40)
SMALL_SIZE = (80, 24)
WAIT_SECONDS = 60.0
CODE = '''\
"""Fit a line to noisy points, step by step."""
import time

import numpy as np
import pandas as pd

rng = np.random.default_rng(7)
x = np.linspace(0, 10, 400)
points = pd.DataFrame({"x": x, "y": 3 * x + 2 + rng.normal(size=x.size)})

slope = level = 0.0
for step in range(1, 41):
    error = slope * points.x + level - points.y
    slope -= 0.01 * (error * points.x).mean()
    level -= 0.05 * error.mean()
    print(f"step {step:3}  loss {(error**2).mean():8.3f}  y = {slope:.3f} x + {level:.3f}", flush=True)
    time.sleep(0.1)
print(points.describe().round(2))
'''


async def until(pilot: Pilot[Any], true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"screenshots: waited {WAIT_SECONDS:.0f} s in vain")
        await pilot.pause(0.05)


def over(app: StokeApp, count: int) -> bool:
    """There are `count` jobs, and all have ended."""
    jobs = app.context.history.list()
    return len(jobs) == count and all(job.state.finished and not job.provisional for job in jobs)


def race_result(app: StokeApp) -> str:
    """Return the ratio that the Race screen shows; empty while it has none."""
    from tui.widgets.big_number import BigNumber

    ratios = app.screen.query("#race-ratio")
    value = ratios.first(BigNumber).value if ratios else ""
    return value if value.endswith("x") else ""


def save(app: StokeApp, name: str) -> None:
    from tui.race.picture import svg

    path = ROOT / "screenshots" / f"{name}.svg"
    path.write_text(svg(app))
    print(path.relative_to(ROOT))


def show_local_only() -> None:
    """The pictures show this folder's jobs only, whatever engine this machine has."""
    from stoke.backend import registry

    points = registry._entry_points("local")
    registry._entry_points = lambda *_: points


async def still(pilot: Pilot[Any]) -> None:
    """Wait until the screen stops changing."""
    pictures: list[str] = []

    def unchanged() -> bool:
        pictures.append(pilot.app.export_screenshot(simplify=True))
        return len(pictures) > 5 and len(set(pictures[-5:])) == 1

    await until(pilot, unchanged)


async def take_examples() -> None:
    """Pictures of the example history: Jobs in two sizes, Compare, Caches and Metrics."""
    from tests.tui.conftest import NOW, screen_text
    from tui import ui_state
    from tui.app import StokeApp

    ui_state.save("screens", {"welcomed": True})

    async def to_jobs(pilot: Pilot[Any], app: StokeApp) -> None:
        await until(pilot, lambda: "jobs" in screen_text(app) and app.screen.query("#log-view"))
        await still(pilot)

    async def to_failed_fit(pilot: Pilot[Any], app: StokeApp) -> None:
        for job in app.context.history.list():
            if (job.name, job.state) == ("fit-model", "failed"):
                break
            await pilot.press("j")
        await until(pilot, lambda: "ValueError: no reading" in screen_text(app))
        await still(pilot)

    app = StokeApp(clock=lambda: NOW)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await to_jobs(pilot, app)
        await pilot.press("plus")
        await to_failed_fit(pilot, app)
        save(app, "jobs")
        await pilot.press("slash", *"name:fit-model state:succeeded", "enter")
        await still(pilot)
        await pilot.press("home", "c")
        await until(pilot, lambda: "python packages" in screen_text(app))
        await still(pilot)
        save(app, "compare")
        await pilot.press("escape")
        for key, name in (("3", "caches"), ("4", "metrics")):
            await pilot.press(key)
            await until(pilot, lambda: "hit rate  python" in screen_text(app))
            await still(pilot)
            await pilot.press("j")
            await still(pilot)
            save(app, name)
    app = StokeApp(clock=lambda: NOW)
    async with app.run_test(size=SMALL_SIZE, notifications=True) as pilot:
        await pilot.press("1")
        await to_jobs(pilot, app)
        await to_failed_fit(pilot, app)
        save(app, "jobs-80x24")


async def take() -> None:
    """Pictures of real jobs: the first start, New job, Phases and Race."""
    from textual.widgets import TextArea

    from stoke.config.loader import load_config
    from tui.app import StokeApp
    from tui.dialogs.welcome import Welcome
    from tui.new_job.form_field import FormField

    app = StokeApp(load_config())

    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Welcome))
        save(app, "welcome")
        await pilot.press("escape")
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query("#code"))
        app.screen.query_one("#code", TextArea).load_text(CODE)
        app.screen.query_one("#field-name", FormField).text = "fit-line"
        app.screen.query_one("#field-dependencies", FormField).text = "numpy, pandas>=2,<3"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: over(app, 1))
        # Again: the environment is there now.
        await pilot.press("escape", "r")
        await until(pilot, lambda: over(app, 2))
        await pilot.press("escape", "j", "right_square_bracket")
        await pilot.pause(1)
        save(app, "phases")
        await pilot.press("2")
        await pilot.pause(1)
        app.clear_notifications()
        await pilot.pause(0.3)
        save(app, "new-job")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: race_result(app))
        await pilot.pause(0.3)
        save(app, "race")


@contextmanager
def at_home() -> Iterator[None]:
    """A home of its own, so that a folder reads ~/... and names no machine; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
        for name in [name for name in os.environ if name.startswith(("STOKE_", "XDG_"))]:
            del os.environ[name]
        os.environ["HOME"] = folder
        os.environ["TZ"] = "UTC"
        time.tzset()
        show_local_only()
        yield


def main() -> None:
    (ROOT / "screenshots").mkdir(exist_ok=True)
    with at_home(), example_history.opened():
        asyncio.run(take_examples())
    with at_home():
        asyncio.run(take())


if __name__ == "__main__":
    main()

"""Processor load and memory of running jobs: in the list, beside the log, and in Phases."""

from __future__ import annotations

import pytest

from stoke.history.job import JobState, Phase, Usage
from stoke.history.usage import UsageCurves
from tests.tui.conftest import NOW, Desk, screen_text, shows_all, until
from tests.tui.test_jobs_list import listed, order, ready
from tui.app import StokeApp
from tui.jobs.columns import COLUMNS, Load


def use(desk: Desk, job_id: str, *figures: tuple[float, int]) -> None:
    for number, (cores, megabytes) in enumerate(figures):
        at = NOW - 100 + 2 * number
        UsageCurves(desk.history).add(job_id, Usage(at, cores, megabytes * 1024**2))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 40), (200, 60)])
async def test_running_jobs_show_their_load_and_memory(
    app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    desk.job("fit-7k2pqa", JobState.RUNNING, age=60)
    desk.job("eval-7k2pqa", JobState.FAILED, age=120, reason="no memory")
    use(desk, "fit-7k2pqa", (0.1, 20), (0.98, 210))
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "98%" in screen_text(app))
        (row,) = [line for line in listed(app) if "fit-7k2pqa" in line]
        assert "▂█" in row
        assert " 98%  210M" in row
        (other,) = [line for line in listed(app) if "eval-7k2pqa" in line]
        assert "%" not in other and "no memory" in other


@pytest.mark.parametrize("theme", ["stoke", "textual-light", "ansi-dark", "ansi-light"])
async def test_the_load_is_on_the_row_of_the_cursor_in_every_theme(
    app: StokeApp, desk: Desk, theme: str
) -> None:
    desk.job("fit-7k2pqa", JobState.RUNNING, age=60)
    use(desk, "fit-7k2pqa", *[(0.5, 20)] * 30, (0.98, 210))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        app.theme = theme
        await until(pilot, lambda: app.current_theme.name == theme)
        await until(pilot, lambda: "98%  210M" in listed(app)[1], "the load")


async def test_the_reason_of_the_end_takes_the_place_of_the_load(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-7k2pqa", JobState.RUNNING, age=60)
    use(desk, "fit-7k2pqa", (0.98, 210))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "98%" in listed(app)[1])
        desk.history.update(
            "fit-7k2pqa", state=JobState.FAILED, finished_at=NOW, reason="out of memory"
        )
        await until(pilot, lambda: "98%" not in listed(app)[1])
        assert "out of memory" in listed(app)[1]


async def test_a_progress_bar_of_the_job_precedes_its_load(app: StokeApp, desk: Desk) -> None:
    job = desk.job("fit-7k2pqa", JobState.RUNNING, age=60)
    job.recent = (Usage(NOW, 0.98, 210 * 1024**2),)
    job.bar = "25%|███| 1/4"
    cell = COLUMNS["reason"].cell(job, NOW)
    assert isinstance(cell, Load)
    assert cell.fitted(24) == "25%|███| 1/4   98%  210M"
    assert cell.fitted(17) == "25%|█…  98%  210M"
    assert cell.fitted(10) == "  98%  210M"


async def test_a_new_figure_is_shown_at_the_next_tick(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-7k2pqa", JobState.RUNNING, age=60, hit=True)
    use(desk, "fit-7k2pqa", (0.5, 210))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: " 50%" in listed(app)[1])
        UsageCurves(desk.history).add("fit-7k2pqa", Usage(NOW, 1.25, 300 * 1024**2))
        await until(pilot, lambda: "125%" in listed(app)[1] and "300M" in listed(app)[1])
        # Beside the log, too.
        await until(pilot, lambda: shows_all(app, "125%, max 125%", "300M, max 300M"))


async def test_what_a_job_does_is_in_its_row(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-7k2pqa", JobState.STARTING, age=60)
    desk.history.set_phase("fit-7k2pqa", Phase("python", NOW - 50))
    async with app.run_test(size=(200, 40)) as pilot:
        await ready(pilot)
        desk.history.set_activity("fit-7k2pqa", "python", "fetching 41 packages: torch")
        await until(pilot, lambda: "fetching 41" in listed(app)[1])
        # Beside the log there is room for all of it.
        await until(pilot, lambda: "fetching 41 packages: torch" in screen_text(app))
        desk.history.set_phase("fit-7k2pqa", Phase("python", NOW - 50, 40.0, False, 41, 0))
        await until(pilot, lambda: "fetching" not in screen_text(app))


async def test_jobs_are_sorted_by_their_load(app: StokeApp, desk: Desk) -> None:
    for number, name in enumerate(("a", "b", "c")):
        desk.job(f"{name}-7k2pqa", JobState.RUNNING, age=60 + number)
        use(desk, f"{name}-7k2pqa", ((2, 7, 5)[number], 100))
    async with app.run_test(size=(200, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: order(app) == ["a-7k2pqa", "b-7k2pqa", "c-7k2pqa"])
        app.screen.sort_by("load")  # type: ignore[attr-defined]
        await until(pilot, lambda: order(app) == ["b-7k2pqa", "c-7k2pqa", "a-7k2pqa"])


async def test_phases_have_the_curve_of_an_ended_job(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-7k2pqa", age=60, hit=True)
    use(desk, "fit-7k2pqa", (0.5, 210), (3.2, 480), (0.1, 220))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: shows_all(app, "max 320%", "max 480M"))
        # Three figures in all of the width, as the bars below them.
        (top,) = (line for line in screen_text(app).splitlines() if "max 480M" in line)
        assert sum(top.count(block) for block in "▁▂▃▄▅▆▇█") > 30

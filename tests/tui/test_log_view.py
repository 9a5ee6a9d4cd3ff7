"""The log window: a view of the spool that follows, stands still, searches and wraps."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot

from stoke.job import JobState
from stoke.logs.spool import NOTE, STDERR, STDOUT, SpoolWriter
from stoke.paths import job_dir
from tests.tui.conftest import Desk, screen_text, until
from tui.app import StokeApp
from tui.widgets.log_view import LogView

JOB = "job-aaaaaa"


def lines(first: int, last: int) -> bytes:
    return b"".join(f"line {number}\n".encode() for number in range(first, last))


async def opened(pilot: Pilot[Any], app: StokeApp) -> LogView:
    """The log of the only job, focused."""
    await until(pilot, lambda: app.screen.query(LogView) and app.screen.query_one(LogView).lines.rows)
    await pilot.press("enter")
    view = app.screen.query_one(LogView)
    await until(pilot, lambda: view.has_focus)
    return view


async def test_it_follows_and_stands_still_when_scrolled_up(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, JobState.RUNNING, log=lines(0, 200))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await until(pilot, lambda: "line 199" in screen_text(app))
        desk.spool(JOB, lines(200, 300))
        await until(pilot, lambda: "line 299" in screen_text(app))
        assert "following" in screen_text(app)
        await pilot.press("g")
        await until(pilot, lambda: "line 0 " in screen_text(app))
        desk.spool(JOB, lines(300, 400))
        await until(pilot, lambda: view.lines.rows == 400)
        await until(pilot, lambda: f"{view.below} below, f follows" in screen_text(app))
        assert "line 0 " in screen_text(app)
        assert view.below > 300
        await pilot.press("f")
        await until(pilot, lambda: "line 399" in screen_text(app))


@pytest.mark.parametrize("height", [24, 40])
async def test_the_wheel_pauses_it_and_the_end_resumes(
    app: StokeApp, desk: Desk, height: int
) -> None:
    desk.job(JOB, JobState.RUNNING, log=lines(0, 200))
    async with app.run_test(size=(120, height), notifications=True) as pilot:
        view = await opened(pilot, app)
        view.scroll_to(y=20, animate=False, immediate=True)
        await until(pilot, lambda: not view.follow)
        assert view.cursor < 199
        view.scroll_end(animate=False, immediate=True)
        await until(pilot, lambda: view.follow)
        assert view.cursor == 199


async def test_search_counts_goes_round_and_ends(app: StokeApp, desk: Desk) -> None:
    log = b"".join(
        b"an Error here\n" if number % 100 == 7 else b"line\n" for number in range(10_000)
    )
    desk.job(JOB, log=log)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("slash", *"error", "enter")
        await until(pilot, lambda: "1 of 100" in screen_text(app))
        assert view.cursor == 7
        await pilot.press("N")
        await until(pilot, lambda: "100 of 100" in screen_text(app))
        assert view.cursor == 9907
        assert "an Error here" in screen_text(app)
        await pilot.press("n", "n")
        await until(pilot, lambda: view.cursor == 107)
        await pilot.press("escape")
        await until(pilot, lambda: view.search is None)
        assert "n" not in app.screen.active_bindings


async def test_search_finds_what_arrives_later(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, JobState.RUNNING, log=b"needle\nhay\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("slash", *"needle", "enter")
        await until(pilot, lambda: "1 of 1" in screen_text(app))
        desk.spool(JOB, b"hay\nneedle\n")
        await until(pilot, lambda: "1 of 2" in screen_text(app))


async def test_what_is_not_there_is_not_found(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 50))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("slash", *"zebra", "enter")
        await until(pilot, lambda: "not found" in screen_text(app))


async def test_wrapping_shows_a_long_line_to_its_end(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 100) + b"a" * 290 + b"THE-END\nlast\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        assert "THE-END" not in screen_text(app)
        await pilot.press("w")
        await until(pilot, lambda: "THE-END" in screen_text(app))
        await until(pilot, lambda: "last" in screen_text(app))
        await pilot.press("g")
        await until(pilot, lambda: "line 0 " in screen_text(app))
        await pilot.press("G")
        await until(pilot, lambda: "THE-END" in screen_text(app))


async def test_timestamps_streams_and_notes(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"out\n")
    desk.spool(JOB, b"err\n", STDERR)
    writer = SpoolWriter(job_dir(JOB))
    writer.note(0, "214 lines lost: the server closed the connection")
    writer.close()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await until(pilot, lambda: "-- 214 lines lost" in screen_text(app))
        assert [view.lines.load(line).stream for line in range(3)] == [STDOUT, STDERR, NOTE]
        text = screen_text(app)
        assert " out" in text
        assert "│err" in text
        await pilot.press("t")
        await until(pilot, lambda: ".000 out" in screen_text(app))


async def test_a_progress_bar_is_its_last_state(app: StokeApp, desk: Desk) -> None:
    bar = b"".join(b"\r%d%% of it" % percent for percent in range(101))
    huge = b"".join(b"\r%d rows read" % row for row in range(20_000))
    desk.job(JOB, log=bar + b"\n" + huge + b"\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: "100% of it" in screen_text(app))
        assert " 99% of it" not in screen_text(app)
        assert "19999 rows read" in screen_text(app)


async def test_a_long_log_costs_little(app: StokeApp, desk: Desk) -> None:
    """A million lines: nothing but what is on the screen is read."""
    desk.job(JOB, log=b"x" * 20 + b"\n")
    block = lines(0, 50_000)
    for _ in range(20):
        desk.spool(JOB, block)
    desk.spool(JOB, b"the very last\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await until(pilot, lambda: "the very last" in screen_text(app))
        assert "1,000,002 lines" in screen_text(app)
        await pilot.press("g")
        await until(pilot, lambda: "x" * 20 in screen_text(app))
        assert len(view.lines._drawn) <= 1000


async def test_a_very_long_line_is_cut_in_the_middle_and_scrolls_sideways_to_its_end(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, log=b"begin " + b"z" * 100_000_000 + b" finish\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await until(pilot, lambda: "begin zzz" in screen_text(app))
        await pilot.press("right")
        await until(pilot, lambda: "begin" not in screen_text(app))
        await pilot.press("dollar_sign")
        await until(pilot, lambda: "zzz finish" in screen_text(app))
        assert "99,967,246 bytes" in view.lines.load(0).text
        await pilot.press("0")
        await until(pilot, lambda: "begin" in screen_text(app))
        await pilot.press("w", "G")
        await until(pilot, lambda: "zz finish" in screen_text(app))


async def test_copy_takes_the_line_under_the_cursor(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 5))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("k", "y")
        await until(pilot, lambda: app.clipboard == "line 3")
        assert view.cursor == 3
        await pilot.press("escape", "y")
        await until(pilot, lambda: app.clipboard == JOB)


async def test_a_log_that_does_not_change_is_not_drawn_again(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 100))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.pause()
        drawn: list[int] = []
        whole = view.render_line
        view.render_line = lambda y: drawn.append(y) or whole(y)  # type: ignore[method-assign,func-returns-value]
        for _ in range(8):
            view.look()
            await pilot.pause()
        assert drawn == []

"""The log window: searching, filtering, and going to errors and times."""

from __future__ import annotations

from datetime import datetime

import pytest

from stoke.files.paths import job_dir
from stoke.history.job import JobState
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from tests.tui.conftest import NOW, Desk, screen_text, until
from tests.tui.open_log import JOB, ask, lines, opened
from tui.app import StokeApp


async def test_search_counts_matches_wraps_around_and_can_be_closed(
    app: StokeApp, desk: Desk
) -> None:
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


async def test_search_finds_lines_that_arrive_later(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, JobState.RUNNING, log=b"needle\nhay\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("slash", *"needle", "enter")
        await until(pilot, lambda: "1 of 1" in screen_text(app))
        desk.spool(JOB, b"hay\nneedle\n")
        await until(pilot, lambda: "1 of 2" in screen_text(app))


async def test_a_search_without_matches_is_reported(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 50))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("slash", *"zebra", "enter")
        await until(pilot, lambda: "not found" in screen_text(app))


async def test_a_word_with_colours_inside_is_found_and_marked(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 300) + b"\x1b[1mnee\x1b[31mdle\x1b[0m\n" + lines(0, 300))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await ask(pilot, "slash", "needle")
        await until(pilot, lambda: "1 of 1" in screen_text(app))
        assert view.cursor == 300
        strip = view.render_line(
            next(y for y, (line, _) in enumerate(view._layout()) if line == 300)
        )
        marked = [
            segment.text
            for segment in strip
            if segment.style and segment.style.bgcolor == view._style("log--match-now").bgcolor
        ]
        assert "".join(marked) == "needle"


async def test_a_match_far_to_the_right_is_scrolled_to(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"x" * 2000 + b"needle" + b"y" * 2000 + b"\nnext\n")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await ask(pilot, "slash", "needle")
        await until(pilot, lambda: "needleyyy" in screen_text(app))


async def test_ctrl_r_searches_for_a_regular_expression(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"a.c\nabc\n(\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await ask(pilot, "slash", "a.c")
        await until(pilot, lambda: "1 of 1" in screen_text(app))
        await pilot.press("slash", "f3")
        await until(pilot, lambda: "/ regular expression" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "1 of 2" in screen_text(app))
        await ask(pilot, "slash", "(")
        await until(pilot, lambda: "not a regular expression" in screen_text(app))
        assert not view.has_focus


async def test_a_filter_applies_to_new_lines_and_keeps_the_cursor(
    app: StokeApp, desk: Desk
) -> None:
    log = b"".join(b"%s %d\n" % (b"odd" if n % 2 else b"even", n) for n in range(1000))
    desk.job(JOB, JobState.RUNNING, log=log)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await ask(pilot, "ampersand", "odd")
        await until(pilot, lambda: "&odd 500 of 1,000 lines" in screen_text(app))
        await until(pilot, lambda: "odd 999" in screen_text(app))
        assert "even" not in screen_text(app)
        desk.spool(JOB, b"even 1000\nodd 1001\n")
        await until(pilot, lambda: "odd 1001" in screen_text(app))
        assert "even" not in screen_text(app)
        await ask(pilot, "slash", "even")
        await until(pilot, lambda: "not found" in screen_text(app))
        await ask(pilot, "slash", "odd 101")
        await until(pilot, lambda: "1 of 1" in screen_text(app))
        assert view.row == 101
        await pilot.press("escape", "escape")
        await until(pilot, lambda: "even 100" in screen_text(app))
        assert "&odd" not in screen_text(app)
        assert view.row == 101
        assert not view.follow
        await ask(pilot, "ampersand", "even")
        await until(pilot, lambda: "even 102" in screen_text(app))
        await until(pilot, lambda: view.row == 102)


async def test_escape_undoes_one_step_at_a_time(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 100))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await ask(pilot, "ampersand", "line")
        await ask(pilot, "slash", "9")
        await pilot.press("v", "slash")
        for undone in (
            lambda: view.has_focus and view.selected_from is not None,
            lambda: view.selected_from is None and view.search is not None,
            lambda: view.search is None and view.filter is not None,
            lambda: view.filter is None and view.has_focus,
            lambda: not view.has_focus,
        ):
            await pilot.press("escape")
            await until(pilot, undone)


async def test_the_next_error_and_the_one_before(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 500) + b"ERROR one\n" + lines(0, 500))
    desk.spool(JOB, b"Traceback (most recent call last):\n  File\nKeyError: 1\n", STDERR)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("comma")
        await until(pilot, lambda: view.cursor == 1001)
        await pilot.press("comma")
        await until(pilot, lambda: view.cursor == 500)
        await until(pilot, lambda: "ERROR one" in screen_text(app))
        await pilot.press("comma")
        await until(pilot, lambda: "no more errors above" in screen_text(app))
        await pilot.press("full_stop")
        await until(pilot, lambda: view.cursor == 1001)


async def test_a_key_shows_warnings_and_errors_then_errors_then_all(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, log=b"plain\nERROR no\nWARNING hm\nplain\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("l")
        await until(pilot, lambda: "warnings 2 of 4 lines" in screen_text(app))
        await until(pilot, lambda: view.lines.count == 2)
        await pilot.press("l")
        await until(pilot, lambda: "errors 1 of 4 lines" in screen_text(app))
        await pilot.press("l")
        await until(pilot, lambda: view.lines.count == 4)
        assert view.filter is None


async def test_the_search_runs_while_its_text_is_typed_and_escape_takes_it_back(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, log=lines(0, 500) + b"needle and needle\n" + lines(0, 500) + b"needle\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("g", "slash", *"need")
        await until(pilot, lambda: view.cursor == 500)
        await until(pilot, lambda: "1 of 2" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: view.cursor == 0 and view.search is None)
        await pilot.press("slash", *"need", "enter")
        await until(pilot, lambda: view.cursor == 500 and view.has_focus)
        now = view._style("log--match-now").bgcolor
        assert now != view._style("log--match").bgcolor
        y = next(y for y, (line, _) in enumerate(view._layout()) if line == 500)
        marked = [
            part.text for part in view.render_line(y) if part.style and part.style.bgcolor == now
        ]
        assert marked == ["need", "need"]


async def test_going_to_a_time_and_the_error_for_other_text(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB)
    writer = SpoolWriter(job_dir(JOB))
    for minute in range(120):
        writer.add(STDOUT, int((NOW + 60 * minute) * 1e9), b"minute %d\n" % minute)
    writer.close()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await ask(pilot, "at", "-19m")
        await until(pilot, lambda: view.cursor == 100)
        await ask(pilot, "at", "+5m")
        await until(pilot, lambda: view.cursor == 5)
        await ask(pilot, "at", f"{datetime.fromtimestamp(NOW + 60 * 77):%H:%M:%S}")
        await until(pilot, lambda: view.cursor == 77)
        await ask(pilot, "at", "noon")
        await until(pilot, lambda: "not a time" in screen_text(app))


@pytest.mark.parametrize("key", ["slash", "ampersand"])
async def test_a_pattern_that_takes_too_long_is_dropped_with_the_reason(
    app: StokeApp, desk: Desk, key: str
) -> None:
    """The program responds meanwhile, and a growing log does not start the search again."""
    desk.job(JOB, JobState.RUNNING, log=b"fine\n" + b"a" * 60 + b"!\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press(key, "f3")
        await pilot.press("escape")
        await ask(pilot, key, "(a|aa)+$")
        await until(pilot, lambda: "takes too long on a single line" in screen_text(app))
        assert view.search is None
        assert view.filter is None
        assert "fine" in screen_text(app)
        app.clear_notifications()
        desk.spool(JOB, b"more\n")
        await until(pilot, lambda: "more" in screen_text(app))
        assert "takes too long" not in screen_text(app)

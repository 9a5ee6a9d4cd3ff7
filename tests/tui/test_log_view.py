"""The log window: following, pausing, searching, wrapping, selecting, copying."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import Input

from stoke.files.paths import job_dir
from stoke.history.job import JobState
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, STDERR, STDOUT, SpoolWriter
from tests.spools import size_of
from tests.tui.conftest import NOW, Desk, Frames, screen_text, shows, until
from tui.app import StokeApp
from tui.jobs.screen import JobsScreen
from tui.log.lines import LogLines
from tui.log.pane import LogPane
from tui.log.view import LogView
from tui.log.window import LogWindow

JOB = "job-aaaaaa"


def lines(first: int, last: int) -> bytes:
    return b"".join(f"line {number}\n".encode() for number in range(first, last))


async def opened(pilot: Pilot[Any], app: StokeApp) -> LogView:
    """Return the focused log of the only job."""
    await until(
        pilot, lambda: app.screen.query(LogView) and app.screen.query_one(LogView).lines.rows
    )
    await pilot.press("enter")
    view = app.screen.query_one(LogView)
    await until(pilot, lambda: view.has_focus)
    return view


async def test_new_lines_of_a_log_take_one_frame_and_no_layout(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.job(JOB, JobState.RUNNING, log=lines(0, 200))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        frames = Frames(app, monkeypatch)
        await until(pilot, frames.have_ceased)
        before = frames.count
        monkeypatch.setattr(app.screen, "_refresh_layout", None)  # Would be called, and fail.
        desk.spool(JOB, lines(200, 203))
        await until(pilot, lambda: "203 lines" in screen_text(app))
        await until(pilot, frames.have_ceased)
        assert "line 202" in screen_text(app)
        assert frames.count == before + 1


@pytest.mark.parametrize("wrap", [False, True])
async def test_the_scrollbars_are_those_of_a_new_layout(
    app: StokeApp, desk: Desk, wrap: bool
) -> None:
    """Scrollbars appear, grow and disappear with the log, without a layout of the screen."""
    desk.job(JOB, JobState.RUNNING, log=b"first\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        view.wrap = wrap

        async def stands() -> None:
            await pilot.pause()
            shown = app.export_screenshot(simplify=True)
            app.screen.refresh(layout=True)
            await pilot.pause()
            assert app.export_screenshot(simplify=True) == shown

        for length, count in ((1, 9), (500, 1), (1, 20), (1, 300), (9000, 1)):
            desk.spool(JOB, (b"x" * length + b"\n") * count)
            await until(pilot, lambda: view.lines.rows == spooled_rows())
            for key in "gG":
                await pilot.press(key)
                await stands()
        view.show_only(Query("first"))
        await until(pilot, lambda: view.lines.count == 1)
        await stands()


def spooled_rows() -> int:
    return size_of(job_dir(JOB))[1]


async def test_the_log_follows_unless_scrolled_up(app: StokeApp, desk: Desk) -> None:
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
        await until(pilot, lambda: f"{view.below} below" in screen_text(app))
        assert "line 0 " in screen_text(app)
        assert view.below > 300
        await pilot.press("f")
        await until(pilot, lambda: "line 399" in screen_text(app))


@pytest.mark.parametrize("name", ["log", "log.idx"])
def test_a_row_truncated_while_drawn_is_drawn_again(desk: Desk, own_home: Path, name: str) -> None:
    """A new follower truncates the spool and reads the same lines again."""
    desk.job(JOB, JobState.RUNNING, log=b"one\ntwo\n")
    shown = LogLines(job_dir(JOB))
    assert shown.update() == 2
    part = job_dir(JOB) / name
    whole = part.read_bytes()
    os.truncate(part, len(whole) // 2)
    shown.load(1)
    part.write_bytes(whole)
    assert shown.update() is not None
    assert [shown.load(row).text for row in (0, 1)] == ["one", "two"]
    assert shown.update() is None
    shown.close()


@pytest.mark.parametrize("height", [24, 40])
async def test_the_mouse_wheel_pauses_following_and_the_end_resumes_it(
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


async def test_a_progress_bar_shows_only_its_last_state(app: StokeApp, desk: Desk) -> None:
    bar = b"".join(b"\r%d%% of it" % percent for percent in range(101))
    huge = b"".join(b"\r%d rows read" % row for row in range(20_000))
    desk.job(JOB, log=bar + b"\n" + huge + b"\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: "100% of it" in screen_text(app))
        assert " 99% of it" not in screen_text(app)
        assert "19999 rows read" in screen_text(app)


async def test_a_long_log_costs_little(app: StokeApp, desk: Desk) -> None:
    """Of a million lines only the visible ones are read."""
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
        await until(pilot, lambda: shows(app, "zzz", without="begin"))
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
            view.update_lines()
            await pilot.pause()
        assert drawn == []


# --- searching ------------------------------------------------------------------------------------


async def ask(pilot: Pilot[Any], key: str, text: str) -> None:
    """Open a prompt, replace its text and submit it."""
    await pilot.press(key)
    prompt = pilot.app.screen.query_one("#log-prompt-input", Input)
    await until(pilot, lambda: prompt.has_focus)
    prompt.value = text
    await pilot.press("enter")


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


def styles_of(view: LogView, text: str) -> set[object]:
    """Return the colours of the drawn line that begins with a text."""
    for y in range(view.size.height):
        strip = view.render_line(y)
        if strip.text.strip(" │").startswith(text):
            return {part.style.color for part in strip if part.style and part.text.strip(" │")}
    raise AssertionError(text)


async def test_lines_have_the_colour_of_their_level_unless_the_job_coloured_them(
    app: StokeApp, desk: Desk
) -> None:
    log = b"plain\nERROR no\n2026-01-02 WARNING hm\n\x1b[32mERROR green\x1b[0m\nerrors: 0\n"
    desk.job(JOB, log=log)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        error, warning = (view._style(f"log--{level}").color for level in ("error", "warning"))
        assert styles_of(view, "ERROR no") == {error}
        assert styles_of(view, "2026-01-02 WARNING") == {warning}
        assert not styles_of(view, "plain") & {error, warning}
        assert not styles_of(view, "ERROR green") & {error, warning}


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


async def test_a_failed_job_is_wrapped_at_first_and_its_own_folder_is_not_shown(
    app: StokeApp, desk: Desk
) -> None:
    folder = f"/home/ada/.local/state/stoke/local/{JOB}/work/files/"
    trace = f'  File "{folder}fit.py", line 3, in <module>\n'.encode()
    inside = b'  File "/stoke/work/files/fit.py", line 4, in f\n'
    desk.job(JOB, JobState.FAILED, log=trace + inside + b"x" * 200 + b"\n")
    desk.job("job-bbbbbb", age=9999, log=b"y\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await until(pilot, lambda: 'File "fit.py", line 3' in screen_text(app))
        assert 'File "fit.py", line 4' in screen_text(app)
        await until(pilot, lambda: view.wrap)
        assert folder in view.lines.texts(0, 0)[0]
        await pilot.press("w")
        await until(pilot, lambda: not view.wrap)
        await pilot.press("escape", "j")
        await until(pilot, lambda: view.lines.rows == 1)
        assert not view.wrap


async def test_the_pager_gets_the_log_without_escape_sequences(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat "$1" > {copy}\n')
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    monkeypatch.setattr(app, "suspend", nullcontext)
    desk.job(JOB, log=b"\x1b[31mred\x1b[0m\x1b]52;c;aGk=\x07\nlast\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("vertical_line")
        await until(pilot, copy.exists)
        await until(pilot, lambda: copy.read_text() == "red\nlast\n")
        monkeypatch.setenv("PAGER", "/nowhere/pager")
        await pilot.press("vertical_line")
        await until(pilot, lambda: "export PAGER=" in screen_text(app))


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


# --- long lines -----------------------------------------------------------------------------------


async def test_a_wrapped_line_taller_than_the_window_is_read_from_end_to_end(
    app: StokeApp, desk: Desk
) -> None:
    words = " ".join(f"word{number:04}" for number in range(500))
    desk.job(JOB, log=b"first\n" + words.encode() + b"\nlast\n")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("w", "g")
        await until(pilot, lambda: "word0000" in screen_text(app))
        seen = set(re.findall(r"word\d{4}", screen_text(app)))
        for _ in range(200):
            if view.follow:
                break
            await pilot.press("j")
            seen |= set(re.findall(r"word\d{4}", screen_text(app)))
        # A word that wraps is on two lines.
        assert len(seen) > 400
        await until(pilot, lambda: "last" in screen_text(app))
        assert "word0499" in screen_text(app)
        await pilot.press("k", "k")
        assert "word0499" in screen_text(app)
        await pilot.press("pageup")
        await until(pilot, lambda: shows(app, "word", without="word0499"))
        assert "word0000" not in screen_text(app)


async def test_wide_characters_tabs_and_stacked_marks(app: StokeApp, desk: Desk) -> None:
    log = (
        "a\tb\n" + "語\tb\n" + "語" * 100 + "END\n" + "e" + "\u0301" * 5000 + "|\n"
        + "👩‍👩‍👧" * 60 + "END\n\x00nul\x00\n\n\nafter\n"
    )  # fmt: skip
    desk.job(JOB, log=log.encode())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("g")
        await until(pilot, lambda: " a       b" in screen_text(app))
        assert " 語      b" in screen_text(app)
        assert screen_text(app).count("\u0301") < 20
        assert "nul" in screen_text(app)
        await pilot.press("right", "right", "right", "right")
        await until(pilot, lambda: "語END" in screen_text(app))
        await pilot.press("w")
        await until(pilot, lambda: screen_text(app).count("語") == 101)
        for line in app.screen._compositor.render_strips():
            assert line.cell_length == 80


# --- selecting, copying, saving -------------------------------------------------------------------


async def test_lines_are_selected_with_v_and_copied(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"one\t1\n\x1b[31mtwo\x1b[0m\nthree\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("v", "g")
        await until(pilot, lambda: "3 selected, y copies" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard == "one\t1\ntwo\nthree")
        await until(pilot, lambda: "3 lines: copied" in screen_text(app))
        assert view.selected_from is None


@pytest.mark.parametrize("wrap", [False, True])
async def test_lines_between_old_and_new_cursor_are_redrawn(
    app: StokeApp, desk: Desk, wrap: bool
) -> None:
    """Only the lines between the old and the new cursor are drawn."""
    desk.job(JOB, log=b"".join(b"%d %s\n" % (n, b"x" * (n * 37 % 300)) for n in range(60)))
    async with app.run_test(size=(120, 40)) as pilot:
        view = await opened(pilot, app)
        view.wrap = wrap
        drawn: set[int] = set()
        render = view.render_line

        def render_line(y: int) -> Strip:
            drawn.add(y)
            return render(y)

        view.render_line = render_line  # type: ignore[method-assign]
        for key in "kkvkkkjjjjjjkvkgjjvjjjkkkkkG":
            drawn.clear()
            await pilot.press(key)
            await pilot.pause()
            assert wrap or key not in "kj" or len(drawn) < 12
            shown = app.export_screenshot(simplify=True)
            view.refresh()
            await pilot.pause()
            assert app.export_screenshot(simplify=True) == shown, key


async def test_text_selected_with_the_mouse_is_copied(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"".join(b"line %d\n" % n for n in range(5)))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.mouse_down(view, offset=(3, 1))
        await pilot.hover(view, offset=(6, 3))
        await pilot.mouse_up(view, offset=(6, 3))
        await until(pilot, lambda: view.text_selection is not None)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.clipboard == "ne 1\nline 2\nline 3")


async def test_copying_too_much_is_refused(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=(b"x" * 1_000_000 + b"\n") * 20)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("v", "g", "y")
        await until(pilot, lambda: "too long for a clipboard" in screen_text(app))


async def test_saving_the_log_asks_before_it_replaces_a_file(
    app: StokeApp, desk: Desk, tmp_path: Path
) -> None:
    log = b"\x1b[31mred\x1b[0m\n\xff raw\r\n"
    desk.job(JOB, log=log)
    target = tmp_path / "saved.log"
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await ask(pilot, "s", str(target))
        await until(pilot, lambda: target.exists() and target.read_bytes() == log)
        await until(pilot, lambda: "saved" in screen_text(app))
        target.write_bytes(b"mine")
        await ask(pilot, "s", str(target))
        await until(pilot, lambda: "Replace this file?" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.is_modal)
        assert target.read_bytes() == b"mine"
        await ask(pilot, "s", str(target))
        await until(pilot, lambda: "Replace this file?" in screen_text(app))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: target.read_bytes() == log)
        await ask(pilot, "s", str(tmp_path / "no" / "where"))
        await until(pilot, lambda: "cannot save the log" in screen_text(app))


async def test_colours_of_the_job_stay_and_nothing_hides_or_blinks(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, log=b"\x1b[1;31;5;8mred\x1b[0m plain \x1b[48;2;1;2;3mback\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        styles = {segment.text: segment.style for segment in view.render_line(0)}
        red, plain, back = styles["red"], styles[" plain "], styles["back"]
        assert red and plain and back
        assert red.bold
        assert not red.blink
        assert not red.conceal
        assert red.color != plain.color
        assert back.bgcolor != plain.bgcolor


async def test_help_and_palette_list_every_key_of_the_log(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"x\n")
    async with app.run_test(size=(120, 70), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys: Jobs" in screen_text(app))
        for what in ("Next error", "Filter", "Go to time", "Save", "Select lines", "Edit"):
            assert what in screen_text(app)
        await pilot.press("escape", "colon")
        await pilot.press(*"go to t")
        await until(pilot, lambda: "key: @" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "from the end" in screen_text(app))


async def test_every_key_of_the_log_is_harmless_before_there_is_a_line(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, JobState.RUNNING)
    keys = log_keys()
    assert {"w", "t", "v", "n", "e", "G"} <= set(keys)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.screen.query(LogView))
        view = app.screen.query_one(LogView)
        view.focus()
        await until(pilot, lambda: view.has_focus)
        for key in ["w", *keys, "x"]:  # x shows the engine's lines, and the log again.
            await pilot.press(key, "escape")
            view.focus()
        desk.spool(JOB, b"the first line\n")
        await until(pilot, lambda: "the first line" in screen_text(app))


def log_keys() -> list[str]:
    """Return every key of the log: those of its window, its pane, and some of the screen."""
    around = {"jobs.follow", "jobs.wrap", "jobs.timestamps", "jobs.copy"}
    declared = [*LogWindow.BINDINGS, *LogView.BINDINGS, *LogPane.BINDINGS, *JobsScreen.BINDINGS]
    bindings = [one for one in declared if isinstance(one, Binding)]
    chosen = [one for one in bindings if str(one.id).startswith("log.") or one.id in around]
    return [key for one in chosen for key in one.key.split(",")]


@pytest.mark.parametrize("key", ["slash", "ampersand"])
async def test_a_pattern_that_takes_too_long_is_dropped_with_the_reason(
    app: StokeApp, desk: Desk, key: str
) -> None:
    """The program responds meanwhile, and a growing log does not start the search again."""
    desk.job(JOB, JobState.RUNNING, log=b"fine\n" + b"a" * 60 + b"!\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press(key, "ctrl+r")
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

"""The log window: following, pausing, wrapping, colours and keys."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from textual.binding import Binding

from stoke.files.paths import job_dir, state_dir
from stoke.history.job import JobState
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, STDERR, STDOUT, SpoolWriter
from stoke.remote.protocol import JobFolder
from tests.spools import size_of
from tests.tui.conftest import Desk, Frames, screen_text, shows, shows_all, until
from tests.tui.open_log import JOB, lines, opened, styles_of
from tui.app import StokeApp
from tui.jobs.screen import JobsScreen
from tui.log.lines import LogLines
from tui.log.pane import LogPane
from tui.log.view import LogView
from tui.log.window import LogWindow


async def test_new_lines_of_a_log_take_no_frame_each_and_no_layout(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.job(JOB, JobState.RUNNING, log=lines(0, 200))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        frames = Frames(app, monkeypatch)
        await until(pilot, frames.have_ceased)
        before = frames.count
        monkeypatch.setattr(app.screen, "_refresh_layout", None)  # Would be called, and fail.
        desk.spool(JOB, lines(200, 230))
        await until(pilot, lambda: "230 lines" in screen_text(app))
        await until(pilot, frames.have_ceased)
        assert "line 229" in screen_text(app)
        # One; on a busy machine the number of lines gets a frame of its own.
        assert frames.count <= before + 2


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
        await until(pilot, lambda: shows_all(app, "line 299", "following"))
        await pilot.press("g")
        await until(pilot, lambda: "line 0 " in screen_text(app))
        desk.spool(JOB, lines(300, 400))
        await until(pilot, lambda: view.lines.rows == 400)
        await until(pilot, lambda: shows_all(app, f"{view.below} below", "line 0 "))
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
        await until(pilot, lambda: shows_all(app, "the very last", "1,000,002 lines"))
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


async def test_a_failed_job_is_wrapped_at_first_and_its_own_folder_is_not_shown(
    app: StokeApp, desk: Desk
) -> None:
    folder = f"{state_dir()}/local/{JOB}/{JobFolder.WORK}/{JobFolder.FILES}/"
    trace = f'  File "{folder}fit.py", line 3, in <module>\n'.encode()
    inside = b'  File "/stoke/work/files/fit.py", line 4, in f\n'
    projects = (
        b'  File "/stoke/work/project/pkg/part.py", line 5, in g\n'
        b'  File "/c/python/snapshots/copies/0123456789abcdef.3/pkg/part.py", line 6, in h\n'
    )
    desk.job(JOB, JobState.FAILED, log=trace + inside + projects + b"x" * 200 + b"\n")
    desk.job("job-bbbbbb", age=9999, log=b"y\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await until(pilot, lambda: shows_all(app, 'File "fit.py", line 3', 'File "fit.py", line 4'))
        assert 'File "pkg/part.py", line 5' in screen_text(app)
        assert 'File "pkg/part.py", line 6' in screen_text(app)
        await until(pilot, lambda: view.wrap)
        assert folder in view.lines.texts(0, 0)[0]
        await pilot.press("w")
        await until(pilot, lambda: not view.wrap)
        await pilot.press("escape", "j")
        await until(pilot, lambda: view.lines.rows == 1)
        assert not view.wrap


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
        await until(pilot, lambda: shows_all(app, "last", "word0499"))
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
        await until(pilot, lambda: shows_all(app, " a       b", " 語      b"))
        assert screen_text(app).count("\u0301") < 20
        assert "nul" in screen_text(app)
        await pilot.press("right", "right", "right", "right")
        await until(pilot, lambda: "語END" in screen_text(app))
        await pilot.press("w")
        await until(pilot, lambda: screen_text(app).count("語") == 101)
        for line in app.screen._compositor.render_strips():
            assert line.cell_length == 80


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
        await until(pilot, lambda: re.search(r"Go to time +@ ", screen_text(app)))
        await pilot.press("enter")
        await until(pilot, lambda: "from the end" in screen_text(app))


async def test_every_key_of_the_log_is_harmless_before_there_is_a_line(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, JobState.RUNNING)
    keys = log_keys()
    assert {"w", "t", "v", "n", "l", "G"} <= set(keys)
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


@pytest.mark.parametrize(
    ("state", "explanation"),
    [
        (JobState.QUEUED, "No output yet: the job is queued."),
        (JobState.RUNNING, "No output yet: the job is running."),
        (JobState.SUCCEEDED, "No output."),
    ],
)
async def test_an_empty_log_says_why(
    app: StokeApp, desk: Desk, state: JobState, explanation: str
) -> None:
    desk.job(JOB, state, log=b"")
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: explanation in screen_text(app), explanation)
        desk.spool(JOB, b"first\n")
        await until(pilot, lambda: "first" in screen_text(app))
        assert "No output" not in screen_text(app)
        await pilot.press("enter", "ampersand", *"nowhere", "enter")
        await until(pilot, lambda: "No line matches. Esc shows all" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "first" in screen_text(app))


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([(STDERR, b"err"), (STDOUT, b"a\nb\n"), (STDERR, b"\n")], 3),
        ([(STDERR, b"err"), (STDOUT, b"a\n"), (STDERR, b"\n"), (STDERR, b"more\n")], 3),
        ([(STDERR, b"err\n"), (STDOUT, b"a\n"), (STDERR, b"\n")], 3),
        ([(STDOUT, b"a\n"), (STDERR, b"\n")], 2),
        ([(STDOUT, b"a\n"), (STDOUT, b"\n")], 2),
        ([(STDERR, b"\n")], 1),
    ],
)
def test_a_late_newline_is_no_line_of_its_own(
    tmp_path: Path, pieces: list[tuple[int, bytes]], shown: int
) -> None:
    """The newline of stderr's last line is read with the event that follows it."""
    writer = SpoolWriter(tmp_path)
    log = LogLines(tmp_path)
    for time, (stream, data) in enumerate(pieces, 1):
        writer.add(stream, time, data)
        writer.flush()
        log.update()
        assert log.update() is None
    writer.close()
    assert log.rows == shown
    log.close()

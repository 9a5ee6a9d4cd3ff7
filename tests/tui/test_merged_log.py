"""The logs of marked jobs as one in the log window."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stoke.files.paths import job_dir
from stoke.history.job import JobState
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from tests.tui.conftest import Desk, screen_text, until
from tests.tui.open_log import ask, styles_of
from tui.app import StokeApp
from tui.log.view import LogView


def add(job_id: str, *lines: tuple[int, bytes], stream: int = STDOUT) -> None:
    writer = SpoolWriter(job_dir(job_id))
    for second, text in lines:
        writer.add(stream, second * 10**9, text)
    writer.close()


@pytest.fixture
def jobs(desk: Desk) -> Desk:
    desk.job("fit-7k2pqa", JobState.RUNNING, age=10, name="fit", log=b"")
    desk.job("eval-2abcde", age=20, name="eval", log=b"")
    desk.job("other-3abcde", age=30, name="other", log=b"alone\n")
    add("fit-7k2pqa", (10, b"fit one\n"), (30, b"WARNING fit three\n"))
    add("eval-2abcde", (20, b"eval two\n"), (40, b"ERROR eval four\n"))
    return desk


async def merged(pilot: Pilot[Any], app: StokeApp) -> LogView:
    """Mark the first two jobs, show their logs as one, and return the focused window."""
    await until(pilot, lambda: "Spec" in screen_text(app) and "other" in screen_text(app))
    await pilot.press("space", "space", "L")
    view = app.screen.query_one(LogView)
    await until(pilot, lambda: view.tags is not None and view.lines.rows == 4)
    await until(pilot, lambda: "eval four" in screen_text(app))
    return view


def shown(view: LogView) -> list[str]:
    strips = (view.render_line(y).text.rstrip() for y in range(view.size.height))
    return [text for text in strips if text]


async def test_lines_are_in_the_order_of_time_each_with_its_job(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await merged(pilot, app)
        assert shown(view) == [
            "fit   fit one",
            "eval  eval two",
            "fit   WARNING fit three",
            "eval  ERROR eval four",
        ]
        assert view.has_focus
        text = screen_text(app)
        assert "2 logs as one" in text
        assert "4 lines · " in text
        assert "following" in text
        one, two = styles_of(view, "fit"), styles_of(view, "eval  eval two")
        assert one != two


async def test_new_lines_come_in_while_a_job_runs(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await merged(pilot, app)
        add("fit-7k2pqa", (50, b"fit five\nunfinished"))
        await until(pilot, lambda: "fit five" in screen_text(app))
        assert view.lines.rows == 5
        jobs.history.update("fit-7k2pqa", state=JobState.SUCCEEDED, finished_at=60.0)
        await until(pilot, lambda: "unfinished" in screen_text(app))
        await until(pilot, lambda: "following" not in screen_text(app))


async def test_search_filter_and_levels_work_on_all_of_it(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await merged(pilot, app)
        await pilot.press("l")
        await until(
            pilot, lambda: shown(view) == ["fit   WARNING fit three", "eval  ERROR eval four"]
        )
        await pilot.press("l")
        await until(pilot, lambda: shown(view) == ["eval  ERROR eval four"])
        await pilot.press("l")
        await until(pilot, lambda: len(shown(view)) == 4)
        await ask(pilot, "slash", "two")
        await until(pilot, lambda: "1 of 1" in screen_text(app) and view.cursor == 1)
        await pilot.press("escape")
        await ask(pilot, "ampersand", "eval")
        await until(pilot, lambda: shown(view) == ["eval  eval two", "eval  ERROR eval four"])


async def test_escape_and_another_job_show_one_log_again(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await merged(pilot, app)
        folder = view.lines.folder
        assert isinstance(folder, Path)
        await pilot.press("escape")
        await until(pilot, lambda: "alone" in screen_text(app) and view.tags is None)
        assert "2 logs as one" not in screen_text(app)
        await until(pilot, lambda: not folder.exists(), "the removal of the copy")
        await pilot.press("L")
        await until(pilot, lambda: "eval two" in screen_text(app))
        await pilot.press("L")
        await until(pilot, lambda: "alone" in screen_text(app))
        await pilot.press("escape", "L")
        await until(pilot, lambda: "eval two" in screen_text(app))
        await pilot.press("tab")
        await until(pilot, lambda: not view.has_focus)
        app.screen.query_one("#jobs-table").focus()
        await pilot.press("k")
        await until(pilot, lambda: view.tags is None)


async def test_the_pager_and_a_saved_file_name_the_jobs(
    app: StokeApp, jobs: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy, pager = tmp_path / "copy", tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat "$1" > {copy}.new\nmv {copy}.new {copy}\n')
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    monkeypatch.setattr(app, "suspend", nullcontext)
    add("eval-2abcde", (41, b"on stderr\n"), stream=STDERR)
    wanted = (
        "fit  | fit one\neval | eval two\nfit  | WARNING fit three\neval | ERROR eval four\n"
        "eval | on stderr\n"
    )
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app) and "other" in screen_text(app))
        await pilot.press("space", "space", "L")
        await until(pilot, lambda: "on stderr" in screen_text(app))
        await pilot.press("vertical_line")
        await until(pilot, copy.exists)
        assert copy.read_text() == wanted
        saved = tmp_path / "all.log"
        await ask(pilot, "S", str(saved))
        await until(pilot, saved.exists)
        await until(pilot, lambda: saved.read_text() == wanted)


async def test_jobs_of_one_name_are_told_apart_by_their_ids(app: StokeApp, desk: Desk) -> None:
    for number in range(2):
        job_id = f"{'very-long-name-of-a-training-run-' * 2}{number}-7k2pq{number}"
        desk.job(job_id, age=10 + number, name="same", log=b"")
        add(job_id, (number, b"text %d\n" % number))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("a", "L")
        view = app.screen.query_one(LogView)
        await until(pilot, lambda: view.lines.rows == 2 and view.tags is not None)
        await until(pilot, lambda: "text 1" in screen_text(app))
        lines = shown(view)
        assert [line[-6:] for line in lines] == ["text 0", "text 1"]
        assert len({line[:16] for line in lines}) == 2


async def test_one_job_is_not_merged_and_the_key_says_so(app: StokeApp, jobs: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app) and "other" in screen_text(app))
        assert "Marked logs" not in screen_text(app)
        await pilot.press("L")
        await until(pilot, lambda: "space marks a job" in screen_text(app))
        await pilot.press("space", "space")
        await until(pilot, lambda: "Marked logs as one" in screen_text(app))

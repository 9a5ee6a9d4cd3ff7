"""All dialogs: the still background, and the memory that closing one frees."""

from __future__ import annotations

import gc
import weakref

import pytest
from textual._compositor import LayoutUpdate
from textual._styles_cache import StylesCache

from stoke.history.job import JobState
from tests.tui.conftest import Desk, Frames, shows, until
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm

JOB = "job-aaaaaa"


def shown(app: StokeApp) -> str:
    """Return what is on the terminal, with the background of a dialog."""
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    assert isinstance(update, LayoutUpdate)
    rows = ([segment.text for strip in row for segment in strip] for row in update.strips)
    return "\n".join("".join(row) for row in rows)


async def test_the_cached_lines_of_a_closed_dialog_are_freed(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, JobState.SUCCEEDED, log=b"one\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "one" in shown(app))
        drawn: list[weakref.ref[StylesCache]] = []
        for _ in range(3):
            await pilot.press("question_mark")
            await until(pilot, lambda: "Keys: Jobs" in shown(app))
            drawn += [weakref.ref(widget._styles_cache) for widget in app.screen.query("*")]
            await pilot.press("escape")
            await until(pilot, lambda: shows(app, "one", without="Keys: Jobs"))
        await pilot.pause()
        gc.collect()
        assert len(drawn) > 9
        assert [one() for one in drawn if one() is not None] == []


async def test_the_screen_behind_a_dialog_is_drawn_once(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.job(JOB, JobState.RUNNING, log=b"first " * 9 + b"\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "first" in shown(app))
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        frames = Frames(app, monkeypatch)
        await until(pilot, frames.have_ceased)
        before = frames.count
        jobs = app.get_screen_stack("jobs")[0]
        desk.spool(JOB, (b"second " * 8 + b"\n") * 300)
        view = jobs.query_one("#log-view")
        await until(pilot, lambda: view.lines.rows == 301)  # type: ignore[attr-defined]
        await until(pilot, frames.have_ceased)
        assert frames.count == before, "the screen was drawn without a change"
        assert "first" in shown(app) and "second" not in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: "second" in shown(app))


async def test_the_screen_behind_a_dialog_follows_the_size_of_the_terminal(
    app: StokeApp, desk: Desk
) -> None:
    desk.job(JOB, JobState.SUCCEEDED, log=b"one\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "one" in shown(app))
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys: Jobs" in shown(app))
        await pilot.resize_terminal(150, 50)
        # The frame of the screen behind reaches the new edges.
        await until(pilot, lambda: shown(app).splitlines()[1].endswith("─"))
        assert len(shown(app).splitlines()[1]) == 150
        assert len(shown(app).splitlines()) == 50

"""Drafts: several of them, one process each, and what opening a file does to the form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stoke.config.model import Config
from tests.tui.conftest import NOW, Desk, screen_text, shows_all, until
from tests.tui.new_job_form import field, opened
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.new_job import draft as drafts
from tui.new_job.code_editor import CodeEditor
from tui.new_job.draft import Draft
from tui.new_job.drafts import DraftsDialog

SIZE = (120, 50)
HOLDS = """
import sys
from tui.new_job.draft import DraftSlot
slot = DraftSlot(None)
print(slot.name, flush=True)
sys.stdin.read()
"""


async def test_drafts_are_begun_changed_and_removed(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        code = screen.query_one(CodeEditor)
        await pilot.press(*"first = 1")
        field(screen, "name").text = "one"
        await pilot.press("f10")
        await until(pilot, lambda: isinstance(app.screen, DraftsDialog))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen and code.text == "")
        assert field(screen, "name").text == ""
        await pilot.press(*"second = 2", "f10")
        await until(pilot, lambda: "first = 1" in screen_text(app))
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: code.text == "first = 1")
        assert field(screen, "name").text == "one"
        await pilot.press("f10")
        await until(pilot, lambda: "second = 2" in screen_text(app))
        await pilot.press("down", "down", "d")
        await until(pilot, lambda: drafts.names() == ["draft"])
        await pilot.press("escape")
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test(size=SIZE) as pilot:
        await opened(pilot, again)
        await until(pilot, lambda: "first = 1" in screen_text(again))


async def test_the_form_is_cleared_after_asking(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"first = 1")
        field(screen, "dependencies").text = "numpy"
        await pilot.press("f10")
        await until(pilot, lambda: isinstance(app.screen, DraftsDialog))
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == "")
        assert field(screen, "dependencies").text == ""
        await until(pilot, lambda: drafts.names() == [])


async def test_a_draft_that_another_process_edits_is_left_alone(app: StokeApp, desk: Desk) -> None:
    drafts.save(Draft("theirs = 1"))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "draft\n"
        async with app.run_test(size=SIZE) as pilot:
            screen = await opened(pilot, app)
            assert screen.query_one(CodeEditor).text == ""
            await pilot.press(*"ours = 2")
            await until(pilot, lambda: "draft-2" in drafts.names())
            await pilot.press("f10")
            await until(pilot, lambda: "open in another stoke" in screen_text(app))
        other.communicate()
    assert drafts.load("draft").code == "theirs = 1"
    assert drafts.load("draft-2").code == "ours = 2"


async def test_an_opened_file_brings_its_name_and_the_packages_are_asked_about(
    app: StokeApp, desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot, app)
        field(screen, "name").text = "other"
        field(screen, "dependencies").text = "numpy"
        for key, left in (("n", "numpy"), ("y", "")):
            screen._script = ""
            screen._open(tmp_path / "train.py")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await until(pilot, lambda: shows_all(app, "The form had them", ": numpy"))
            await pilot.press(key)
            await until(pilot, lambda: app.screen is screen)
            assert field(screen, "dependencies").text == left
        assert field(screen, "name").text == "train"

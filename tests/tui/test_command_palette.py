"""The command palette finds everything by one line, and takes commands."""

from __future__ import annotations

import json

import pytest

from stoke.config.model import Config
from stoke.history.job import JobState
from stoke.request import presets
from tests.tui.conftest import NOW, Desk, screen_text, until
from tui.app import StokeApp
from tui.command_palette import CommandPalette
from tui.dialogs.help import Help
from tui.jobs.screen import JobsScreen
from tui.log.view import LogView


def palette_lines(app: StokeApp) -> list[str]:
    assert isinstance(app.screen, CommandPalette)
    return [entry.id for entry in app.screen._found]


async def test_jobs_presets_themes_screens_and_settings_are_found(
    app: StokeApp, desk: Desk
) -> None:
    presets.save(presets.path_of("night fit"), json.dumps({"code": "print(1)"}))
    desk.job("fit-aaaaaa", name="fit", age=60)
    desk.job("old-bbbbbb", name="old", age=6000)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        for typed, expected in (
            ("fit", "job fit-aaaaaa"),
            ("night", "preset night fit"),
            ("high", "theme high-contrast"),
            ("metr", "screen Metrics"),
            ("group jobs by st", "setting Group jobs by state"),
            ("sort by the next", "setting Sort by the next column"),
        ):
            await pilot.press("ctrl+p", *typed)
            assert expected in palette_lines(app)[:2], typed
            await pilot.press("escape")


async def test_what_was_chosen_last_comes_first_also_after_a_new_start(
    app: StokeApp, desk: Desk
) -> None:
    desk.job("fit-aaaaaa", age=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("ctrl+p")
        assert palette_lines(app)[0] == "job fit-aaaaaa"
        await pilot.press(*"metrics", "enter")
        await until(pilot, lambda: app.current_mode == "metrics")
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: again.current_mode == "metrics")
        await pilot.press("ctrl+p")
        assert palette_lines(again)[:2] == ["screen Metrics", "job fit-aaaaaa"]


async def test_commands_filter_jobs_and_open_logs_and_screens(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa", name="fit", age=60, log=b"hello from fit\n")
    desk.job("bad-bbbbbb", JobState.FAILED, name="bad", age=50)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press(*":race", "enter")
        await until(pilot, lambda: app.current_mode == "race")
        # Enter comes at once after the text, so it must act on the whole text.
        await pilot.press(*":jobs failed", "enter")
        await until(pilot, lambda: app.current_mode == "jobs")
        await until(pilot, lambda: "1 of 2 jobs" in screen_text(app))
        await pilot.press(*":jobs", "enter")
        await until(pilot, lambda: "2 jobs" in screen_text(app))
        await pilot.press(*":logs fit", "enter")
        await until(pilot, lambda: "hello from fit" in screen_text(app))
        assert isinstance(app.screen, JobsScreen)
        await until(pilot, lambda: app.screen.query_one(LogView).has_focus)
        await pilot.press(*":theme high")
        assert palette_lines(app).count("theme high-contrast") == 1
        await pilot.press("enter")
        await until(pilot, lambda: app.theme == "high-contrast")
        await pilot.press(*":help remove", "enter")
        await until(pilot, lambda: isinstance(app.screen, Help))
        await until(pilot, lambda: "Remove" in screen_text(app))


async def test_text_that_finds_nothing_does_nothing(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("ctrl+p", *"[b]zz", "enter")
        await until(pilot, lambda: "Nothing found" in screen_text(app))
        assert isinstance(app.screen, CommandPalette)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen))


async def test_the_palette_over_a_dialog_lists_only_its_keys(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("d")
        await until(pilot, lambda: "Cancel (n)" in screen_text(app))
        await pilot.press("ctrl+p")
        found = palette_lines(app)
        assert "key Yes" in found
        assert not any(line.startswith(("job", "screen", "theme", "preset")) for line in found)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_help_is_searched_and_lists_our_keys_first(
    app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "No jobs yet" in screen_text(app))
        await pilot.press("2")
        await until(pilot, lambda: app.current_mode == "new")
        await pilot.press("f1")
        await until(pilot, lambda: "On this screen" in screen_text(app))
        text = screen_text(app)
        if "Editing text" in text:
            assert text.index("Submit") < text.index("Editing text")
        await pilot.press(*"preset")
        await until(pilot, lambda: "Editing text" not in screen_text(app))
        await until(pilot, lambda: "Save as a preset" in screen_text(app))
        assert "Undo" not in screen_text(app)


async def test_from_a_form_no_screen_has_a_key_and_the_chosen_row_stands_out(
    app: StokeApp, desk: Desk
) -> None:
    desk.job("fit-aaaaaa", age=60)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("2")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "code")
        await pilot.press("ctrl+p", *"metrics")
        details = [one.detail for one in app.screen._found if one.id == "screen Metrics"]  # type: ignore[attr-defined]
        assert details == [""]
        row = app.screen.query_one("#palette-list").region
        chosen, other = (app.screen.get_style_at(row.x + 20, row.y + at).bgcolor for at in (0, 5))
        assert chosen is not None
        assert chosen.name == app.theme_variables["raised"].lower()
        assert chosen != other

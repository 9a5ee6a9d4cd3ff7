"""Keys and themes of the user, read-only, the bell, and what the next start restores."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import TextArea

from stoke.config.model import Config
from stoke.files.paths import config_file
from stoke.history.job import JobState
from tests.tui.conftest import NOW, Desk, screen_text, until
from tui import keymap, themes, ui_state
from tui.app import StokeApp
from tui.terminal.bell import Bell


def write(name: str, text: str) -> Path:
    path = config_file().parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def notes(app: StokeApp) -> str:
    return "\n".join(str(note.message) for note in app._notifications)


async def test_a_key_from_keys_toml_replaces_the_default(desk: Desk, app: StokeApp) -> None:
    desk.job("fit-7k2pqa")
    write("keys.toml", '[jobs]\nremove = "x"\nfind = "/,ctrl+f"\n')
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "fit-7k2pqa" in screen_text(app))
        await pilot.press("d")
        assert not app.screen.is_modal
        await pilot.press("x")
        await until(pilot, lambda: app.screen.is_modal)
        assert not app._notifications


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[jobs]\nremov = 'x'\n", "unknown action jobs.remov; did you mean jobs.remove?"),
        ("[jobs]\nstop = 3\n", "jobs.stop: keys must be text"),
        ("[jobs]\nstop = ''\n", "jobs.stop: keys must be text"),
        ("jobs = 'x'\n", "unknown action jobs"),
        ("[jobs]\nstop = 'r'\n", "r is already used by jobs.rerun; jobs.stop keeps its default"),
        ("[app]\nhelp = 's'\n", "s is already used by jobs.stop; app.help keeps its default"),
        ("[jobs\n", "using the default keys"),
    ],
)
async def test_an_error_in_keys_toml_is_reported_and_only_its_line_ignored(
    desk: Desk, app: StokeApp, text: str, said: str
) -> None:
    write("keys.toml", text)
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: said in notes(app))
        await pilot.press("question_mark")
        await until(pilot, lambda: app.screen.is_modal)


def test_two_actions_may_swap_their_keys() -> None:
    write("keys.toml", '[jobs]\nstop = "r"\nrerun = "s"\n')
    assert keymap.load() == ({"jobs.stop": "r", "jobs.rerun": "s"}, [])


def test_the_printed_file_names_every_action_and_changes_nothing() -> None:
    text = keymap.as_file()
    assert '\n# remove = "d"  # Remove\n' in text
    write("keys.toml", text.replace("\n# ", "\n"))
    keys, wrong = keymap.load()
    assert not wrong
    assert keys == {
        action: ",".join(keymap._keys(one.key)) for action, one in keymap.actions().items()
    }


async def test_themes_of_the_user_are_loaded_and_their_errors_reported(desk: Desk) -> None:
    write("themes/night.toml", 'primary = "#0055aa"\nbackground = "#101418"\n')
    write("themes/broken.toml", 'primary = "#nothing"\n')
    write("themes/odd.toml", 'primary = "red"\ncolour = "red"\n')
    app = StokeApp(Config(theme="night"), clock=lambda: NOW)
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: app.theme == "night")
        assert "theme broken.toml skipped: primary is not a colour: #nothing" in notes(app)
        assert "theme odd.toml skipped: unknown key colour" in notes(app)


def test_every_colour_of_the_high_contrast_theme_is_one() -> None:
    assert themes.HIGH_CONTRAST.to_color_system().generate()


@pytest.mark.parametrize(
    ("screen", "key", "mode"),
    [("Caches", "3", "caches"), ("Metrics", "4", "metrics"), ("Race", "5", "race")],
)
async def test_palette_and_keys_switch_screens(
    app: StokeApp, desk: Desk, screen: str, key: str, mode: str
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "No jobs yet" in screen_text(app))
        await pilot.press("colon")
        await pilot.press(*screen)
        await until(pilot, lambda: re.search(rf"screen +\w.* {key} ", screen_text(app)))
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == mode)
        await pilot.press("question_mark")
        await until(pilot, lambda: f"Keys: {screen}" in screen_text(app))
        await pilot.press("escape", "q")
        await until(pilot, lambda: app.current_mode == "jobs")


async def test_a_theme_chosen_on_one_screen_holds_on_the_others(desk: Desk, app: StokeApp) -> None:
    desk.job("job-aaaaaa", JobState.SUCCEEDED)

    def colours() -> list[object]:
        return [(one.styles.background, one.styles.color) for one in app.screen.query("*")]

    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.screen.query("#log-view"))
        before = colours()
        for theme in (app.theme, "high-contrast"):
            await pilot.press("3")
            await until(pilot, lambda: app.current_mode == "caches")
            app.theme = theme
            await pilot.press("1")
            await until(pilot, lambda: app.current_mode == "jobs")
        await pilot.pause()
        shown = colours()
        assert shown != before
        app.screen.update_node_styles()
        assert shown == colours()


async def test_theme_and_screen_are_restored_at_the_next_start(desk: Desk, app: StokeApp) -> None:
    async with app.run_test() as pilot:
        app.theme = "high-contrast"
        await pilot.press("3")
        await until(pilot, lambda: ui_state.load("screens").get("mode") == "caches")
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test() as pilot:
        await until(pilot, lambda: again.current_mode == "caches")
        assert again.theme == "high-contrast"


async def test_the_first_key_of_a_start_never_goes_into_the_code(desk: Desk, app: StokeApp) -> None:
    desk.job("fit-7k2pqa")
    async with app.run_test() as pilot:
        await pilot.press("2")
        await until(pilot, lambda: ui_state.load("screens").get("mode") == "new")
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test() as pilot:
        await until(pilot, lambda: "fit-7k2pqa" in screen_text(again))
        await pilot.press("q")
        await until(pilot, lambda: not again.is_running)


async def test_read_only_offers_nothing_that_changes_anything(desk: Desk) -> None:
    desk.job("fit-7k2pqa")
    app = StokeApp(Config(read_only=True), clock=lambda: NOW)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "fit-7k2pqa" in screen_text(app))
        shown = screen_text(app)
        assert "read-only" in shown and "Remove" not in shown and "Run again" not in shown
        await pilot.press("d", "r", "s", "question_mark")
        # Help comes after keys that must do nothing: all of them have been handled then.
        await until(pilot, lambda: "Keys: Jobs" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.is_modal)
        assert not desk.backends["local"].deliveries
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query("#submit"))
        app.screen.query_one("#code", TextArea).load_text("print(1)\n")
        await pilot.press("ctrl+r")
        await pilot.click("#submit")
        await until(pilot, lambda: "read_only" in notes(app))
        assert not desk.backends["local"].deliveries


def test_the_bell_announces_long_jobs_that_have_just_ended(desk: Desk) -> None:
    running = desk.job("fit-7k2pqa", JobState.RUNNING, age=3600)
    old = desk.job("old-7k2pqa")
    desk.history.update(running.id, state=JobState.FAILED, finished_at=NOW)
    ended = desk.history.get(running.id)
    assert ended is not None
    bell = Bell("desktop", 30)
    assert bell.ended([running, old], [ended, old]) == [ended]
    assert bell.ended([ended, old], [ended, old]) == []
    assert Bell("desktop", 7200).ended([running], [ended]) == []
    assert bell.sequence([ended]) == "\x1b]9;stoke: fit-7k2pqa failed\x07\a"
    named = replace(ended, id="a;b\x1b]0;PWN\x07\u202e" + "c" * 500)
    assert bell.sequence([named]) == "\x1b]9;stoke: a?b" + "c" * 57 + " failed\x07\a"
    assert Bell("bell", 0).sequence([ended]) == "\a"
    assert Bell("off", 0).sequence([ended]) == bell.sequence([]) == ""


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
async def test_the_key_bar_cuts_no_key_and_keeps_help_and_the_way_out(
    desk: Desk, app: StokeApp, width: int
) -> None:
    desk.job("fit-7k2pqa")
    keys = ["/ Find", "r Run again", "e Edit and run", "d Remove", "c Compare", "z Zoom"]
    lines = [" ".join([*keys[:count], "? Help q Quit"]) for count in range(1, len(keys) + 1)]
    fitting = [line for line in lines if len(line) <= width][-1]
    async with app.run_test(size=(width, 24)) as pilot:
        await until(pilot, lambda: screen_text(app).splitlines()[-1].rstrip() == fitting, fitting)


async def test_the_key_bar_shows_no_key_that_a_text_field_takes(desk: Desk, app: StokeApp) -> None:
    desk.job("fit-7k2pqa", log=b"one\n")
    async with app.run_test(size=(200, 24)) as pilot:
        await until(pilot, lambda: "/ Find" in screen_text(app).splitlines()[-1])
        await pilot.press("slash")
        bar = "⏎ Accept esc Back f8 Zoom f1 Help"
        await until(pilot, lambda: screen_text(app).splitlines()[-1].strip() == bar, bar)
        await pilot.press(*"/@+-_\\")
        await until(pilot, lambda: "/@+-_\\" in screen_text(app))


async def test_a_click_on_a_key_presses_it(desk: Desk, app: StokeApp) -> None:
    desk.job("fit-7k2pqa")
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "z Zoom ? Help" in screen_text(app))
        line = screen_text(app).splitlines()[-1]
        await pilot.click("KeyBar", offset=(line.index("? Help") + 3, 0))
        await until(pilot, lambda: app.screen.is_modal)
        await until(pilot, lambda: "Keys: Jobs" in screen_text(app))

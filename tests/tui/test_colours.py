"""Every text can be read in every theme that stoke ships, on the row of the cursor, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.theme import BUILTIN_THEMES, Theme

from stoke.config.model import Config
from stoke.history.job import JobState
from tests.tui.conftest import NOW, Desk, screen_text, until
from tui import palette, themes, ui_state
from tui.app import StokeApp
from tui.jobs.job_list import JobList
from tui.widgets.choice_list import ChoiceList

SHIPPED = {
    theme.name: theme
    for theme in (*themes.OURS, *BUILTIN_THEMES.values())
    if not palette.is_ansi(theme)
}
# Lines and bars carry no text.
NO_TEXT = set(" │─╭╮╰╯┌┐└┘▁▂▃▄▅▆▇█▌▐▀▎▊━●")


def colours_of(theme: Theme) -> dict[str, Color]:
    generated = theme.to_color_system().generate()
    own = palette.variables(theme, generated)
    background = Color.parse(generated["background"])
    grounds = {key: background + Color.parse(generated[key]) for key in ("surface", "panel")}
    return {"background": background, **grounds} | {
        key: Color.parse(colour) for key, colour in own.items()
    }


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_role_is_readable_on_every_ground(name: str) -> None:
    colours = colours_of(SHIPPED[name])
    pairs = [
        (text, ground)
        for text in (*palette.ROLES, "foreground", "text-muted", "footer-key-foreground")
        for ground in palette.GROUNDS
    ]
    pairs += [("match-text", "match"), ("match-now-text", "match-now"), ("chosen-text", "chosen")]
    pairs += [("on-busy", "busy"), ("on-bad", "bad")]
    weak = {
        (text, ground): round(ratio, 2)
        for text, ground in pairs
        if (ratio := palette.contrast(colours[text], colours[ground])) < palette.READABLE
    }
    assert not weak
    # The row of the cursor and the current match differ from the rows around them.
    assert palette.contrast(colours["raised"], colours["background"]) > 1.15
    assert palette.contrast(colours["match-now"], colours["match"]) > 1.5


def test_contrast_is_that_of_wcag() -> None:
    assert palette.contrast(Color.parse("white"), Color.parse("black")) == pytest.approx(21)
    assert palette.contrast(Color.parse("#777777"), Color.parse("white")) == pytest.approx(
        4.48, abs=0.01
    )


def texts(app: StokeApp) -> Iterator[tuple[str, float]]:
    """Yield each piece of text on the terminal and its contrast."""
    for line in app.screen._compositor.render_strips():
        yield from ratios(app, line)


def ratios(app: StokeApp, strip: Strip) -> Iterator[tuple[str, float]]:
    for text, style, _ in strip:
        if style is None or set(text) <= NO_TEXT or style.color is None or style.bgcolor is None:
            continue
        front, back = (
            Color.from_rich_color(colour, app.ansi_theme) for colour in (style.color, style.bgcolor)
        )
        if style.reverse:
            front, back = back, front
        if style.dim:
            front = front.blend(back, 0.5)
        yield text, palette.contrast(front, back)


def weak(app: StokeApp) -> list[tuple[str, float]]:
    return [(text, ratio) for text, ratio in texts(app) if ratio < palette.READABLE]


def weak_in_dialog(app: StokeApp) -> list[tuple[str, float]]:
    """Return what is hard to read in a dialog; the screen below it is dimmed."""
    box = app.screen.query_one(".dialog").region
    strips = app.screen._compositor.render_strips()[box.y : box.bottom]
    return [
        (text, ratio)
        for strip in strips
        for text, ratio in ratios(app, strip.crop(box.x, box.right))
        if ratio < palette.READABLE
    ]


async def test_every_text_of_the_screens_is_readable(desk: Desk) -> None:
    for number, state in enumerate(JobState):
        desk.job(f"job-{state}-{number}aaaaa", state, age=60 + number, hit=number % 2 == 0,
                 log=b"ERROR no\nWARNING hm\nDEBUG x\nplain\n", reason="no such file")  # fmt: skip
    app = StokeApp(Config(), clock=lambda: NOW)
    async with app.run_test(size=(140, 40), notifications=True) as pilot:
        await until(pilot, lambda: "job-running" in screen_text(app))
        for mode in ("jobs", "new", "caches", "metrics", "race"):
            app.action_switch(mode)
            await until(pilot, lambda mode=mode: app.current_mode == mode and app.screen.query("*"))  # type: ignore[misc]
            for name in ("solarized-light", "high-contrast", "textual-light", "stoke"):
                app.theme = name
                await until(pilot, lambda: not weak(app), f"a readable {mode} in {name}")
        for key, name in (("ctrl+p", "palette"), ("f1", "help")):
            await pilot.press(key)
            await until(pilot, lambda: app.screen.is_modal)
            await until(pilot, lambda: not weak_in_dialog(app), f"a readable {name}")
            await pilot.press("escape")


async def test_without_colours_nothing_is_weaker_than_plain_text(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    ui_state.save("screens", {"theme": "ansi-dark"})
    desk.job("job-aaaaaa", JobState.FAILED, age=60, exit_code=3, log=b"plain\nERROR no\n")
    app = StokeApp(Config(), clock=lambda: NOW)
    async with app.run_test(size=(100, 28), notifications=True) as pilot:
        await until(pilot, lambda: "ERROR no" in screen_text(app))
        assert not weak(app)
        shown = dict(texts(app))
        plain = next(ratio for text, ratio in shown.items() if "plain" in text)
        assert next(ratio for text, ratio in shown.items() if "ERROR no" in text) == plain


async def test_the_row_of_the_cursor_has_one_colour_if_the_terminal_chooses_them(
    desk: Desk, app: StokeApp
) -> None:
    desk.job("job-aaaaaa", JobState.FAILED, age=60, exit_code=3, hit=False)
    async with app.run_test(size=(100, 28), notifications=True) as pilot:
        app.theme = "ansi-dark"
        await until(pilot, lambda: "exit 3" in screen_text(app))
        await until(pilot, lambda: palette.is_ansi(app.current_theme))
        await pilot.pause(0.1)
        table = app.screen.query_one(JobList)
        row = table._row(0, Style())
        assert {segment.style.color for segment in row if segment.style} == {row[0].style.color}  # type: ignore[union-attr]


async def test_the_chosen_row_of_a_dialog_has_one_colour_if_the_terminal_chooses_them(
    desk: Desk, app: StokeApp
) -> None:
    desk.job("job-aaaaaa", JobState.FAILED, age=60)
    async with app.run_test(size=(100, 28), notifications=True) as pilot:
        app.theme = "ansi-dark"
        await until(pilot, lambda: "job-aaaaaa" in screen_text(app))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: app.screen.query(ChoiceList))
        found = app.screen.query_one(ChoiceList)
        chosen, other = ({(part.style.color, part.style.dim) for part in found.render_line(y)
                          if part.style and part.text.strip()} for y in (0, 1))  # fmt: skip
        assert len(chosen) == 1
        assert len(other) > 1


async def test_raised_texts_have_a_colour_of_their_own_if_the_terminal_chooses_them(
    desk: Desk, app: StokeApp
) -> None:
    desk.job("job-aaaaaa", JobState.FAILED, age=60, log=b"ERROR no\n")
    async with app.run_test(size=(100, 28), notifications=True) as pilot:
        app.theme = "ansi-dark"
        await until(pilot, lambda: "ERROR no" in screen_text(app))
        await pilot.press("enter")
        for text in (" 1 Jobs ", " Log ", "ERROR no"):
            await until(pilot, lambda text=text: is_black_on_white(app, text), text)  # type: ignore[misc]


def is_black_on_white(app: StokeApp, wanted: str) -> bool:
    return any(
        text == wanted and (style.color.number, style.bgcolor.number) == (0, 7)
        for line in app.screen._compositor.render_strips()
        for text, style, _ in line
        if style is not None and style.color is not None and style.bgcolor is not None
    )

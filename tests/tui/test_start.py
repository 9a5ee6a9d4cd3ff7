"""What the start of the screens must not do twice."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.css.stylesheet import Stylesheet

from tests.tui.conftest import Desk, until
from tui import themes
from tui.app import StokeApp


async def test_the_first_screen_does_not_parse_all_styles_again(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.job("one-aaaaaa", age=60)
    parsed: list[Stylesheet] = []
    reparse = Stylesheet.reparse

    def counted(self: Stylesheet) -> None:
        parsed.append(self)
        reparse(self)

    monkeypatch.setattr(Stylesheet, "reparse", counted)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.focused is not None)
        assert parsed == []
        background = app.get_css_variables()["background"]
        assert app.screen.styles.background == Color.parse(background)
        # Later screens get their styles, and those of a theme that was chosen before they were made.
        app.theme = themes.HIGH_CONTRAST.name
        await until(pilot, lambda: len(parsed) > 0)
        await pilot.press("3")
        await until(pilot, lambda: app.current_mode == "caches")
        changed = app.get_css_variables()["background"]
        assert changed != background
        assert app.screen.styles.background == Color.parse(changed)

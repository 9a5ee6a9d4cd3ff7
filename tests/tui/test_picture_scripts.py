"""tools/screenshots.py and tools/tour.py find the widgets that they wait for."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from tests.tui.conftest import until
from tools import screenshots
from tui.app import StokeApp
from tui.race.picture import placed

TOOLS = Path(screenshots.__file__).parent
IDS = {"jobs": "#log", "new": ("#code", "#field"), "race": "#race"}


async def test_every_widget_that_the_scripts_query_is_on_a_screen(app: StokeApp) -> None:
    text = "".join((TOOLS / name).read_text() for name in ("screenshots.py", "tour.py"))
    wanted = set(re.findall(r"""query(?:_one)?\("([^"]+)\"""", text))
    assert {"#code", "#log-view", "#race-ratio"} <= wanted
    found: set[str] = set()
    async with app.run_test(size=(120, 40)) as pilot:
        for mode in ("jobs", "new", "race"):
            here = [one for one in wanted if one.startswith(IDS[mode])]
            app.action_switch(mode)
            # A screen mounts some of its widgets after the first frame.
            await until(pilot, partial(is_shown, app, mode, here))
            found.update(here)
    assert found == wanted


def is_shown(app: StokeApp, mode: str, selectors: list[str]) -> bool:
    return app.current_mode == mode and all(map(app.screen.query, selectors))


def test_a_picture_gives_words_after_blanks_a_place_of_their_own() -> None:
    before = (
        '<text class="a" x="12.2" y="9" textLength="97.6" clip-path="u">'
        "&#160;&#160;日&lt;&#160;b&#160;&#160;</text>"
    )
    after = placed(f"<g>{before}</g>")
    assert after == (
        '<g><text class="a" x="36.6" y="9" textLength="61.0" clip-path="u">日&lt;&#160;b</text></g>'
    )

"""tools/screenshots.py and tools/tour.py find the widgets that they wait for."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from tests.tui.conftest import until
from tools import screenshots
from tui.app import StokeApp
from tui.race.picture import placed
from tui.race.shapes import boxes

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


def test_a_picture_draws_lines_and_blocks_itself() -> None:
    before = '<text class="a" x="0" y="18.5" textLength="61.0" clip-path="u">a━━▄\u2801╬</text>'
    after = placed(before)
    assert re.findall(">([^<]+)</text>", after) == ["a", "╬"]
    # One line for two cells, the lower half of the next one, a dot in the one after that.
    (drawn,) = re.findall(' d="([^"]+)"', after)
    assert re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)", drawn) == [
        ("12.2", "10.5", "36.6", "13.9"),
        ("36.6", "12.2", "48.8", "25.6"),
        ("50.5", "1.7", "53.2", "4.4"),
    ]


def test_each_line_and_block_is_drawn_or_left_to_the_font() -> None:
    left = {chr(code) for code in range(0x2500, 0x25A0) if boxes(chr(code), 0.5) is None}
    # Double, dashed and diagonal lines, those of two weights, and shades.
    assert set("─│┌┤┼━┃┏╭╯╴╹█▀▄▌▐▁▇▏▔▕▖▚▟") & left == set()
    assert set("═║╬┄░▒▓┍") <= left
    for code in range(0x2500, 0x25A0):
        for x, y, right, bottom in boxes(chr(code), 0.5) or ():
            assert 0 <= x < right <= 1 and 0 <= y < bottom <= 1, chr(code)

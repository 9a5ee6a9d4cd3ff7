"""The recording in README.md: what it shows at which moment."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style

from tools.film import CELL, HOLD_SECONDS, LINE, Film

SVG = "{http://www.w3.org/2000/svg}"
WIDTH, HEIGHT = 8, 3
rows = st.lists(
    st.text("ab <&\"'é─", min_size=WIDTH, max_size=WIDTH), min_size=HEIGHT, max_size=HEIGHT
)


def played(picture: str) -> list[tuple[float, list[str]]]:
    """What a browser shows: (second, rows) for each frame, drawn over those before it."""
    drawn = ET.fromstring(picture)
    (styles,) = (one.text or "" for one in drawn.iter(f"{SVG}style"))
    shown = [[" "] * WIDTH for _ in range(HEIGHT)]
    frames = []
    for frame in drawn.iter(f"{SVG}g"):
        name = frame.get("class")
        if name is None:
            continue
        for one in frame:
            if one.tag == f"{SVG}path":  # Lines are drawn: the only ones here are "─".
                for ends in re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)", one.get("d", "")):
                    left, top, right = map(float, ends)
                    y = int(top // LINE)
                    for x in range(round(left / CELL), round(right / CELL)):
                        shown[y][x] = "─"
                continue
            x, y = round(float(one.get("x", 0)) / CELL), int(float(one.get("y", 0)) // LINE)
            if one.tag == f"{SVG}rect":
                width = round(float(one.get("width", 0)) / CELL)
                shown[y][x : x + width] = " " * width
            else:
                assert one.text is not None
                shown[y][x : x + len(one.text)] = one.text
        moment = 0.0
        if found := re.search(
            rf"@keyframes {name}{{0%{{visibility:hidden}}([\d.]+)%{{visibility:visible}}}}"
            rf"\.{name}{{animation:{name} ([\d.]+)s step-end infinite}}",
            styles,
        ):
            moment = float(found[1]) / 100 * float(found[2])
        frames.append((moment, ["".join(row) for row in shown]))
    return frames


@given(st.lists(rows, min_size=1, max_size=6))
def test_it_plays_what_was_filmed(filmed: list[list[str]]) -> None:
    film = Film(WIDTH, HEIGHT)
    expected: list[tuple[float, list[str]]] = []
    for second, screen in enumerate(filmed):
        film.add(second, [[Segment(row[:3]), Segment(row[3:], Style(bold=True))] for row in screen])
        if not expected or expected[-1][1] != screen:
            expected.append((second, screen))
    frames = played(film.svg())
    assert [screen for _, screen in frames] == [screen for _, screen in expected]
    for (moment, _), (planned, _) in zip(frames, expected, strict=True):
        assert abs(moment - planned) < 0.01


def test_the_last_frame_stands_for_a_while_and_without_animation() -> None:
    film = Film(WIDTH, 1)
    film.add(0, [[Segment("first   ")]])
    film.add(2, [[Segment("last    ")]])
    picture = film.svg()
    assert f"animation:f1 {2 + HOLD_SECONDS:.2f}s" in picture
    before, _, after = picture.partition("@media (prefers-reduced-motion:no-preference){")
    assert "visibility" not in before and "@keyframes f1" in after

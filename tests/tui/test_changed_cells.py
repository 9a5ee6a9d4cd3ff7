"""Sending changed cells gives the same screen as sending everything."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tests.tui.screen_model import ScreenModel
from tui.textual_patches.changed_cells import TerminalCells

WIDTH, HEIGHT = 12, 3
CONSOLE = Console(color_system="truecolor", force_terminal=True, width=WIDTH, no_color=False)
STYLES = (
    None,
    Style(color="red"),
    Style(bgcolor="blue", meta={"offset": (1, 2)}),
    Style(bold=True),
)
# One cell each, two cells, and two characters in one cell.
TEXTS = ("a", "b", " ", "│", "宽", "👍", "e\u0301")


@st.composite
def strips(draw: st.DrawFn, width: int) -> Strip:
    texts = draw(st.lists(st.sampled_from(TEXTS), max_size=width))
    styles = draw(st.lists(st.sampled_from(STYLES), min_size=3, max_size=3))
    third = max(1, len(texts) // 3)
    segments = [
        Segment("".join(texts[start : start + third]), styles[number % 3])
        for number, start in enumerate(range(0, len(texts), third))
    ]
    return Strip(segments).adjust_cell_length(width)


@st.composite
def layouts(draw: st.DrawFn) -> LayoutUpdate:
    rows = [[draw(strips(WIDTH))] for _ in range(HEIGHT)]
    return LayoutUpdate(list(rows), Region(0, 0, WIDTH, HEIGHT))


@st.composite
def chops(draw: st.DrawFn) -> ChopsUpdate:
    inner = st.lists(st.integers(1, WIDTH - 1), max_size=3, unique=True)
    cuts = [[0, *sorted(draw(inner)), WIDTH] for _ in range(HEIGHT)]
    rows: list[dict[int, Strip | None]] = [
        {start: draw(strips(end - start)) for start, end in pairwise(row)} for row in cuts
    ]
    lines = draw(st.lists(st.integers(0, HEIGHT - 1), min_size=1, unique=True))
    spans = []
    for y in sorted(lines):
        x1 = draw(st.sampled_from(cuts[y][:-1]))
        x2 = draw(st.sampled_from([cut for cut in cuts[y] if cut > x1]))
        spans.append((y, x1, x2))
    return ChopsUpdate(rows, spans, [row[1:] for row in cuts])


@given(first=layouts(), later=st.lists(layouts() | chops(), max_size=4))
def test_changed_cells_and_whole_updates_give_the_same_screen(
    first: LayoutUpdate, later: list[CompositorUpdate]
) -> None:
    cells = TerminalCells()
    ours, theirs = ScreenModel(WIDTH, HEIGHT), ScreenModel(WIDTH, HEIGHT)
    for update in (first, *later):
        ours.write(cells.draw(update, ColorSystem.TRUECOLOR))
        theirs.write(update.render_segments(CONSOLE))
        assert ours.rows == theirs.rows


def whole(*lines: str) -> LayoutUpdate:
    rows = [[Strip([Segment(line)]).adjust_cell_length(WIDTH)] for line in lines]
    return LayoutUpdate(list(rows), Region(0, 0, WIDTH, len(lines)))


def partly(y: int, line: str) -> ChopsUpdate:
    rows: list[dict[int, Strip | None]] = [{0: None} for _ in range(HEIGHT)]
    rows[y] = {0: Strip([Segment(line)]).adjust_cell_length(WIDTH)}
    return ChopsUpdate(rows, [(y, 0, WIDTH)], [[WIDTH]] * HEIGHT)


def test_only_cells_that_changed_are_sent_and_nothing_when_none_did() -> None:
    cells = TerminalCells()
    cells.draw(whole("one 1", "two 2", "three 3"), ColorSystem.TRUECOLOR)
    assert cells.draw(partly(1, "two 2"), ColorSystem.TRUECOLOR) == ""
    assert cells.draw(partly(1, "two 7"), ColorSystem.TRUECOLOR) == "\x1b[2;5H\x1b[0m7"


def test_forgetting_the_cells_redraws_the_whole_screen() -> None:
    cells = TerminalCells()
    frame = whole("one", "two", "three")
    first = cells.draw(frame, ColorSystem.TRUECOLOR)
    assert cells.draw(frame, ColorSystem.TRUECOLOR) == ""
    cells.forget()
    assert cells.draw(frame, ColorSystem.TRUECOLOR) == first
    cells.forget()
    assert "two" in cells.draw(partly(1, "two"), ColorSystem.TRUECOLOR)


def test_a_mark_without_a_letter_takes_no_cell() -> None:
    cells = TerminalCells()
    cells.draw(whole("\u0301one", "two", "three"), ColorSystem.TRUECOLOR)
    assert cells.draw(partly(0, "onx"), ColorSystem.TRUECOLOR) == "\x1b[1;3H\x1b[0mx"

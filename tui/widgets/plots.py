"""Measured values over time. Importing this loads plotext: screens do so when they are first opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import plotext  # type: ignore[import-untyped]
from rich.style import Style
from rich.text import Span, Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from stoke.text.units import human_age, human_bytes
from tui import format as fmt

# Otherwise no plot is larger than the terminal was when plotext asked for its size.
plotext.terminal.limit(width=False, height=False)

_ROLES = {"python": "$good", "system": "$busy"}
# plotext writes the terminal's own colours; these are their names there, and their numbers in Rich.
_ANSI = {"$good": "green", "$busy": "cyan", "$wait": "blue"}
_OF_ANSI = {2: "$good", 6: "$busy", 4: "$wait"}
_BRAILLE = "braille"
_SIGNS = {"system": "+"}
"""What the line of a kind is drawn with under NO_COLOR, where the title shows it too."""

MOST_POINTS = 300
"""Of one line; more than a wide screen has columns for."""

Point = tuple[float, float]
"""(epoch seconds, value)"""


@dataclass(frozen=True)
class Line:
    """`label` is the kind of a cache and decides the colour; `figure` follows it in the title.

    A value is drawn from its time on for `lasts` seconds, or else until the next one: nothing between
    two values was measured.
    """

    label: str
    figure: str
    points: Sequence[Point]
    lasts: float | None = None


@dataclass(frozen=True)
class Scale:
    """How values are written, and how far up the axis reaches: to `top`, or else to the highest value
    and at least to `least_top`."""

    text_of: Callable[[float], str]
    least_top: float
    top: float | None = None


BYTES = Scale(lambda value: human_bytes(round(value)), 1024)
SHARE = Scale(fmt.share, 1, 1)


class TimePlot(Vertical):
    """A title above lines over time; `empty` is shown while there are none."""

    DEFAULT_CSS = """
    TimePlot { width: 1fr; height: 1fr; }
    TimePlot .plot-title { height: 1; }
    TimePlot .plot-empty { height: 1fr; }
    """

    def __init__(self, title: str, scale: Scale, empty: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = title
        self._scale = scale
        self._empty = empty

    def compose(self) -> ComposeResult:
        yield Static(classes="plot-title")
        yield Static(Text(self._empty), classes="plot-empty hint")
        yield _Plot(self._scale)

    def show(self, lines: Sequence[Line], now: float) -> None:
        """Show lines on an axis that ends `now`, in epoch seconds."""
        known = [line for line in lines if line.points]
        self.query_one(".plot-empty").display = not known
        plot = self.query_one(_Plot)
        plot.display = bool(known)
        title = Text(self._title, style="bold")
        for line in known:
            sign = f"{_SIGNS.get(line.label, '⠒')} " if self.app.no_color else ""
            title.append_text(fmt.plain(f"  {sign}{line.label} {line.figure}", _role(line)))
        self.query_one(".plot-title", Static).update(title)
        plot.show(known, now)


class _Plot(Widget):
    DEFAULT_CSS = "_Plot { width: 1fr; height: 1fr; }"

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self._scale = scale
        self._lines: Sequence[Line] = ()
        self._now = 0.0

    def show(self, lines: Sequence[Line], now: float) -> None:
        self._lines, self._now = lines, now
        self.refresh()

    def render(self) -> Text:
        if not self._lines:
            return Text()
        lines, scale = self._lines, self._scale
        first = min(line.points[0][0] for line in lines)
        now = max(self._now, *(line.points[-1][0] for line in lines))
        # plotext has one figure for the whole process.
        figure = plotext.figure
        figure.clear()
        figure.plot_size(self.size.width, self.size.height)
        figure.theme("colorless")
        for line in lines:
            sign = _SIGNS.get(line.label, _BRAILLE) if self.app.no_color else _BRAILLE
            marker = plotext.marker(sign, _ANSI[_role(line)])
            for step in steps(thinned(line.points), line.lasts, now):
                times = [at - now for at, _ in step]
                values = [value for _, value in step]
                figure.draw(figure.signal(times, values, marker=marker).lines())
        top = scale.top or max(
            scale.least_top, *(value for line in lines for _, value in line.points)
        )
        y_ticks = (0, top / 2, top)
        figure.ruler("y").lim(0, top)
        figure.ruler("y").ticks(y_ticks, [scale.text_of(at) for at in y_ticks])
        figure.ruler("x").lim(first - now - 1, 1)
        if now - first >= 1:
            figure.ruler("x").ticks([first - now, 0], [f"{human_age(now - first)} ago", "now"])
        else:
            figure.ruler("x").ticks([0], ["now"])
        figure.axes(False, side=1)
        text = Text.from_ansi(figure.build().string())
        text.spans = [Span(span.start, span.end, _in_theme(span.style)) for span in text.spans]
        return text


def steps(points: Sequence[Point], lasts: float | None, now: float) -> list[list[Point]]:
    """Return lines that have only values of `points`; with `lasts`, one for each point."""
    if lasts is not None:
        return [[(at, value), (max(at, min(at + lasts, now)), value)] for at, value in points]
    line = []
    for (at, value), (after, _) in pairwise([*points, (now, 0.0)]):
        line += [(at, value), (max(at, after), value)]
    return [line]


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Return the last point of each of `MOST_POINTS` stretches of time: drawing 10,000 takes 0.7 s."""
    if len(points) <= MOST_POINTS:
        return points
    first, last = points[0][0], points[-1][0]
    length = max(last - first, 1e-9) / MOST_POINTS
    return list({int((at - first) / length): (at, value) for at, value in points}.values())


def _role(line: Line) -> str:
    return _ROLES.get(line.label, "$wait")


def _in_theme(style: str | Style) -> str | Style:
    colour = style.color if isinstance(style, Style) else None
    if colour is None or colour.number is None:
        return style
    # The bright colours are the same eight again.
    return _OF_ANSI.get(colour.number % 8, style)

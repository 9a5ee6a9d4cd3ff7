"""Lines over time. Importing this loads plotext: screens do so when they are first opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static
from textual_plotext import PlotextPlot

from stoke.text.units import human_age, human_bytes
from tui import format as fmt

# Names that plotext and Rich share, of the terminal's own sixteen colours.
_COLOURS = {"python": "green", "system": "cyan"}


MOST = 300
"""Points of one line, more than a wide screen has columns for."""


@dataclass(frozen=True)
class Line:
    """`label` is a cache's kind, and decides the colour; `figure` stands beside it in the title.
    `points` are (epoch seconds, value)."""

    label: str
    figure: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """How values read, and what the least one is that the axis reaches up to."""

    reads: Callable[[float], str]
    least_top: float
    top: float | None = None


BYTES = Scale(lambda value: human_bytes(round(value)), 1000)
SHARE = Scale(fmt.share, 1, 1)


class TimePlot(Vertical):
    """A title, and below it lines; `nothing` stands there while there are none."""

    DEFAULT_CSS = """
    TimePlot { width: 1fr; height: 1fr; }
    TimePlot .plot-title { height: 1; }
    TimePlot .plot-nothing { height: 1fr; }
    TimePlot PlotextPlot { background: $background; }
    """

    def __init__(self, title: str, scale: Scale, nothing: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = title
        self._scale = scale
        self._nothing = nothing

    def compose(self) -> ComposeResult:
        yield Static(classes="plot-title")
        yield Static(Text(self._nothing), classes="plot-nothing hint")
        plot = PlotextPlot()
        # Without colours of its own: those of the theme, also with 16 colours and with none.
        plot.theme = "clear"
        yield plot

    def show(self, lines: Sequence[Line], now: float) -> None:
        """`now` is where the axis ends, in epoch seconds."""
        known = [line for line in lines if line.points]
        self.query_one(".plot-nothing").display = not known
        plot = self.query_one(PlotextPlot)
        plot.display = bool(known)
        title = Text(self._title, style="bold")
        for line in known:
            title.append_text(fmt.plain(f"  {line.label} {line.figure}", _colour(line)))
        self.query_one(".plot-title", Static).update(title)
        if known:
            self._draw(plot, known, now)

    def _draw(self, plot: PlotextPlot, lines: Sequence[Line], now: float) -> None:
        plt = plot.plt
        plt.clear_figure()
        first = min(line.points[0][0] for line in lines)
        now = max(now, *(line.points[-1][0] for line in lines))
        for line in lines:
            points = thinned(line.points)
            times = [at - now for at, _ in points]
            values = [value for _, value in points]
            if len(times) == 1:
                plt.scatter(times, values, marker="●", color=_colour(line))
            else:
                plt.plot(times, values, marker="braille", color=_colour(line))
        top = self._scale.top or max(
            self._scale.least_top, *(value for line in lines for _, value in line.points)
        )
        plt.xlim(first - now - 1, 1)
        plt.ylim(0, top)
        plt.yticks([0, top / 2, top], [self._scale.reads(at) for at in (0, top / 2, top)])
        if now - first >= 1:
            plt.xticks([first - now, 0], [f"{human_age(now - first)} ago", "now"])
        else:
            plt.xticks([0], ["now"])
        plt.xaxes(True, False)
        plt.yaxes(True, False)
        plot.refresh()


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `MOST` + 1 of them, the last of each stretch of time: drawing 10,000 takes 0.7 s."""
    if len(points) <= MOST:
        return points
    first, last = points[0][0], points[-1][0]
    length = max(last - first, 1e-9) / MOST
    return list({int((at - first) / length): (at, value) for at, value in points}.values())


def _colour(line: Line) -> str:
    return _COLOURS.get(line.label, "blue")

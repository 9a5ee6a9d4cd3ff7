"""Processor load and memory of a job over time, in blocks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widget import Widget

from stoke.history.job import Usage
from stoke.history.usage import resampled
from stoke.text.sparkline import column_chart
from tui import format as fmt

_NAME_WIDTH = 8
"""As in the waterfall above it."""
_FIGURES_WIDTH = 18
_LEAST_BAR = 4


class UsageCurve(Widget):
    """Draws the curve of the last call of `show`, in the rows that the widget has."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._curve: Sequence[Usage] = ()
        self._is_live = False

    def show(self, curve: Sequence[Usage], is_live: bool) -> None:
        """Show the figures of a job; `is_live`: whether the last one is of now."""
        if self.display != bool(curve):
            self.display = bool(curve)
        if (curve, is_live) != (self._curve, self._is_live):
            self._curve, self._is_live = curve, is_live
            self.refresh()

    def render(self) -> Text:
        if not self._curve:
            return Text()
        rows = max(1, self.size.height // 2)
        width = max(_LEAST_BAR, self.size.width - _NAME_WIDTH - _FIGURES_WIDTH)
        drawn = resampled(self._curve, width)
        if not self._is_live:
            # All of the width, as the bar of the code above it.
            drawn = [drawn[at * len(drawn) // width] for at in range(width)]
        last = self._curve[-1]
        cores = max(one.cores for one in self._curve)
        memory = max(one.memory for one in self._curve)
        text = Text(no_wrap=True)
        for name, values, top, now, most, style in (
            ("cpu", [one.cores for one in drawn], max(1.0, cores),
             fmt.load(last.cores), fmt.load(cores), "$busy"),
            ("memory", [one.memory for one in drawn], memory,
             fmt.short_size(last.memory), fmt.short_size(memory), "$odd"),
        ):  # fmt: skip
            figures = f"{now:>5}, max {most}" if self._is_live else f"{'':>5}  max {most}"
            for number, row in enumerate(column_chart(values, width, rows, top)):
                is_last = number == rows - 1
                text.append(f"{name if is_last else '':<{_NAME_WIDTH}}", style="bold")
                text.append(f"{row:<{width}}", style=style)
                text.append(f"{figures:>{_FIGURES_WIDTH - 1}}\n" if is_last else "\n")
        text.rstrip()
        return text

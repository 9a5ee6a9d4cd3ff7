"""Horizontal bars between a label and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from stoke.text.sanitize import clean
from tui import format as fmt

_LABEL_SHARE = 0.45


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    figure: str
    colour: str = "$good"


class Bars(Widget):
    """A title above bars of one scale; `empty` is shown while there are none."""

    def __init__(self, title: str, empty: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = title
        self._empty = empty
        self._bars: Sequence[Bar] = ()

    def show(self, bars: Sequence[Bar]) -> None:
        self._bars = bars
        self.refresh()

    def render(self) -> Text:
        text = Text(no_wrap=True, overflow="crop").append(self._title, style="bold")
        if not self._bars:
            return text.append(f"\n{self._empty}", style="$quiet")
        bars = self._bars[: max(1, self.size.height - 1)]
        if len(bars) < len(self._bars) and not self._bars[len(bars)].label:
            bars = bars[:-1] or bars  # Its second bar has no row.
        labels = [clean(bar.label) for bar in bars]
        names = min(max(map(cell_len, labels)), int(self.size.width * _LABEL_SHARE))
        figures = max(cell_len(bar.figure) for bar in bars)
        room = max(1, self.size.width - names - figures - 2)
        most = max(bar.value for bar in bars) or 1
        for label, bar in zip(labels, bars, strict=True):
            length = max(1, round(bar.value / most * room))
            text.append(f"\n{fmt.fit(label, names)} ")
            text.append("━" * length, style=bar.colour)
            text.append(f"{' ' * (room - length)} {bar.figure:>{figures}}")
        return text

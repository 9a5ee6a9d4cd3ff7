"""The line at the top: the screens there are, and which one this is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import Static

if TYPE_CHECKING:
    from tui.app import StokeApp

SCREENS = (
    ("jobs", "1 Jobs"),
    ("new", "2 New job"),
    ("caches", "3 Caches"),
    ("metrics", "4 Metrics"),
    ("race", "5 Race"),
)


class TopBar(Static):
    class Picked(Message):
        def __init__(self, mode: str) -> None:
            super().__init__()
            self.mode = mode

    def __init__(self, mode: str) -> None:
        self._bar = text = Text(" stoke ", style="bold")
        self._ends: list[tuple[int, str]] = []
        for name, label in SCREENS:
            text.append("  ")
            text.append(f" {label} ", style="reverse" if name == mode else "")
            self._ends.append((len(text.plain), name))
        super().__init__(text, classes="top-bar")

    def on_mount(self) -> None:
        if cast("StokeApp", self.app).read_only:
            self.update(Text.assemble(self._bar, ("  read-only", "bold yellow")))

    def on_click(self, event: events.Click) -> None:
        start = len(" stoke ")
        for end, name in self._ends:
            if start <= event.x < end:
                self.post_message(self.Picked(name))
                return
            start = end

"""The line at the top: the names of the screens, with the present one highlighted."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.widgets import Static

from tui.messages import ShowScreen

SCREENS = (
    ("jobs", "1 Jobs"),
    ("new", "2 New job"),
    ("caches", "3 Caches"),
    ("metrics", "4 Metrics"),
    ("race", "5 Race"),
)


class TopBar(Static):
    """A click on the name of a screen shows that screen."""

    def __init__(self, mode: str, read_only: bool) -> None:
        text = Text(" stoke ", style="bold")
        self._ends: list[tuple[int, str]] = []
        for name, label in SCREENS:
            text.append("  ")
            text.append(f" {label} ", style="reverse" if name == mode else "")
            self._ends.append((len(text.plain), name))
        if read_only:
            text.append("  read-only", style="bold $warn")
        super().__init__(text, classes="top-bar")

    def on_click(self, event: events.Click) -> None:
        start = len(" stoke ")
        for end, name in self._ends:
            if start <= event.x < end:
                self.post_message(ShowScreen(name))
                return
            start = end

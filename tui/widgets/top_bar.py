"""The line at the top: the names of the screens, with the present one highlighted."""

from __future__ import annotations

from textual import events
from textual.content import Content
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
        text = Content.styled(" stoke ", "bold $odd")
        self._ends: list[tuple[int, str]] = []
        for name, label in SCREENS:
            style = "bold $on-raised on $raised" if name == mode else "$quiet"
            text += Content("  ") + Content.styled(f" {label} ", style)
            self._ends.append((len(text), name))
        if read_only:
            text += Content.styled("  read-only", "bold $warn")
        super().__init__(text, classes="top-bar")

    def on_click(self, event: events.Click) -> None:
        start = len(" stoke ")
        for end, name in self._ends:
            if start <= event.x < end:
                self.post_message(ShowScreen(name))
                return
            start = end

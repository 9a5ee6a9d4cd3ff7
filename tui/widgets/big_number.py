"""A number five rows high."""

from __future__ import annotations

from rich.text import Text
from textual.widget import Widget

# Each character of a picture is a pixel: two cells wide and one high.
_PICTURES = {
    "0": ("###", "# #", "# #", "# #", "###"),
    "1": (" # ", "## ", " # ", " # ", "###"),
    "2": ("###", "  #", "###", "#  ", "###"),
    "3": ("###", "  #", "###", "  #", "###"),
    "4": ("# #", "# #", "###", "  #", "  #"),
    "5": ("###", "#  ", "###", "  #", "###"),
    "6": ("###", "#  ", "###", "# #", "###"),
    "7": ("###", "  #", "  #", "  #", "  #"),
    "8": ("###", "# #", "###", "# #", "###"),
    "9": ("###", "# #", "###", "  #", "###"),
    ".": (" ", " ", " ", " ", "#"),
    "s": (" ##", "#  ", " # ", "  #", "## "),
    "x": ("   ", "# #", " # ", "# #", "   "),
}
HEIGHT = 5


class BigNumber(Widget):
    """Draws `value`, which has digits, points, s and x only. Empty, it takes no place."""

    DEFAULT_CSS = "BigNumber { width: auto; height: auto; }"

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.value = ""

    def show(self, value: str) -> None:
        if value != self.value:
            self.value = value
            self.display = bool(value)
            self.refresh(layout=True)

    def on_mount(self) -> None:
        self.display = bool(self.value)

    def render(self) -> Text:
        rows = (" ".join(_PICTURES[one][row] for one in self.value) for row in range(HEIGHT))
        drawn = ("".join("██" if pixel == "#" else "  " for pixel in row) for row in rows)
        return Text("\n".join(drawn), no_wrap=True)

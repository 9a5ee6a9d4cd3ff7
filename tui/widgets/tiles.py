"""A row of figures, each above its name."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static


class Tiles(Horizontal):
    DEFAULT_CSS = """
    Tiles { height: 2; padding: 0 1; }
    Tiles Static { width: 1fr; height: 2; padding: 0 1; background: $surface; margin-right: 1; }
    Tiles Static:last-of-type { margin-right: 0; }
    """

    def __init__(self, names: Sequence[str], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._names = names
        self._figures: Sequence[str] = ()

    def compose(self) -> ComposeResult:
        for _ in self._names:
            yield Static()

    def show(self, figures: Sequence[str]) -> None:
        """Show a figure for each name."""
        if figures == self._figures:
            return
        self._figures = figures
        for tile, name, figure in zip(self.query(Static), self._names, figures, strict=True):
            tile.update(Text.assemble((figure, "bold $good"), "\n", (name, "$quiet")))

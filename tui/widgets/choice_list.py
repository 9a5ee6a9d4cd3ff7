"""The list of a dialog, from which one row is chosen."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widgets import OptionList

from tui import palette


class ChoiceList(OptionList):
    """The chosen row is marked also while a line to type into has the focus.

    It has one colour where the terminal chooses the colours: no contrast is known of them.
    """

    DEFAULT_CSS = """
    ChoiceList > .option-list--option-highlighted {
        color: $block-cursor-foreground;
        background: $block-cursor-background;
        text-style: $block-cursor-text-style;
    }
    """

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        if self.highlighted is None or not palette.is_ansi(self.app.current_theme):
            return strip
        if not any(
            part.style and part.style.meta.get("option") == self.highlighted for part in strip
        ):
            return strip
        chosen = ("option-list--option", "option-list--option-highlighted")
        one = Style(color=self.get_visual_style(*chosen).rich_style.color, dim=False)
        return Strip(
            [Segment(part.text, (part.style or Style()) + one, part.control) for part in strip],
            strip.cell_length,
        )

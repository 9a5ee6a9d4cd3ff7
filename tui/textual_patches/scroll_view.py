"""Let a scrolled area grow without laying out the whole screen.

In Textual 8.2.8 `Widget.virtual_size` is a reactive with `layout=True`. A log grows several times a
second, and laying out the screen takes longer than drawing the new lines.

No upstream issue is known; https://github.com/Textualize/textual/issues/547 is the same for scrolling.
"""

from __future__ import annotations

from textual.geometry import Size
from textual.reactive import var
from textual.scroll_view import ScrollView


class GrowingScrollView(ScrollView):
    """A `ScrollView` whose subclass updates the scrollbars when `virtual_size` changes."""

    virtual_size = var(Size(0, 0), init=False)

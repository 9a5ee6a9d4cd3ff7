"""A window over a log: drawing and moving. Searching and selecting stand in `log_view`.

Memory holds what is on the screen and a little more, however long the log is. Every line passes the
sanitiser and is drawn as plain segments: nothing in it is markup or reaches the terminal raw.
What is a row and what a line stands in `log_lines`; a wrapped line has *parts*.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.strip import Strip

from stoke.logs.spool import NOTE, STDERR
from tui import OVER_SSH
from tui.log.lines import LogLines
from tui.log.row import LogRow, Span
from tui.terminal.driver import ask, caught_up

CALM_SECONDS = 0.25
"""Over SSH four repaints a second leave room for the keys; sixty queue up for seconds."""
LIVE_SECONDS = 0.1
BEHIND_SECONDS = 0.05
"""How soon to look whether the terminal has caught up."""


class LogWindow(ScrollView, can_focus=True):
    """Shows the spool in a folder.

    At the last line it follows: what arrives scrolls in. Anywhere else it stands still, and
    `below` says how many lines lie further down.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--stderr",
        "log--note",
        "log--time",
        "log--cursor",
        "log--selected",
        "log--match",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Line up", show=False, id="log.up"),
        Binding("down,j", "move(1)", "Line down", show=False, id="log.down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="log.page_up"),
        Binding("pagedown,ctrl+d,space", "page(1)", "Page down", show=False, id="log.page_down"),
        Binding("g,home", "first", "First line", show=False, id="log.first"),
        Binding("G,end", "last", "Last line, follow", show=False, id="log.last"),
        Binding("left", "sideways(-1)", "Half a window to the left", show=False, id="log.left"),
        Binding("right", "sideways(1)", "Half a window to the right", show=False, id="log.right"),
        Binding("0", "line_begin", "The line's beginning", show=False, id="log.line_begin"),
        Binding("dollar_sign", "line_end", "The line's end", show=False, id="log.line_end"),
    ]

    follow = var(True)
    wrap = var(False)
    stamps = var(False)
    changes = var(0)
    """Counts whatever a header over it shows; watched, so that both are drawn in one frame."""
    # In Textual a matter of the layout, and a log grows several times a second: laying the whole screen
    # out takes longer than drawing the lines.
    virtual_size = var(Size(0, 0), init=False)

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.cursor = 0
        """The line that is copied, and where a search begins."""
        self.lines = LogLines(None)
        self._part = 0
        self._widest = 0
        self._dated = False
        self._places: list[tuple[int, int]] = []
        self._placed: tuple[object, ...] | None = None
        self._arranged_for = (0, 0)
        self._scrolling = False

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, folder: Path | None) -> None:
        """Shows another spool, from its end; None shows nothing."""
        self.lines.close()
        self.lines = LogLines(folder)
        self.cursor = self._widest = self._part = 0
        self.follow = True
        self._placed = None
        self._extend()
        self.scroll_to(0, 0, animate=False, immediate=True, force=True)
        self.look()
        self._say()

    def look(self) -> int:
        """Shows what the spool has gained, and returns the rows. Draws nothing when there are none."""
        gained = self.lines.look()
        if gained is None:
            return 0
        self.log_grew()
        self._say()
        return gained

    def grown(self) -> None:
        self.lines.reconcile()
        self.cursor = max(0, min(self.cursor, self._last))
        self._extend()
        if self.follow:
            self._to_end()
        self._placed = None
        self.refresh()

    def log_grew(self) -> None:
        """The spool has gained rows, or lost some."""
        self.grown()

    def marked(self, line: int) -> list[Span]:  # noqa: ARG002
        """What to mark in a line."""
        return []

    @property
    def selected(self) -> range:
        """The lines that are selected as a whole."""
        return range(0)

    @property
    def row(self) -> int:
        """The row under the cursor."""
        return self.lines.row(self.cursor)

    @property
    def _last(self) -> int:
        return max(0, self.lines.count - 1)

    @property
    def below(self) -> int:
        """Lines under the window."""
        places = self._layout()
        return max(0, self._last - places[-1][0]) if places else 0

    def _load(self, line: int) -> LogRow:
        loaded = self.lines.load(line)
        if self.lines.widest > self._widest:
            self._widest = self.lines.widest
            if not self.wrap:
                self.call_after_refresh(self._arrange)
        return loaded

    # --- drawing ----------------------------------------------------------------------------------

    @property
    def _gutter(self) -> int:
        """Cells in front of the text, which stay when it scrolls: the stream's mark and the time."""
        return 1 + (0 if not self.stamps else 19 if self._dated else 13)

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width - self._gutter)

    @property
    def _height(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        width = self.scrollable_content_region.width
        places = self._layout()
        if y >= len(places):
            return Strip.blank(width, base)
        line, part = places[y]
        drawn = self._load(line)
        over = [(a, b, self._style("log--match")) for a, b in self.marked(line)]
        if drawn.stream == NOTE:
            over.insert(0, (0, len(drawn.text), self._style("log--note")))
        if (selection := self.text_selection) is not None and (span := selection.get_span(line)):
            end = span[1] if span[1] >= 0 else len(drawn.text)
            style = self.screen.get_component_rich_style("screen--selection")
            over.append((max(0, span[0]), end, style))
        if self.wrap:
            start, end = drawn.parts(self._width)[part]
            blanks = 0
        else:
            start, end, blanks = drawn.window(self.scroll_offset.x, self._width)
        segments = [self._front(drawn, part, base), Segment(" " * blanks, base)]
        segments += drawn.segments(start, end, base, over)
        strip = Strip(self._placed_in_text(segments, start - self._gutter - blanks, line))
        strip = strip.crop_extend(0, width, base)
        if line in self.selected:
            strip = strip.apply_style(self._style("log--selected"))
        if line == self.cursor and self.has_focus:
            strip = strip.apply_style(self._style("log--cursor"))
        return strip

    def _front(self, drawn: LogRow, part: int, base: Style) -> Segment:
        stderr = drawn.stream == STDERR
        text = "│" if stderr else " "
        if self.stamps:
            moment = datetime.fromtimestamp(drawn.time / 1e9) if drawn.time and not part else None
            if moment is not None:
                text += f"{moment:%m-%d } " if self._dated else ""
                text += f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} "
        style = self._style("log--stderr" if stderr else "log--time")
        return Segment(text.ljust(self._gutter), base + style)

    def _placed_in_text(self, segments: list[Segment], at: int, line: int) -> Iterator[Segment]:
        """Each segment with its place, by which Textual knows what the mouse selects."""
        for text, style, _ in segments:
            if text:
                place = Style.from_meta({"offset": (at, line)})
                yield Segment(text, style + place if style else place)
            at += len(text)

    def _style(self, component: str) -> Style:
        return self.get_component_rich_style(component, partial=True)

    def _layout(self) -> list[tuple[int, int]]:
        """For each line of the window which line of the log it is, and which part of it."""
        if self._arranged_for != (self._width, self._height):
            # A scrollbar that comes or goes tells nobody.
            self._arranged_for = (self._width, self._height)
            self.call_after_refresh(self._arrange)
        top = self.scroll_offset.y
        key = (top, self._part, self._width, self._height, self.lines.count, self.wrap)
        if self._placed != key:
            self._placed = key
            if self.wrap:
                self._places = []
                line, part = top, self._part
                while line < self.lines.count and len(self._places) < self._height:
                    self._places += [(line, at) for at in range(part, self._parts(line))]
                    line, part = line + 1, 0
                del self._places[self._height :]
            else:
                last = min(self.lines.count, top + self._height)
                self._places = [(line, 0) for line in range(top, last)]
        return self._places

    def _parts(self, line: int) -> int:
        return len(self._load(line).parts(self._width)) if self.wrap else 1

    # --- extent -----------------------------------------------------------------------------------

    def _extend(self) -> None:
        """Fits the scrolled area to the lines there are."""
        if self.wrap:
            # One step a line: the last one is at the top when everything down to the end fits.
            line, _ = self._top_for(self._last)
            self.virtual_size = Size(0, line + self._height)
        else:
            self.virtual_size = Size(self._widest + self._gutter, self.lines.count)

    def watch_virtual_size(self, size: Size) -> None:
        with self._by_itself():
            self._scroll_update(size)

    def _top_for(self, bottom: int) -> tuple[int, int]:
        """The highest line and part from which the window reaches down to the end of `bottom`."""
        if not self.wrap:
            return max(0, bottom - self._height + 1), 0
        used = 0
        for line in range(bottom, -1, -1):
            used += self._parts(line)
            if used >= self._height:
                return line, used - self._height
        return 0, 0

    def _arrange(self) -> None:
        """The window or what is shown has another shape: what was looked at stays in sight."""
        self._extend()
        if self.follow:
            self._to_end()
        elif self.lines.count:
            self._part = min(self._part, self._parts(min(self.scroll_offset.y, self._last)) - 1)
            self._show_cursor()
        self.refresh()
        self._say()

    def on_resize(self, _: events.Resize) -> None:
        self._arrange()

    def on_mount(self) -> None:
        self._look_again(CALM_SECONDS)

    def _look_again(self, seconds: float) -> None:
        self.set_timer(seconds, self._look_regularly)

    def _look_regularly(self) -> None:
        if not caught_up(self.app):
            self._look_again(BEHIND_SECONDS)
            return
        gained = self.look()
        if gained:
            self.call_after_refresh(ask, self.app)
        # What comes a window at a time nobody reads, and a quiet log can wait.
        live = not OVER_SSH and 0 < gained < self._height
        self._look_again(LIVE_SECONDS if live else CALM_SECONDS)

    def on_unmount(self) -> None:
        self.lines.close()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def watch_wrap(self) -> None:
        self._part = 0
        self._arrange()

    def watch_stamps(self) -> None:
        ends = self.lines.span if self.stamps else None
        days = {datetime.fromtimestamp(end / 1e9).date() for end in ends or ()}
        self._dated = len(days) > 1
        self._arrange()

    # --- moving -----------------------------------------------------------------------------------

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) == round(new_value) or self._scrolling:
            return
        if self._arranged_for != (self._width, self._height):
            return  # Nobody scrolled: the window has grown. What was looked at is arranged anew.
        # The scrollbar: the cursor comes along, and at the end it follows again.
        self._part = 0
        if new_value >= self.max_scroll_y:
            self._part = self._top_for(self._last)[1]
        self._bring_cursor()

    def _bring_cursor(self) -> None:
        """The window was moved: the cursor comes along, and at the end it follows again."""
        places = self._layout()
        self.follow = (self.scroll_offset.y, self._part) >= self._top_for(self._last)
        if self.follow:
            self.cursor = self._last
        elif places:
            self.cursor = min(max(self.cursor, places[0][0]), places[-1][0])
        self.refresh()
        self._say()

    def _scroll(self, line: int, part: int) -> None:
        self._part = part
        with self._by_itself():
            self.scroll_to(None, line, animate=False, immediate=True, force=True)
        self.refresh()

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        """What scrolls meanwhile is no one at the scrollbar."""
        self._scrolling = True
        try:
            yield
        finally:
            self._scrolling = False

    def _scroll_lines(self, lines: int) -> None:
        """Moves the window by lines of the screen."""
        line, part = self.scroll_offset.y, self._part
        if self.wrap:
            part += lines
            while part < 0 and line > 0:
                line -= 1
                part += self._parts(line)
            while line < self._last and part >= (parts := self._parts(line)):
                line, part = line + 1, part - parts
            part = max(0, part)
        else:
            line = max(0, line + lines)
        self._scroll(*min((line, part), self._top_for(self._last)))
        self._bring_cursor()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, -3)

    def _wheel(self, event: events.MouseEvent, lines: int) -> None:
        if not (event.ctrl or event.shift):
            event.stop()
            event.prevent_default()
            self._scroll_lines(lines)

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        places = self._layout()
        if place is not None and place.y < len(places) and self.text_selection is None:
            self._to(places[place.y][0])

    def _to_end(self) -> None:
        self.cursor = self._last
        self._scroll(*self._top_for(self._last))

    def _to(self, line: int, upwards: bool = False) -> None:
        before = self.cursor
        self.cursor = max(0, min(line, self._last))
        self.follow = self.cursor == self._last
        self._show_cursor(upwards)
        # All of it where it had to scroll; else what the cursor left, reached and may have selected.
        first, last = sorted((before, self.cursor))
        for y, (shown, _) in enumerate(self._layout()):
            if first <= shown <= last:
                self.refresh(Region(0, y, self._gutter + self._width, 1))
        self._say()

    def _go(self, line: int) -> None:
        """Goes to a line that may be far, and shows what stands around it."""
        if all(seen != line for seen, _ in self._layout()):
            top, above = line, 0
            while top > 0 and above < self._height // 3:
                top -= 1
                above += self._parts(top)
            self._scroll(*min((top, 0), self._top_for(self._last)))
        self._to(line)

    def _show_cursor(self, upwards: bool = False) -> None:
        """Scrolls as little as shows the cursor's line. Of one that is taller than the window its
        beginning, or its end for whoever comes from below, unless some of it is in sight already."""
        top = (self.scroll_offset.y, self._part)
        lowest = self._top_for(self.cursor)
        if lowest > (self.cursor, 0):
            if all(line != self.cursor for line, _ in self._layout()):
                self._scroll(*(lowest if upwards else (self.cursor, 0)))
        elif (self.cursor, 0) < top:
            self._scroll(self.cursor, 0)
        elif lowest > top:
            self._scroll(*lowest)

    def action_move(self, step: int) -> None:
        places = self._layout()
        if not places:
            return
        # A line that the window does not hold whole is read to its end first.
        edge = places[-1] if step > 0 else places[0]
        last = self._parts(self.cursor) - 1 if step > 0 else 0
        if edge[0] == self.cursor and edge[1] != last:
            self._scroll_lines(step)
        else:
            self._to(self.cursor + step, upwards=step < 0)

    def action_page(self, direction: int) -> None:
        before, cursor = (self.scroll_offset.y, self._part), self.cursor
        offset = next((y for y, place in enumerate(self._layout()) if place[0] == cursor), 0)
        self._scroll_lines(direction * max(1, self._height - 1))
        if (self.scroll_offset.y, self._part) == before:
            self._to(self._last if direction > 0 else 0)
        elif not self.follow and (places := self._layout()):
            self.cursor = places[min(offset, len(places) - 1)][0]
            self._say()

    def action_first(self) -> None:
        self._to(0)

    def action_last(self) -> None:
        self._to(self._last)
        self._to_end()

    def action_sideways(self, direction: int) -> None:
        if not self.wrap:
            self._sideways(self.scroll_offset.x + direction * max(1, self._width // 2))

    def action_line_begin(self) -> None:
        self._sideways(0)

    def action_line_end(self) -> None:
        if not self.wrap and self.lines.count:
            self._sideways(self._load(self.cursor).width - self._width)

    def _sideways(self, column: int) -> None:
        self.scroll_to(max(0, column), None, animate=False, immediate=True, force=True)

    def toggle_follow(self) -> None:
        if self.follow:
            self.follow = False
            self._say()
        else:
            self.action_last()

    def _say(self) -> None:
        self.changes += 1

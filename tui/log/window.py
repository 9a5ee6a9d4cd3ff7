"""A window over a log: drawing and moving. `tui.log.view` adds searching and selecting.

Memory holds the visible lines and a small cache, however long the log is. Every line is sanitized and
drawn as plain segments: nothing in it is markup or reaches the terminal raw. `tui.log.lines` defines
rows and lines; a wrapped line has *parts*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.reactive import var
from textual.strip import Strip

from stoke.logs.levels import Level
from stoke.logs.spool import NOTE, STDERR, LogSource
from tui import OVER_SSH, palette
from tui.log.lines import LogLines
from tui.log.row import LogRow, Span
from tui.log.tags import COLOURS, Tags
from tui.terminal.driver import ask, caught_up
from tui.textual_patches.scroll_view import GrowingScrollView

SLOW_SECONDS = 0.25
"""Between updates over SSH, of a quiet log or of a flood. More than four a second delay the keys."""
LIVE_SECONDS = 0.1
"""Between updates while lines arrive at a readable speed."""
_LEVEL_STYLES: dict[Level | None, str] = {
    Level.ERROR: "log--error",
    Level.WARNING: "log--warning",
    Level.DEBUG: "log--debug",
}
BEHIND_SECONDS = 0.05
"""Until the next check whether a slow terminal has caught up."""


class LogWindow(GrowingScrollView, can_focus=True):
    """Shows the spool in a folder.

    With the cursor on the last line it follows: new lines scroll in. Elsewhere it stays, and `below`
    counts the lines under the window.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--stderr",
        "log--note",
        "log--time",
        "log--cursor",
        "log--selected",
        "log--match",
        "log--match-now",
        "log--error",
        "log--warning",
        "log--debug",
        *(f"log--job-{number}" for number in range(COLOURS)),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Line up", show=False, id="log.up"),
        Binding("down,j", "move(1)", "Line down", show=False, id="log.down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="log.page_up"),
        Binding("pagedown,ctrl+d", "page(1)", "Page down", show=False, id="log.page_down"),
        Binding("g,home", "first", "First line", show=False, id="log.first"),
        Binding("G,end", "last", "Last line and follow", show=False, id="log.last"),
        Binding("left", "sideways(-1)", "Half a window left", show=False, id="log.left"),
        Binding("right", "sideways(1)", "Half a window right", show=False, id="log.right"),
        Binding("0", "line_begin", "Start of the line", show=False, id="log.line_begin"),
        Binding("dollar_sign", "line_end", "End of the line", show=False, id="log.line_end"),
    ]

    follow = var(True)
    wrap = var(False)
    stamps = var(False)
    changes = var(0)
    """Counts changes of what the header shows; the header watches it, to be drawn in the same frame."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.cursor = 0
        """The line that is copied, and where a search starts."""
        self.lines = LogLines(None)
        self.tags: Tags | None = None
        """The jobs of the lines, where several logs are shown as one."""
        self._placeholder = ""
        self._part = 0
        self._widest = 0
        self._dated = False
        self._places: list[tuple[int, int]] = []
        self._placed: tuple[object, ...] | None = None
        self._arranged_for = (0, 0)
        self._scrolling = False
        self._base: Style | None = None
        """The style of the window, while its lines are drawn."""

    # --- what is shown ----------------------------------------------------------------------------

    def show(
        self, folder: LogSource | None, job_ids: Sequence[str] = (), tags: Tags | None = None
    ) -> None:
        """Shows another spool, from its end; None shows nothing.

        The temporary folders of these jobs are left out of paths. `tags` are shown in front of the
        lines.
        """
        self.lines.close()
        self.lines = LogLines(folder, job_ids)
        self.tags = tags
        self.cursor = self._widest = self._part = 0
        self.follow = True
        self._placed = None
        self._extend()
        self.scroll_to(0, 0, animate=False, immediate=True, force=True)
        self.update_lines()
        # An empty log draws nothing that would cover the last one.
        self.refresh()
        self._changed()

    def update_lines(self) -> int:
        """Show new lines, if there are any, and return the number of rows gained or lost."""
        gained = self.lines.update()
        if gained is None:
            return 0
        self.log_grew()
        self._changed()
        return gained

    def show_growth(self) -> None:
        """Show new lines, and follow them if the window follows."""
        self.lines.update_count()
        self.cursor = max(0, min(self.cursor, self._last))
        self._extend()
        if self.follow:
            self._to_end()
        self._placed = None
        self.refresh()

    def log_grew(self) -> None:
        """Handle a change of the number of rows; a new follower may have truncated the spool."""
        self.show_growth()

    def highlighted(self, line: int) -> list[Span]:  # noqa: ARG002
        """Return what to highlight in a line."""
        return []

    def explain(self, placeholder: str) -> None:
        """Show this text while there are no lines."""
        if placeholder != self._placeholder:
            self._placeholder = placeholder
            if not self.lines.count:
                self.refresh()

    @property
    def selected(self) -> range:
        """The selected lines."""
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
        """Lines below the window."""
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
        """Width of job, mark of the stream and time, which do not scroll sideways."""
        tag = cell_len(self._tag_names[0]) + 1 if self.tags is not None else 0
        return tag + self._front_width

    @property
    def _front_width(self) -> int:
        return 1 + (0 if not self.stamps else 19 if self._dated else 13)

    @property
    def _tag_names(self) -> list[str]:
        assert self.tags is not None
        return self.tags.fitted(self.scrollable_content_region.width)

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width - self._gutter)

    @property
    def _height(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def render_lines(self, crop: Region) -> list[Strip]:
        # Looked up once for all lines: this takes a fifth of the time of a frame otherwise.
        self._base = self.rich_style
        try:
            return super().render_lines(crop)
        finally:
            self._base = None

    def render_line(self, y: int) -> Strip:
        base = self._base or self.rich_style
        width = self.scrollable_content_region.width
        places = self._layout()
        if y >= len(places):
            if y or places or not self._placeholder:
                return Strip.blank(width, base)
            text = " " * self._front_width + self._placeholder
            return Strip([Segment(text, base + self._style("log--time"))]).crop_extend(
                0, width, base
            )
        line, part = places[y]
        drawn = self._load(line)
        is_current = line == self.cursor
        # No contrast is known of a terminal's own colours, and yellow on white cannot be read.
        has_one_colour = line in self.selected or (
            is_current and self.has_focus and palette.is_ansi(self.app.current_theme)
        )
        if line in self.selected:
            base += self._style("log--selected")
        elif is_current and self.has_focus:
            base += self._style("log--cursor")
        match = self._style("log--match-now" if is_current else "log--match")
        over = [(a, b, match) for a, b in self.highlighted(line)]
        if drawn.stream == NOTE:
            over.insert(0, (0, len(drawn.text), self._style("log--note")))
        elif (level := _LEVEL_STYLES.get(drawn.level)) and not has_one_colour:
            over.insert(0, (0, len(drawn.text), self._style(level)))
        if (selection := self.text_selection) is not None and (span := selection.get_span(line)):
            end = span[1] if span[1] >= 0 else len(drawn.text)
            style = self.screen.get_component_rich_style("screen--selection")
            over.append((max(0, span[0]), end, style))
        if self.wrap:
            start, end = drawn.parts(self._width)[part]
            blanks = 0
        else:
            start, end, blanks = drawn.window(self.scroll_offset.x, self._width)
        segments = [*self._tag(line, part, base), self._front(drawn, part, base)]
        segments.append(Segment(" " * blanks, base))
        front = sum(len(segment.text) for segment in segments)
        segments += drawn.segments(start, end, base, over)
        strip = Strip(self._with_positions(segments, start - front, line))
        return strip.crop_extend(0, width, base)

    def _tag(self, line: int, part: int, base: Style) -> Iterator[Segment]:
        if self.tags is None:
            return
        number = self.tags.owner(self.lines.row(line))
        name = self._tag_names[number]
        if part:
            name = " " * cell_len(name)
        # What is selected has one colour.
        own = Style() if line in self.selected else self._style(f"log--job-{number % COLOURS}")
        yield Segment(f"{name} ", base + own)

    def _front(self, drawn: LogRow, part: int, base: Style) -> Segment:
        stderr = drawn.stream == STDERR
        text = "│" if stderr else " "
        if self.stamps:
            moment = datetime.fromtimestamp(drawn.time / 1e9) if drawn.time and not part else None
            if moment is not None:
                text += f"{moment:%m-%d } " if self._dated else ""
                text += f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} "
        style = self._style("log--stderr" if stderr else "log--time")
        return Segment(text.ljust(self._front_width), base + style)

    def _with_positions(self, segments: list[Segment], at: int, line: int) -> Iterator[Segment]:
        """Add its position to each segment, by which Textual knows what the mouse selects."""
        for text, style, _ in segments:
            if text:
                place = Style.from_meta({"offset": (at, line)})
                yield Segment(text, style + place if style else place)
            at += len(text)

    def _style(self, component: str) -> Style:
        return self.get_component_rich_style(component, partial=True)

    def _layout(self) -> list[tuple[int, int]]:
        """Return (line, part) for each line of the window."""
        if self._arranged_for != (self._width, self._height):
            # Textual sends no event when a scrollbar appears or disappears.
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
        """Fit the scrolled area to the number of lines."""
        if self.wrap:
            # One scroll step for each line, up to the one from which the rest fits the window.
            line, _ = self._top_for(self._last)
            self.virtual_size = Size(0, line + self._height)
        else:
            self.virtual_size = Size(self._widest + self._gutter, self.lines.count)

    def watch_virtual_size(self, size: Size) -> None:
        with self._scrolling_by_program():
            self._scroll_update(size)

    def _top_for(self, bottom: int) -> tuple[int, int]:
        """Return the highest (line, part) from which the window reaches the end of `bottom`."""
        if not self.wrap:
            return max(0, bottom - self._height + 1), 0
        used = 0
        for line in range(bottom, -1, -1):
            used += self._parts(line)
            if used >= self._height:
                return line, used - self._height
        return 0, 0

    def _arrange(self) -> None:
        """Keep the cursor visible after a change of the window or of the lines."""
        self._extend()
        if self.follow:
            self._to_end()
        elif self.lines.count:
            self._part = min(self._part, self._parts(min(self.scroll_offset.y, self._last)) - 1)
            self._show_cursor()
        self.refresh()
        self._changed()

    def on_resize(self, _: events.Resize) -> None:
        self._arrange()

    def on_mount(self) -> None:
        self._schedule_update(SLOW_SECONDS)

    def _schedule_update(self, seconds: float) -> None:
        self.set_timer(seconds, self._update_regularly)

    def _update_regularly(self) -> None:
        if not caught_up(self.app):
            self._schedule_update(BEHIND_SECONDS)
            return
        gained = self.update_lines()
        if gained:
            self.call_after_refresh(ask, self.app)
        # Lines that arrive faster than a window at a time cannot be read, and a quiet log can wait.
        live = not OVER_SSH and 0 < gained < self._height
        self._schedule_update(LIVE_SECONDS if live else SLOW_SECONDS)

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
            return  # The window was resized, not scrolled; `_arrange` follows.
        # The user moved the scrollbar.
        self._part = 0
        if new_value >= self.max_scroll_y:
            self._part = self._top_for(self._last)[1]
        self._bring_cursor()

    def _bring_cursor(self) -> None:
        """Move the cursor into the window after scrolling; at the end of the log, follow again."""
        places = self._layout()
        self.follow = (self.scroll_offset.y, self._part) >= self._top_for(self._last)
        if self.follow:
            self.cursor = self._last
        elif places:
            self.cursor = min(max(self.cursor, places[0][0]), places[-1][0])
        self.refresh()
        self._changed()

    def _scroll(self, line: int, part: int) -> None:
        self._part = part
        with self._scrolling_by_program():
            self.scroll_to(None, line, animate=False, immediate=True, force=True)
        self.refresh()

    @contextmanager
    def _scrolling_by_program(self) -> Iterator[None]:
        """Tell scrolling by the program from scrolling with the scrollbar."""
        self._scrolling = True
        try:
            yield
        finally:
            self._scrolling = False

    def _scroll_lines(self, lines: int) -> None:
        """Scroll by lines of the window, which are parts of wrapped lines."""
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
        # Scrolling has refreshed all lines; otherwise those between the old and the new cursor changed.
        first, last = sorted((before, self.cursor))
        for y, (shown, _) in enumerate(self._layout()):
            if first <= shown <= last:
                self.refresh(Region(0, y, self._gutter + self._width, 1))
        self._changed()

    def _go(self, line: int) -> None:
        """Go to a line that may be far away, and show the lines around it."""
        if all(seen != line for seen, _ in self._layout()):
            top, above = line, 0
            while top > 0 and above < self._height // 3:
                top -= 1
                above += self._parts(top)
            self._scroll(*min((top, 0), self._top_for(self._last)))
        self._to(line)

    def _show_cursor(self, upwards: bool = False) -> None:
        """Scroll as little as needed to show the line of the cursor.

        Of a line taller than the window, show the start, or with `upwards` the end, unless a part of it
        is visible already.
        """
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
        # Scroll through a line taller than the window before leaving it.
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
            self._changed()

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
            self._changed()
        else:
            self.action_last()

    def _changed(self) -> None:
        self.changes += 1

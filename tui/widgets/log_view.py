"""The log window: a view of the spool file, one row of the index a line, read as it is drawn.

Memory holds what is on the screen and a little more, however long the log is. Every line passes
`clean_line` and is drawn as plain segments: nothing in it is markup or reaches the terminal raw.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.strip import Strip

from stoke.errors import StokeError
from stoke.logs.sanitise import clean_line
from stoke.logs.spool import NOTE, STDERR, SpoolReader
from tui.log_search import LogSearch
from tui.threads import on_thread

LOOK_SECONDS = 0.25
"""Over SSH four repaints a second leave room for the keys; sixty queue up for seconds."""
# Of a longer line the ends are shown; it is whole in the spool.
_MOST_BYTES = 64 * 1024
_MOST_MATCHES = 200


class _Row(NamedTuple):
    stream: int
    time: int
    text: str


class LogView(ScrollView, can_focus=True):
    """Shows the spool in a folder. The row under the cursor is what is copied.

    At the last row it follows: what arrives scrolls in. Anywhere else it stands still, and
    `below` says how many rows lie further down.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--stderr",
        "log--note",
        "log--time",
        "log--cursor",
        "log--match",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Line up", show=False, id="log.up"),
        Binding("down,j", "move(1)", "Line down", show=False, id="log.down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="log.page_up"),
        Binding("pagedown,ctrl+d,space", "page(1)", "Page down", show=False, id="log.page_down"),
        Binding("g,home", "first", "First line", show=False, id="log.first"),
        Binding("G,end", "last", "Last line, follow", show=False, id="log.last"),
        Binding("n", "match(1)", "Next match", id="log.next_match"),
        Binding("N", "match(-1)", "Previous match", id="log.previous_match"),
    ]

    follow = var(True)
    wrap = var(False)
    stamps = var(False)

    class Changed(Message):
        """Something that the header shows has changed."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LogView.Changed)

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.cursor = 0
        self.rows = 0
        self.bytes = 0
        self.search: LogSearch | None = None
        self.searching = False
        self._reader: SpoolReader | None = None
        self._folder: Path | None = None
        self._widest = 0
        self._texts: LRUCache[int, _Row] = LRUCache(2000)
        self._strips: LRUCache[int, list[Strip]] = LRUCache(2000)
        self._places: list[tuple[int, int]] = []
        self._placed: tuple[int, int, int, int] | None = None
        self._scrolling = False

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, folder: Path | None) -> None:
        """Shows another spool, from its end; None shows nothing."""
        if self._reader is not None:
            self._reader.close()
        self._folder = folder
        self._reader = SpoolReader(folder) if folder is not None else None
        self.search = None
        self.rows = self.bytes = self.cursor = self._widest = 0
        self.follow = True
        self._forget()
        self._extend()
        self.scroll_to(0, 0, animate=False, immediate=True, force=True)
        self.look()
        self._say()

    def look(self) -> None:
        """Shows what the spool has gained. Draws nothing when it has gained nothing."""
        if self._reader is None:
            return
        size, rows = self._reader.size()
        if (size, rows) == (self.bytes, self.rows):
            return
        if rows < self.rows:
            # A follower that took over has cut the spool back to what was whole.
            self._forget()
            self.cursor = min(self.cursor, max(0, rows - 1))
        elif self.rows:
            self._forget_row(self.rows - 1)
        self.bytes, self.rows = size, rows
        self._extend()
        if self.search is not None and not self.searching:
            self._scan(self.search, jump=False)
        if self.follow:
            self._to_end()
        self._placed = None
        self.refresh()
        self._say()

    @property
    def below(self) -> int:
        """Rows under the window."""
        last = self._layout()[-1][0] if self._layout() else -1
        return max(0, self.rows - 1 - last)

    def line(self) -> str | None:
        """The text of the row under the cursor."""
        return self._load(self.cursor, 1)[0].text if self.cursor < self.rows else None

    def _load(self, first: int, count: int) -> list[_Row]:
        """Rows as text, from memory where they are; `first + count` may pass the end."""
        count = min(count, self.rows - first)
        if count <= 0 or self._reader is None:
            return []
        if any(first + at not in self._texts for at in range(count)):
            index = self._reader.rows(first, count + 1)
            ends = [row[0] for row in index[1:]] + [self.bytes]
            for at, ((start, time, stream), end) in enumerate(
                islice(zip(index, ends, strict=False), count)
            ):
                self._texts[first + at] = _Row(stream, time, self._text(start, end))
        return [self._texts.get(first + at) or _Row(0, 0, "") for at in range(count)]

    def _text(self, start: int, end: int) -> str:
        assert self._reader is not None
        if end - start <= _MOST_BYTES:
            return clean_line(self._reader.read(start, end)).expandtabs(8)
        half = _MOST_BYTES // 2
        tail = self._reader.read(end - half, end)
        bar = tail.rstrip(b"\r\n").rfind(b"\r")
        if bar >= 0:
            # A progress bar's whole life is one row; its last state stands behind the last return.
            return clean_line(tail[bar:]).expandtabs(8)
        head = clean_line(self._reader.read(start, start + half))
        left_out = f" ... {end - start - 2 * half:,} bytes ... "
        return (head + left_out + clean_line(tail)).expandtabs(8)

    # --- drawing ----------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        style = self.rich_style
        width = self.scrollable_content_region.width
        places = self._layout()
        if y >= len(places):
            return Strip.blank(width, style)
        row, part = places[y]
        strips = self._drawn(row)
        if part >= len(strips):
            return Strip.blank(width, style)
        left = 0 if self.wrap else self.scroll_offset.x
        strip = strips[part].crop_extend(left, left + width, style)
        if row == self.cursor and self.has_focus:
            strip = strip.apply_style(self.get_component_rich_style("log--cursor", partial=True))
        return strip

    def _layout(self) -> list[tuple[int, int]]:
        """For each line of the window its row and which of that row's wrapped lines it is."""
        region = self.scrollable_content_region
        top = self.scroll_offset.y
        key = (top, region.width, region.height, self.rows)
        if self._placed != key:
            self._placed = key
            self._load(top, region.height)
            if self.wrap:
                self._places = []
                row = top
                while row < self.rows and len(self._places) < region.height:
                    self._places += [(row, part) for part in range(len(self._drawn(row)))]
                    row += 1
                del self._places[region.height :]
            else:
                self._places = [(row, 0) for row in range(top, min(self.rows, top + region.height))]
        return self._places

    def _drawn(self, row: int) -> list[Strip]:
        """The row's strips: one, or several when long lines wrap."""
        strips = self._strips.get(row)
        if strips is None:
            loaded = self._load(row, 1)
            strip = self._strip(loaded[0]) if loaded else Strip([])
            strips = self._wrapped(strip) if self.wrap else [strip]
            self._strips[row] = strips
            if not self.wrap and strip.cell_length > self._widest:
                self._widest = strip.cell_length
                self.call_after_refresh(self._widen)
        return strips

    def _strip(self, row: _Row) -> Strip:
        style = self.rich_style
        segments: list[Segment] = []
        if self.stamps:
            moment = datetime.fromtimestamp(row.time / 1e9) if row.time else None
            stamp = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} " if moment else " " * 13
            segments.append(Segment(stamp, self._style("log--time")))
        if row.stream == NOTE:
            style = self._style("log--note")
            segments.append(Segment("-- ", style))
        elif row.stream == STDERR:
            style = self._style("log--stderr")
        at = 0
        if self.search is not None:
            marked = style + self._style("log--match")
            for match in islice(self.search.pattern.finditer(row.text), _MOST_MATCHES):
                segments.append(Segment(row.text[at : match.start()], style))
                segments.append(Segment(match[0], marked))
                at = match.end()
        segments.append(Segment(row.text[at:], style))
        return Strip(segment for segment in segments if segment.text)

    def _style(self, component: str) -> Style:
        return self.get_component_rich_style(component)

    def _wrapped(self, strip: Strip) -> list[Strip]:
        """At most one window full of lines, so that whatever stands below can be reached."""
        region = self.scrollable_content_region
        width, most = max(1, region.width), max(1, region.height - 1)
        count = min(most, -(-strip.cell_length // width) or 1)
        return [strip.crop(at * width, (at + 1) * width) for at in range(count)]

    # --- extent -----------------------------------------------------------------------------------

    def _extend(self) -> None:
        """Fits the scrolled area to the rows there are."""
        height = self.scrollable_content_region.height
        if self.wrap:
            # One step a row: the last row at the top from which everything down to the end fits.
            self.virtual_size = Size(0, self._top_for(self.rows - 1) + height)
        else:
            self.virtual_size = Size(self._widest, self.rows)

    def _widen(self) -> None:
        """A wider line may bring the lower scrollbar, which takes a line from the window."""
        self._extend()
        if self.follow:
            self.call_after_refresh(self._to_end)

    def _top_for(self, bottom: int) -> int:
        """The highest row from which the window reaches down to the whole of row `bottom`."""
        height = self.scrollable_content_region.height
        if not self.wrap:
            return max(0, bottom - height + 1)
        used, row = 0, bottom
        while row >= 0:
            used += len(self._drawn(row))
            if used > height:
                return min(row + 1, bottom)
            row -= 1
        return 0

    def _forget(self) -> None:
        self._texts.clear()
        self._forget_strips()

    def _forget_strips(self) -> None:
        self._strips.clear()
        self._placed = None

    def _forget_row(self, row: int) -> None:
        self._texts.discard(row)
        self._strips.discard(row)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._forget_strips()

    def on_resize(self, _: events.Resize) -> None:
        if self.wrap:
            self._forget_strips()
        self._extend()
        if self.follow:
            self._to_end()
        self._say()

    def on_mount(self) -> None:
        self.set_interval(LOOK_SECONDS, self.look)

    def on_unmount(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def watch_wrap(self) -> None:
        self._forget_strips()
        self._extend()
        if self.follow:
            self._to_end()
        else:
            self._show_cursor()
        self.refresh()

    def watch_stamps(self) -> None:
        self._forget_strips()
        self._widest = 0
        self._extend()
        self.refresh()

    # --- moving -----------------------------------------------------------------------------------

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) == round(new_value) or self._scrolling:
            return
        # The wheel or the scrollbar: the cursor comes along, and the end follows again.
        places = self._layout()
        self.follow = new_value >= self.max_scroll_y
        if self.follow:
            self.cursor = max(0, self.rows - 1)
        elif places:
            self.cursor = min(max(self.cursor, places[0][0]), places[-1][0])
        self._say()

    def _scroll(self, row: int) -> None:
        self._scrolling = True
        try:
            self.scroll_to(None, row, animate=False, immediate=True, force=True)
        finally:
            self._scrolling = False

    def _to_end(self) -> None:
        self.cursor = max(0, self.rows - 1)
        self._scroll(round(self.max_scroll_y))

    def _to(self, row: int) -> None:
        self.cursor = max(0, min(row, self.rows - 1))
        self.follow = self.cursor == max(0, self.rows - 1)
        self._show_cursor()
        self.refresh()
        self._say()

    def _show_cursor(self) -> None:
        top = self.scroll_offset.y
        lowest = self._top_for(self.cursor)
        if self.cursor < top or (self.cursor == top and lowest > top):
            self._scroll(self.cursor)
        elif lowest > top:
            self._scroll(lowest)

    def action_move(self, step: int) -> None:
        self._to(self.cursor + step)

    def action_page(self, direction: int) -> None:
        self._to(self.cursor + direction * max(1, len(self._layout()) - 1))

    def action_first(self) -> None:
        self._to(0)

    def action_last(self) -> None:
        self._to(self.rows - 1)

    def toggle_follow(self) -> None:
        if self.follow:
            self.follow = False
            self._say()
        else:
            self.action_last()

    # --- searching --------------------------------------------------------------------------------

    def find(self, query: str) -> None:
        """Looks for `query` in the whole spool and goes to the first match from the cursor on."""
        self.search = LogSearch(self._folder, query) if query and self._folder else None
        self._forget_strips()
        self.refresh()
        if self.search is not None:
            self._scan(self.search, jump=True)
        self.refresh_bindings()
        self._say()

    def _scan(self, search: LogSearch, jump: bool) -> None:
        self.searching = True

        def done(_: None) -> None:
            self.searching = False
            if self.search is not search:
                if self.search is not None:
                    self._scan(self.search, jump=True)
                return
            if jump and (row := search.after(self.cursor - 1)) is not None:
                self._to(row)
            self._say()

        def failed(error: StokeError) -> None:
            self.searching = False
            self.app.notify(error.what, severity="error", markup=False)

        on_thread(self, search.scan, done, failed)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return self.search is not None if action == "match" else True

    def action_match(self, direction: int) -> None:
        if self.search is None:
            return
        row = self.search.after(self.cursor) if direction > 0 else self.search.before(self.cursor)
        if row is not None:
            self._to(row)

    def _say(self) -> None:
        self.post_message(self.Changed())

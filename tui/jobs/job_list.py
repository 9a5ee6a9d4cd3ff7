"""The list of jobs: a window over a `Listing`, drawn line by line.

A job is read when it comes into view, and a line is drawn again when its text has changed, so the cost
does not depend on the size of the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from stoke.errors import StokeError
from stoke.history.job import SWEEP, Job, Usage
from stoke.history.listing import Listing
from stoke.text.sanitize import clean
from tui import palette
from tui.jobs.columns import COLUMNS, Column, Load, fitting, widths

_NO_MATCH = " No matching jobs. Esc clears the filter."
_NOT_FITTED = -1
_TAIL = 7
"""Characters kept at the end of a shortened job id: its unique part."""


class JobList(ScrollView, can_focus=True):
    """The cursor is on an *index* of the listing. A *line* is an index or the heading of a group.

    The screen reads `listing` and calls `show` afterwards. The job under the cursor is the current one.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "jobs--head",
        "jobs--group",
        "jobs--cursor",
        "jobs--cursor-blurred",
        "jobs--mark",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Go to the job", show=False, id="jobs.enter"),
        Binding("down,j", "move(1)", "Next job", show=False, id="jobs.down"),
        Binding("up,k", "move(-1)", "Previous job", show=False, id="jobs.up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="jobs.page_down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="jobs.page_up"),
        Binding("home,g", "first", "First job", show=False, id="jobs.first"),
        Binding("end,G", "last", "Last job", show=False, id="jobs.last"),
        Binding("right", "unfold", "Show a sweep's tasks", show=False, id="jobs.unfold"),
        Binding("left", "fold", "Hide a sweep's tasks", show=False, id="jobs.fold"),
        Binding("space", "mark", "Mark", show=False, id="jobs.mark"),
        Binding("a", "mark_all", "Mark all listed jobs", show=False, id="jobs.mark_all"),
    ]

    class CurrentChanged(Message):
        """The cursor is on another job now, or on none."""

        def __init__(self, job_id: str | None) -> None:
            super().__init__()
            self.job_id = job_id

    class Opened(Message):
        """The user pressed enter on the current job, or clicked it again."""

    class MarksChanged(Message):
        pass

    class Unfolded(Message):
        """The tasks of a sweep shall be listed below it, or no longer."""

        def __init__(self, sweep_id: str, is_unfolded: bool) -> None:
            super().__init__()
            self.sweep_id, self.is_unfolded = sweep_id, is_unfolded

    class HeadingClicked(Message):
        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(self, listing: Listing, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.listing = listing
        self._all_columns: Sequence[Column] = ()
        self.sorted_by, self.descending = "age", True
        self.cursor = 0
        self.current: str | None = None
        self.marked: dict[str, None] = {}
        """In the order in which they were marked."""
        self.stale: frozenset[str] = frozenset()
        self.usage: Mapping[str, tuple[Usage, ...]] = {}
        """The newest figures of the jobs that run."""
        self.bars: Mapping[str, str] = {}
        """The progress bars that they draw."""
        self.unfolded: frozenset[str] = frozenset()
        """The sweeps whose tasks are listed."""
        self._now = 0.0
        self._drawn: dict[int, Strip] = {}
        self._prepared: dict[int, Strip] = {}
        """Lines that are prepared and not drawn yet."""
        self._fitted: tuple[int, list[Column], list[int]] = (_NOT_FITTED, [], [])

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, now: float, keep_current: bool = True) -> None:
        """Show the listing that was just read; ages count up to `now`, in epoch seconds.

        The current job keeps the cursor and its line of the window. If it is not listed any more, the
        cursor stays at its index, or goes to the first job without `keep_current`.
        """
        self._now = now
        above = self._line(self.cursor) - self.scroll_offset.y
        is_visible = 0 <= above < self._height
        index = None
        try:
            if self.current is not None:
                index = self.listing.place(self.current)
        except StokeError:
            index = self.cursor
        if index is None:
            index = self.cursor if keep_current else 0
        self.cursor = max(0, min(index, len(self.listing) - 1))
        self._extend()
        if is_visible:
            if self.scroll_offset.y > 0:
                self._to_line(self._line(self.cursor) - above)
            self._reveal()
        self._redraw()
        self._update_current()

    def show_columns(self, names: Iterable[str], sorted_by: str, descending: bool) -> None:
        self._all_columns = [COLUMNS[name] for name in names]
        self.sorted_by, self.descending = sorted_by, descending
        self._prepared.clear()
        self._fitted = (_NOT_FITTED, [], [])
        self._extend()
        self.refresh()

    def choose(self, job_id: str) -> None:
        """Move the cursor to this job, if it is listed."""
        try:
            index = self.listing.place(job_id)
        except StokeError:
            return
        if index is not None:
            self._go(index)

    @property
    def job(self) -> Job | None:
        """The current job; None if there is none or it cannot be read."""
        return self._load(self.cursor) if self.current is not None else None

    def _load(self, index: int) -> Job | None:
        if not 0 <= index < len(self.listing):
            return None
        try:
            job = self.listing.job(index)
        except StokeError:
            return None  # The screen shows errors of the history.
        if job is not None:
            job.stale = job.id in self.stale
            job.recent = self.usage.get(job.id, ())
            # Of a sweep and of its tasks, the listing has the strip and the values.
            is_listed = job.kind == SWEEP or job.sweep is not None
            job.bar = self.bars.get(job.id, job.bar if is_listed else "")
        return job

    def _update_current(self) -> None:
        job = self._load(self.cursor)
        current = job.id if job is not None else None
        if current is None and len(self.listing):
            return
        if current != self.current:
            self.current = current
            self.post_message(self.CurrentChanged(current))

    # --- lines ------------------------------------------------------------------------------------

    @property
    def line_count(self) -> int:
        """Jobs and headings, at least one line."""
        return max(1, self._lines)

    @property
    def _lines(self) -> int:
        return len(self.listing) + len(self.listing.groups)

    def _line(self, index: int) -> int:
        return index + (self.listing.group_of(index) + 1 if self.listing.groups else 0)

    def _index_at(self, line: int) -> tuple[int | None, int]:
        """Return (group whose heading is on that line or None, index on that line or below it)."""
        for number, group in enumerate(self.listing.groups):
            heading = group.first + number
            if line == heading:
                return number, group.first
            if line <= heading + group.jobs:
                return None, line - number - 1
        return None, line

    @property
    def _height(self) -> int:
        """Lines of the window below the column headings."""
        return max(1, self.scrollable_content_region.height - 1)

    def _fit_columns(self) -> tuple[list[Column], list[int]]:
        """Return the columns of the present window, and their widths."""
        available = self.scrollable_content_region.width
        if self._fitted[0] != available:
            columns = fitting(self._all_columns, available)
            self._fitted = (available, columns, widths(columns, available))
        return self._fitted[1], self._fitted[2]

    @property
    def columns(self) -> list[Column]:
        """The columns that are shown."""
        return self._fit_columns()[0]

    @property
    def _widths(self) -> list[int]:
        return self._fit_columns()[1]

    def _extend(self) -> None:
        width = sum(self._widths) + len(self.columns) + 1
        self.virtual_size = Size(max(width, 1), self._lines + 1)

    def _to_line(self, line: int) -> None:
        top = max(0, min(line, self._lines - self._height))
        self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def _reveal(self) -> None:
        """Scroll as little as needed to show the cursor; with the first of a group, its heading too."""
        line, top = self._line(self.cursor), self.scroll_offset.y
        first = line
        if any(group.first == self.cursor for group in self.listing.groups):
            first -= 1
        if first < top or self._height == 1:
            self._to_line(first if self._height > 1 else line)
        elif line >= top + self._height:
            self._to_line(line - self._height + 1)

    def on_resize(self, _: events.Resize) -> None:
        self._drawn.clear()
        self._prepared.clear()
        self._extend()
        self._reveal()
        self.refresh()

    # --- drawing ----------------------------------------------------------------------------------

    def _redraw(self) -> None:
        """Draw the lines that have changed since they were drawn."""
        base = self.rich_style
        self._prepared = {y: self._strip(y, base) for y in self._drawn}
        for y, strip in self._prepared.items():
            if strip != self._drawn[y]:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        strip = self._prepared.pop(y) if y in self._prepared else self._strip(y, self.rich_style)
        self._drawn[y] = strip
        return strip

    def _strip(self, y: int, base: Style) -> Strip:
        width = self.size.width
        line = self.scroll_offset.y + y - 1
        if y == 0:
            strip = Strip(self._head(base + self._style("jobs--head")))
        elif line >= self._lines:
            if y > 1 or self._lines or not self.listing.total:
                return Strip.blank(width, base)
            strip = Strip([Segment(_NO_MATCH, base + self._style("jobs--head"))])
        else:
            group, index = self._index_at(line)
            if group is not None:
                strip = Strip(self._heading(group, base + self._style("jobs--group")))
            else:
                strip = Strip(self._row(index, base))
        left = self.scroll_offset.x
        return strip.crop_extend(left, left + width, base)

    def _style(self, component: str) -> Style:
        return self.get_component_rich_style(component, partial=True)

    def _head(self, style: Style) -> list[Segment]:
        cells: list[Text | str] = []
        for column in self.columns:
            arrow = ("▼" if self.descending else "▲") if column.name == self.sorted_by else ""
            cells.append(column.label[: max(0, column.width - len(arrow))] + arrow)
        return self._segments(cells, style, " ")

    def _heading(self, number: int, style: Style) -> list[Segment]:
        group = self.listing.groups[number]
        width = max(self.virtual_size.width, self.size.width)
        return [Segment(set_cell_size(f" {clean(group.name)} · {group.jobs:,}", width), style)]

    def _row(self, index: int, base: Style) -> list[Segment]:
        job = self._load(index)
        style = base
        if index == self.cursor:
            style += self._style("jobs--cursor" if self.has_focus else "jobs--cursor-blurred")
        if job is None:
            return self._segments(["-" for _ in self.columns], style + Style(dim=True), " ")
        cells = [column.cell(job, self._now) for column in self.columns]
        if lead := self._lead(job):
            cells = [
                f"{lead}{cell}" if column.name == "job" else cell
                for column, cell in zip(self.columns, cells, strict=True)
            ]
        # Yellow on white cannot be read, and no contrast is known of a terminal's own colours.
        has_one_colour = index == self.cursor and palette.is_ansi(self.app.current_theme)
        if job.id in self.marked:
            marked = style + self._style("jobs--mark")
            return self._segments(cells, marked, "*", has_one_colour)
        return self._segments(cells, style, " ", has_one_colour)

    def _lead(self, job: Job) -> str:
        """Return what precedes the id of a sweep, and of a task below it."""
        if job.kind == SWEEP:
            return "▾ " if job.id in self.unfolded else "▸ "
        return "└ " if job.sweep is not None else ""

    def _segments(
        self, cells: Sequence[Text | str], style: Style, mark: str, has_one_colour: bool = False
    ) -> list[Segment]:
        segments = [Segment(mark, style)]
        for column, width, cell in zip(self.columns, self._widths, cells, strict=True):
            text, own = (cell, style) if isinstance(cell, str) else (cell.plain, style)
            if isinstance(cell, Text) and cell.style and not has_one_colour:
                own = style + self.app.console.get_style(cell.style)
            if isinstance(cell, Load):
                text = cell.fitted(width)
            segments.append(Segment(_fit(clean(text), width, column), own))
            segments.append(Segment(" ", style))
        return segments

    # --- keys -------------------------------------------------------------------------------------

    def _go(self, index: int) -> None:
        self._prepared.clear()
        before, top = self._line(self.cursor), self.scroll_offset.y
        self.cursor = max(0, min(index, len(self.listing) - 1))
        self._reveal()
        # Scrolling draws all lines anyway.
        if self.scroll_offset.y == top:
            for line in {before, self._line(self.cursor)}:
                self.refresh(Region(0, line - top + 1, self.size.width, 1))
        self._update_current()

    def action_move(self, step: int) -> None:
        self._go(self.cursor + step)

    def action_page(self, direction: int) -> None:
        self._go(self.cursor + direction * self._height)

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(len(self.listing) - 1)

    def action_open(self) -> None:
        job = self.job
        if job is not None and job.kind == SWEEP:
            self.post_message(self.Unfolded(job.id, job.id not in self.unfolded))
            return
        self.post_message(self.Opened())

    def action_unfold(self) -> None:
        job = self.job
        if job is not None and job.kind == SWEEP:
            self.post_message(self.Unfolded(job.id, True))
        else:
            self.action_scroll_right()

    def action_fold(self) -> None:
        job = self.job
        sweep_id = None if job is None else job.id if job.kind == SWEEP else job.sweep
        if sweep_id is not None and sweep_id in self.unfolded:
            self.choose(sweep_id)
            self.post_message(self.Unfolded(sweep_id, False))
        else:
            self.action_scroll_left()

    def action_mark(self) -> None:
        if self.current is None:
            return
        if self.current in self.marked:
            del self.marked[self.current]
        else:
            self.marked[self.current] = None
        self.post_message(self.MarksChanged())
        self._redraw()
        self._go(self.cursor + 1)

    def action_mark_all(self) -> None:
        """Mark all listed jobs, or none if all are marked."""
        try:
            ids = dict.fromkeys(self.listing.ids())
        except StokeError:
            return
        self.unmark() if self.marked.keys() == ids.keys() else self._mark_only(ids)

    def unmark(self, job_ids: Iterable[str] | None = None) -> None:
        """Remove the marks of these jobs, or all marks."""
        removed = set(self.marked if job_ids is None else job_ids)
        self._mark_only({job_id: None for job_id in self.marked if job_id not in removed})

    def _mark_only(self, marked: dict[str, None]) -> None:
        self.marked = marked
        self._redraw()
        self.post_message(self.MarksChanged())

    def watch_scroll_x(self, old_value: float, new_value: float) -> None:
        self._prepared.clear()
        super().watch_scroll_x(old_value, new_value)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        self._prepared.clear()
        super().watch_scroll_y(old_value, new_value)

    def watch_has_focus(self, has_focus: bool) -> None:
        # Not on focus events: `has_focus` changes after them.
        super().watch_has_focus(has_focus)
        self._redraw()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            column = self._column_at(event.x + self.scroll_offset.x)
            if column is not None:
                self.post_message(self.HeadingClicked(column.name))
            return
        line = self.scroll_offset.y + event.y - 1
        if line >= self._lines:
            return
        group, index = self._index_at(line)
        if group is None:
            again = index == self.cursor
            self._go(index)
            if again:
                self.action_open()

    def _column_at(self, x: int) -> Column | None:
        right = 1
        for column, width in zip(self.columns, self._widths, strict=True):
            right += width + 1
            if x < right:
                return column
        return None


def _fit(text: str, width: int, column: Column) -> str:
    """Return `text` in exactly `width` cells."""
    text = text.expandtabs(1)
    taken = cell_len(text)
    if taken > width:
        tail = text[-_TAIL:] if column.name == "job" and width > _TAIL + 2 else ""
        return set_cell_size(text, width - 1 - cell_len(tail)) + "…" + tail
    blanks = " " * (width - taken)
    return blanks + text if column.right else text + blanks

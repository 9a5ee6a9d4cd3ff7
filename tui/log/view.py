"""The log window of a job, with search, filter, selection and copying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Event
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.selection import Selection

from stoke.errors import StokeError
from stoke.logs import reader
from stoke.logs.reader import Matches
from stoke.logs.search import Query
from stoke.logs.spool import LogSource
from stoke.text.ansi import Styled
from tui.log.code import MOST_ABOVE, CodePlace, places_above
from tui.log.row import LogRow, Span
from tui.log.scans import LogScans
from tui.log.tags import Tags
from tui.log.window import LogWindow
from tui.notifications import show_error
from tui.threads import on_thread


class LogView(LogWindow):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "match(1)", "Next match", id="log.next_match"),
        Binding("N", "match(-1)", "Previous match", show=False, id="log.previous_match"),
        Binding("full_stop", "error(1)", "Next error", id="log.next_error"),
        Binding("comma", "error(-1)", "Previous error", show=False, id="log.previous_error"),
        Binding("v", "select", "Select lines", show=False, id="log.select"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.search: Matches | None = None
        self.selected_from: int | None = None
        """The line where the selection begins; it ends at the cursor."""
        self._scans = LogScans(self, self._progressed, self._scan_failed)
        # The row from which a new search looks for its first match.
        self._search_from: int | None = None
        # The row to return to once a new filter has reached it.
        self._return_row: int | None = None
        self._cancel_error_search = Event()

    def show(
        self, folder: LogSource | None, job_ids: Sequence[str] = (), tags: Tags | None = None
    ) -> None:
        self._cancel_scans()
        self.search = self.selected_from = self._search_from = self._return_row = None
        super().show(folder, job_ids, tags)

    def _cancel_scans(self) -> None:
        for matches in (self.search, self.filter):
            if matches is not None:
                matches.cancel()
        self._cancel_error_search.set()

    def on_unmount(self) -> None:
        self._cancel_scans()

    def log_grew(self) -> None:
        for matches in (self.filter, self.search):
            if matches is not None:
                self._scans.start(matches)
        if self.filter is None:
            self.show_growth()

    @property
    def filter(self) -> Matches | None:
        return self.lines.filter

    def highlighted(self, line: int) -> list[Span]:
        return self.lines.matches(line, self.search.queries[-1]) if self.search is not None else []

    # --- searching and filtering ------------------------------------------------------------------

    def find(self, query: Query | None, start: int | None = None) -> None:
        """Search the shown lines and go to the first match from a row on; None ends the search.

        The search begins at the cursor if no row is given.
        """
        self._search_for(query)
        if query is not None:
            self._search_from = self.row if start is None else start

    def code_places(self) -> list[CodePlace]:
        """Return the places in the code that the traceback at the cursor names."""
        first = max(0, self.cursor - MOST_ABOVE + 1)
        own = self.job_at(self.cursor)
        try:
            # Not as drawn: the folders tell a file of the project from the code.
            lines = list(enumerate(self.lines.texts(first, self.cursor), first))
        except StokeError:
            return []  # Lines of many megabytes.
        return places_above(text for at, text in reversed(lines) if self.job_at(at) == own)

    def job_at(self, line: int) -> str | None:
        """Return the id of the job that printed a line, where the log is that of several jobs."""
        if self.tags is None or not self.lines.count:
            return None
        return self.tags.ids[self.tags.owner(self.lines.row(line))]

    def place(self) -> tuple[int, bool]:
        """Return (row of the cursor, whether the window follows), for `return_to`."""
        return self.row, self.follow

    def return_to(self, place: tuple[int, bool]) -> None:
        row, follow = place
        if follow:
            self.action_last()
        else:
            self._go(self.lines.line(row))

    def _search_for(self, query: Query | None) -> None:
        if self.search is not None:
            self.search.cancel()
        self.search = self._search_from = None
        self.lines.clear_matches()
        if query is not None and self.lines.folder is not None:
            filters = self.filter.queries if self.filter is not None else ()
            self.search = Matches(self.lines.folder, *filters, query)
            self._scans.start(self.search)
        self.refresh()
        self.refresh_bindings()
        self._changed()

    def show_only(self, query: Query | None) -> None:
        """Show matching lines only, also of new output; None shows all lines."""
        row = self.row
        if self.filter is not None:
            self.filter.cancel()
        self.drop_selection()
        self._part = 0
        self.lines.filter = None
        if query is not None and self.lines.folder is not None:
            self.lines.filter = Matches(self.lines.folder, query)
            self._return_row = None if self.follow else row
            self._scans.start(self.lines.filter)
        else:
            self.cursor = row
        self.show_growth()
        if not self.follow:
            self._show_cursor()
        if self.search is not None:
            self._search_for(self.search.queries[-1])
        self._changed()

    def _scan_failed(self, matches: Matches, error: StokeError) -> None:
        """Drop a search or filter that cannot go on: a growing log would repeat the error."""
        if matches is self.filter:
            self.show_only(None)
        elif matches is self.search:
            self.find(None)
        else:
            return
        show_error(self, error)

    def _progressed(self, matches: Matches) -> None:
        """Show what a scan has found so far, and go to the row or the match that was waited for."""
        if matches is self.filter:
            self.show_growth()
            row = self._return_row
            if row is not None and (matches.whole or matches.scanned > row):
                self._return_row = None
                self._go(self.lines.line(row))
        if matches in (self.filter, self.search) and self._return_row is None:
            self._go_to_first_match()
            self._changed()

    def _go_to_first_match(self) -> None:
        """Go to the first match from the start of the search, once it is found and shown."""
        if self._search_from is None or self.search is None:
            return
        found = self.search.after(self._search_from - 1)
        if found is None and self.search.whole:
            found = self.search.after(-1)
            self._search_from = None
        if found is not None and self.lines.shows(found):
            self._search_from = None
            self._to_match(found)

    def _to_match(self, row: int) -> None:
        line = self.lines.line(row)
        self._go(line)
        spans = self.highlighted(line)
        if self.wrap or not spans:
            return
        left, right = (self._load(line).column(at) for at in spans[0])
        if right <= self._width:
            self._sideways(0)
        elif not self.scroll_offset.x <= left <= right <= self.scroll_offset.x + self._width:
            self._extend()
            self._sideways(left - self._width // 3)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action == "error":
            return self.lines.folder is not None
        return self.search is not None if action == "match" else True

    def action_match(self, direction: int) -> None:
        if self.search is None:
            return
        if direction > 0:
            row = self.search.after(self.row)
            row = self.search.after(-1) if row is None else row
        else:
            row = self.search.before(self.row)
            row = self.search.before(1 << 63) if row is None else row
        if row is not None and self.lines.shows(row):
            self._to_match(row)

    def action_error(self, step: int) -> None:
        """Go to the next error below or above, which may be millions of lines away."""
        folder, row, shown = self.lines.folder, self.row, self.lines.shows
        if folder is None:
            return
        self._cancel_error_search.set()
        cancelled = self._cancel_error_search = Event()

        def search() -> int | None:
            at: int | None = row
            while at is not None:
                at = reader.next_error(folder, at, step, cancelled.is_set)
                if at is None or shown(at):
                    break
            return at

        def done(found: int | None) -> None:
            if cancelled.is_set():
                return
            if found is None:
                where = "below" if step > 0 else "above"
                self.notify(f"no more errors {where}", markup=False, timeout=3)
            else:
                self._go(self.lines.line(found))

        on_thread(self, search, done, partial(show_error, self))

    def jump(self, text: str) -> None:
        """Go to a time such as `12:03` or `-5m`; `RequestError` if `text` is not a time."""
        ends = self.lines.span
        if ends is not None:
            self._go(self.lines.at(reader.moment(text, ends, self._load(self.cursor).time)))

    # --- selecting --------------------------------------------------------------------------------

    def action_select(self) -> None:
        if self.selected_from is None and self.lines.count:
            self.selected_from = self.cursor
        else:
            self.selected_from = None
        self.refresh()
        self._changed()

    @property
    def selected(self) -> range:
        if self.selected_from is None:
            return range(0)
        first, last = sorted((self.selected_from, self.cursor))
        return range(first, last + 1)

    @property
    def selecting(self) -> bool:
        return self.selected_from is not None or self.text_selection is not None

    def drop_selection(self) -> None:
        self.selected_from = None
        if self.text_selection is not None:
            self.screen.clear_selection()
        self.refresh()
        self._changed()

    def copy_source(self) -> tuple[str, Callable[[], str]] | None:
        """Return (what would be copied, in words, function that reads it), or None for nothing.

        The function may be called on any thread. It raises `StokeError` for more than 16 MiB.
        """
        if not self.lines.count:
            return None
        selection = self.text_selection
        if selection is not None:
            first = selection.start.y if selection.start else 0
            last = min(selection.end.y if selection.end else self._last, self._last)
        else:
            lines = self.selected or range(self.cursor, self.cursor + 1)
            first, last = lines[0], lines[-1]
        log = self.lines

        def read() -> str:
            texts = log.texts(first, last)
            return "\n".join(texts) if selection is None else _selected_text(selection, texts)

        if selection is not None:
            return "selection", read
        return ("line" if first == last else f"{last - first + 1:,} lines"), read

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:  # noqa: ARG002
        # Disable Textual's own copying: `y` copies in all cases.
        return None


def _selected_text(selection: Selection, lines: list[str]) -> str:
    """Return the text selected with the mouse; its columns count tabs as spaces."""
    if not lines:
        return ""
    drawn = [LogRow(0, 0, Styled(line)).text for line in (lines[0], lines[-1])]
    start = max(0, selection.start.x) if selection.start else 0
    end = max(0, selection.end.x) if selection.end else len(drawn[1])
    if len(lines) == 1:
        return drawn[0][start:end]
    return "\n".join([drawn[0][start:], *lines[1:-1], drawn[1][:end]])

"""Jobs: the list of jobs and, beside or below it, the details of the current one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events, on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from stoke.errors import StokeError
from stoke.history.listing import FILTER_HINT, GROUPS, ORDERS, Listing, ListingQuery
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.context import Context
from tui.jobs.columns import counts_by_state, known
from tui.jobs.job_actions import JobActions, has_project
from tui.jobs.job_list import JobList
from tui.jobs.split import Split
from tui.jobs_snapshot import JobsSnapshot
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.line_input import SafeInput
from tui.widgets.top_bar import TopBar

# Whatever the first frame does not show is imported at first use: the start must not wait for it.
if TYPE_CHECKING:
    from textual.widgets import Input


TICK_SECONDS = 1.0
AGES_SECONDS = 20.0
DETAIL_DELAY_SECONDS = 0.06
"""The cursor stays on a job this long before its details are shown: a key held down only scrolls."""
_NO_JOBS = "No jobs yet.\n\nPress 2 to write one, or run in a shell:\n\nstoke run -c 'print(1)'"
_TITLE_EDGES = 4
"""Cells of a pane's upper edge that its title leaves."""


class JobsScreen(JobActions):
    CHANGES = frozenset(
        {"stop", "rerun", "rerun_fresh", "edit", "remove", "add_packages", "repeat", "shell"}
    )
    PANES = "#jobs-side, #jobs-detail"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", id="jobs.find"),
        Binding("s", "stop", "Stop", id="jobs.stop"),
        Binding("r", "rerun", "Run again", id="jobs.rerun"),
        Binding("F", "rerun_fresh", "Run with the current files", id="jobs.rerun_fresh"),
        Binding("A", "repeat", "Run at each save", show=False, id="jobs.repeat"),
        Binding("f6", "add_packages", "Add packages and run again", id="jobs.add_packages"),
        Binding("e", "edit", "Edit and run", id="jobs.edit"),
        Binding("d", "remove", "Remove", id="jobs.remove"),
        Binding("c", "compare", "Compare", id="jobs.compare"),
        Binding("exclamation_mark", "shell", "Shell in the job", show=False, id="jobs.shell"),
        Binding("o", "order", "Sort by the next column", show=False, id="jobs.order"),
        Binding("O", "reverse", "Reverse the order", show=False, id="jobs.reverse"),
        Binding("b", "group", "Group by state or backend", show=False, id="jobs.group"),
        Binding("C", "columns", "Columns", show=False, id="jobs.columns"),
        Binding("f", "follow", "Follow", id="jobs.follow"),
        Binding("w", "wrap", "Wrap", show=False, id="jobs.wrap"),
        Binding("t", "stamps", "Timestamps", show=False, id="jobs.timestamps"),
        Binding("L", "merge_logs", "Marked logs as one", id="jobs.merge_logs"),
        Binding("vertical_line", "pager", "Open in $PAGER", show=False, id="jobs.pager"),
        Binding("y", "copy", "Copy", show=False, id="jobs.copy"),
        Binding(
            "plus,equals_sign", "resize(1)", "Enlarge this pane", show=False, id="jobs.enlarge"
        ),
        Binding("minus", "resize(-1)", "Shrink this pane", show=False, id="jobs.shrink"),
        Binding("left_square_bracket", "tab(-1)", "Previous tab", show=False, id="jobs.tab_back"),
        Binding("right_square_bracket", "tab(1)", "Next tab", show=False, id="jobs.tab_on"),
        Binding("escape", "back", "Back", show=False, id="jobs.back"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._snapshot = JobsSnapshot()
        self._listing = Listing(context.reading)
        self._wanted = ListingQuery()
        self._columns = known(None)
        self._error: StokeError | None = None
        self._split: Split | None = None
        self._to_log = False
        self._key_state: tuple[bool, ...] = ()
        self._counts = ""
        self._has_errors = True
        self._ages_at = 0.0

    def compose(self) -> ComposeResult:
        yield TopBar("jobs", self.context.read_only)
        with Container(id="jobs-body"):
            with Vertical(id="jobs-side"):
                yield SafeInput(id="jobs-filter", placeholder=FILTER_HINT, compact=True)
                yield JobList(self._listing, id="jobs-table")
                yield Static(Text(_NO_JOBS), id="jobs-empty")
            yield Vertical(id="jobs-detail")
        yield Static(id="jobs-errors", classes="errors")
        yield KeyBar()

    def on_mount(self) -> None:
        self._filter.display = False
        self._restore()
        self._split = Split(self.query_one("#jobs-side"), self.context.ui_state)
        self.table.focus()
        self._detail_timer = self.set_interval(DETAIL_DELAY_SECONDS, self._show_job, pause=True)
        self.context.snapshots.subscribe(self, self._show)
        self.set_interval(TICK_SECONDS, self._tick)
        self._show(self.context.snapshot)

    async def mount_deferred(self) -> None:
        """Mount the widgets that the first frame was shown without."""
        from tui.jobs.job_detail import JobDetail

        if not self.app.is_running:
            return  # The program has ended already.
        detail = JobDetail(self.context)
        await self.query_one("#jobs-detail").mount(detail)
        if not detail.app.is_running:
            return  # It ended meanwhile.
        self._detail = detail
        self.context.jobs.prioritize(self.table.current)
        self._show_job()
        self._go_to_log()
        self.refresh_bindings()

    # --- parts ------------------------------------------------------------------------------------

    @property
    def _filter(self) -> Input:
        return self.query_one("#jobs-filter", SafeInput)

    # --- the focus --------------------------------------------------------------------------------

    # Not :focus-within: Textual would style the whole subtree whenever the focus moves inside it.
    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def _frame_focus(self) -> None:
        for part in self.query("#jobs-side, #jobs-detail"):
            part.set_class(part.has_focus_within, "-focused")

    # --- the split --------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._place_split()
        self.call_after_refresh(self._show_counts)

    def watch_maximized(self) -> None:
        self._place_split()

    def _place_split(self) -> None:
        if self._split is None:
            return  # The screen is not mounted yet.
        # The title and the headings are above the jobs.
        rows = self.table.line_count + 2 + self._filter.display
        is_empty = self.query_one("#jobs-body").has_class("-empty")
        self._split.place(self.size, rows, is_empty or self.maximized is not None)

    def action_resize(self, direction: int) -> None:
        """Enlarge the focused pane, or shrink it."""
        if self._split is not None:
            list_focused = self.query_one("#jobs-side").has_focus_within
            self._split.move(self.size, direction if list_focused else -direction)
            self._place_split()

    # --- the list ---------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Arrange the list as it was left."""
        stored = self.context.ui_state.get("jobs")
        stored = stored if isinstance(stored, dict) else {}
        order, group = stored.get("order"), stored.get("group")
        self._columns = known(stored.get("columns"))
        self._wanted = ListingQuery(
            order=order if isinstance(order, str) and order in ORDERS else "age",
            reverse=stored.get("reverse") is True,
            group=group if isinstance(group, str) and group in GROUPS else None,
        )
        self._show_columns()

    def _arrange(self, columns: tuple[str, ...] | None = None, **wanted: object) -> None:
        """Arrange the list in another way, now and after the next start."""
        self._columns = columns or self._columns
        self._wanted = replace(self._wanted, **wanted)  # type: ignore[arg-type]
        arrangement = {"columns": list(self._columns), **asdict(self._wanted)}
        del arrangement["words"], arrangement["unfolded"]
        self.context.ui_state.set(jobs=arrangement)
        self._show_columns()
        self._read()

    def _show_columns(self) -> None:
        order = self._wanted.order
        descending = ORDERS[order].descending != self._wanted.reverse
        self.table.show_columns(self._columns, order, descending)

    def _read(self, keep_current: bool = True) -> None:
        """Read the listing again; if that fails, the list stays as it is."""
        self._ages_at = self.context.clock()
        try:
            self._listing.read(self._wanted, self._ages_at)
            self._error = None
        except StokeError as error:
            self._error = error
        # A history that cannot be read may have jobs.
        table, is_empty = self.table, not self._listing.total and self._error is None
        table.display = not is_empty
        self.query_one("#jobs-empty").display = is_empty
        self.query_one("#jobs-body").set_class(is_empty, "-empty")
        self.query_one("#jobs-detail").display = not is_empty
        table.usage, table.bars = self.context.snapshot.usage, self.context.snapshot.bars
        table.stale = frozenset(job.id for job in self._snapshot.jobs if job.stale)
        table.show(self._ages_at, keep_current)
        self._place_split()
        self._show_counts()
        self._show_errors()

    def _show_counts(self) -> None:
        listed, total = len(self._listing) - self._listing.tasks, self._listing.total
        jobs = fmt.count(total, "job") if listed == total else f"{listed:,} of {total:,} jobs"
        parts: list[str] = []
        if groups := self._listing.groups:
            # The heading of the group may be out of sight.
            group = groups[self._listing.group_of(self.table.cursor)]
            parts.append(f"{clean(group.name)} {group.jobs:,}")
        if marked := len(self.table.marked):
            parts.append(f"{marked:,} marked")
        if self._repetition is not None:
            parts.append(f"at each save: {clean(self._repetition.job.name)}")
        side = self.query_one("#jobs-side")
        counts = ""
        for is_short in (False, True):
            by_state = (
                counts_by_state(self._listing, is_short) if self._wanted.group != "state" else ()
            )
            counts = " · ".join((jobs, *by_state, *parts))
            if cell_len(counts) <= side.outer_size.width - _TITLE_EDGES:
                break
        if counts != self._counts:
            self._counts = counts
            side.border_title = Content(counts)

    # --- showing ----------------------------------------------------------------------------------

    def show_job(self, job_id: str) -> None:
        """Select this job as soon as the history has it, and show its log."""
        self._awaited, self._to_log = job_id, True
        self._go_to_log()
        self._show(self._snapshot)

    def _go_to_log(self) -> None:
        if self._to_log and self._detail is not None:
            self._to_log = False
            self.maximized = None
            self._filter.value = ""
            self._filter.display = False
            self._detail.tabs.active = "tab-log"
            self._detail.log_view.focus()

    def _show(self, snapshot: JobsSnapshot) -> None:
        self._snapshot = snapshot
        if self._repetition is not None:
            self._repetition.take(snapshot)
        self._read()
        if self._awaited is not None:
            self.table.choose(self._awaited)
            if self.table.current == self._awaited:
                self._awaited = None
        self._show_job()
        self._refresh_keys()

    def _show_errors(self) -> None:
        if not (self._snapshot.errors or self._error or self._has_errors):
            return
        errors = dict(self._snapshot.errors)
        if self._error is not None:
            errors["history"] = self._error
        text = Text("\n").join(
            Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.plain(error.what, "$bad"), " ",
                          fmt.plain(error.hint or ""))
            for name, error in errors.items()
        )  # fmt: skip
        self._has_errors = bool(errors)
        line = self.query_one("#jobs-errors", Static)
        line.display = bool(text.plain)
        line.update(text)

    def _show_job(self) -> None:
        self._detail_timer.pause()
        if self._detail is not None:
            self._detail.show(self.job, self.context.clock())

    def _tick(self) -> None:
        now = self.context.clock()
        if self._error is not None:
            self._read()
        unfinished = any(not job.state.finished for job in self._snapshot.jobs)
        if unfinished or now - self._ages_at >= AGES_SECONDS:
            self._ages_at = now
            table, snapshot = self.table, self.context.snapshot
            table.usage, table.bars = snapshot.usage, snapshot.bars
            table.show(now)
        if self._detail is not None:
            self._detail.tick(now)

    @on(JobList.CurrentChanged)
    def _current_changed(self, event: JobList.CurrentChanged) -> None:
        self._show_counts()
        if self._detail is not None:
            self.context.jobs.prioritize(event.job_id)
            self._detail_timer.reset()
            self._detail_timer.resume()
        self._refresh_keys()

    @on(JobList.MarksChanged)
    def _marks_changed(self) -> None:
        self._show_counts()
        self._refresh_keys()

    @on(JobList.Opened)
    def _open(self) -> None:
        if self._detail is not None:
            self._show_job()
            if self.maximized is not None:
                self.maximized = self.query_one("#jobs-detail")
            self._detail.enter()

    @on(JobList.Unfolded)
    def _unfold(self, event: JobList.Unfolded) -> None:
        """List the tasks of a sweep, or list them no longer."""
        others = self._wanted.unfolded - {event.sweep_id}
        unfolded = others | {event.sweep_id} if event.is_unfolded else others
        self._wanted = replace(self._wanted, unfolded=unfolded)
        self.table.unfolded = unfolded
        self._read()

    @on(JobList.HeadingClicked)
    def _sort_by(self, event: JobList.HeadingClicked) -> None:
        if event.column == self._wanted.order:
            self.action_reverse()
        else:
            self._arrange(order=event.column, reverse=False)

    # --- keys -------------------------------------------------------------------------------------

    def _refresh_keys(self) -> None:
        """Refresh the key bar if other keys work now: that costs more than moving the cursor."""
        job = self.job
        state = (
            job is not None,
            job is not None and job.state.finished,
            bool(self.table.marked),
            bool(self._listing.total),
            job is not None and has_project(job),
        )
        if state != self._key_state:
            self._key_state = state
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if not self.is_mounted:
            return True
        job = self.job
        marked = bool(self.table.marked)
        if action in ("stop", "remove"):
            return marked or job is not None
        if action in ("rerun", "edit"):
            return job is not None
        if action == "pager":
            return marked or job is not None
        if action == "merge_logs":
            return self._detail is not None and job is not None
        if action == "shell":
            return job is not None and (not job.state.finished or job.held)
        if action == "rerun_fresh":
            return job is not None and has_project(job)
        if action == "repeat":
            return self._repetition is not None or (job is not None and has_project(job))
        if action == "add_packages":
            return self._detail is not None and bool(self._detail.to_add)
        if action in ("find", "order", "reverse", "group", "columns", "compare"):
            return bool(self._listing.total)
        detail = self._detail
        if detail is None:
            if action in ("copy", "tab", "follow", "wrap", "stamps"):
                return False
        elif action in ("copy", "tab"):
            return job is not None
        elif action in ("follow", "wrap", "stamps"):
            return job is not None and detail.shows_log
        if action == "resize":
            return bool(self._listing.total) and self.maximized is None
        if action == "back":
            return self._filter.display or marked or not self.table.has_focus
        return True

    def offers(self, action: str) -> bool:
        job = self.job
        if action == "merge_logs":
            return len(self.table.marked) > 1
        if job is None and action == "compare":
            return bool(self.table.marked)
        if job is None or self.table.marked:
            return True
        if action == "stop":
            return not job.state.finished
        if action == "remove":
            return job.state.finished
        if action == "follow":
            return not job.state.finished or (
                self._detail is not None and not self._detail.log_view.follow
            )
        return True

    def action_find(self) -> None:
        if self._detail is not None and self._detail.log_view.has_focus:
            self._detail.pane.action_ask("find")
        else:
            self._filter.display = True
            self._place_split()
            self._filter.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input is not self._filter:
            return
        self._wanted = replace(self._wanted, words=event.value)
        self._read(keep_current=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input is not self._filter:
            return
        self._filter.display = bool(self._filter.value)
        self._place_split()
        self.table.focus()

    def action_back(self) -> None:
        """Go back one step: to the list, then remove the marks, then the filter."""
        if self._detail is not None and not self.table.has_focus:
            self._detail.show_own_log()
        if self._filter.has_focus or (self.table.has_focus and not self.table.marked):
            self._filter.value = ""
            self._filter.display = False
        elif self.table.has_focus:
            self.table.unmark()
        self.table.focus()

    def action_order(self) -> None:
        columns = self._columns
        now = self._wanted.order
        at = columns.index(now) + 1 if now in columns else 0
        self._arrange(order=columns[at % len(columns)], reverse=False)

    def sort_by(self, order: str) -> None:
        self._arrange(order=order, reverse=False)

    def group_by(self, group: str | None) -> None:
        self._arrange(group=group)

    def filter(self, words: str) -> None:
        """List the jobs that match, or all without words."""
        self._filter.value = words
        self._filter.display = bool(words)
        self._place_split()
        self.table.focus()

    def action_reverse(self) -> None:
        self._arrange(reverse=not self._wanted.reverse)

    def action_group(self) -> None:
        groups = [None, *GROUPS]
        at = groups.index(self._wanted.group) + 1
        self._arrange(group=groups[at % len(groups)])

    def action_columns(self) -> None:
        from tui.jobs.column_dialog import Columns

        self.app.push_screen(Columns(self._columns, self._arrange))

    # `check_action` offers the following actions only once the details are mounted.

    def action_follow(self) -> None:
        self.detail.log_view.toggle_follow()

    def action_wrap(self) -> None:
        self.detail.pane.toggle_wrap()

    def action_stamps(self) -> None:
        self.detail.log_view.stamps = not self.detail.log_view.stamps

    def action_tab(self, step: int) -> None:
        self.detail.step(step)

    def action_copy(self) -> None:
        """Copy lines of the log if it has the focus, a part of the request, or the job id."""
        log, job = self.detail.log_view, self.job
        source = log.copy_source() if log.has_focus or log.selecting else None
        if source is None and (selected := self.get_selected_text()):
            source = "selection", lambda: selected
        parts = {} if source else self.detail.copies()
        if parts:
            from tui.dialogs.copy import Copy

            def picked(what: str | None) -> None:
                if what is not None:
                    self._copy(what, parts[what])

            self.app.push_screen(Copy(tuple(parts)), picked)
            return
        self._copy(*(source or ("job id", lambda: job.id if job else "")))

    def _copy(self, what: str, read: Callable[[], str]) -> None:
        from tui.terminal import clipboard

        def copied(route: str) -> None:
            self.notify(f"{what}: {route}", markup=False, timeout=4)
            self.clear_selection()
            self.detail.log_view.drop_selection()

        on_thread(self, lambda: clipboard.copy(self.app, read()), copied, self.show_error)

    def action_copy_text(self) -> None:
        if self._detail is None or not (
            self._detail.log_view.selecting or self.get_selected_text()
        ):
            raise SkipAction
        self.action_copy()

"""Jobs: the list and, beside or below it, the chosen job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events, on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from stoke.errors import RequestError, StokeError
from stoke.history.job import Job
from stoke.history.listing import FILTER_HINT, GROUPS, ORDERS, Listing, ListingQuery
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.jobs.columns import known
from tui.jobs.job_list import JobList
from tui.snapshot import Snapshot
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.line_input import SafeInput
from tui.widgets.top_bar import TopBar

# What the first frame does not show is imported when it is wanted: a start must not wait for it.
if TYPE_CHECKING:
    from textual.widgets import Input

    from stoke.request.spec import JobSpec
    from tui.jobs.bulk_actions import Deed, Outcome
    from tui.jobs.job_detail import JobDetail

TICK_SECONDS = 1.0
AGES_SECONDS = 20.0
REST_SECONDS = 0.06
"""For so long the cursor rests on a job before the job is shown: whoever holds a key down scrolls."""
_NONE_YET = "No jobs yet.\n\nPress 2 to write one, or in a shell:\n\nstoke run -c 'print(1)'"


class JobsScreen(StokeScreen):
    CHANGES = frozenset({"stop", "rerun", "edit", "remove"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", id="jobs.find"),
        # The second keys work in the log too, where the first save it and find errors.
        Binding("s,ctrl+k", "stop", "Stop", id="jobs.stop"),
        Binding("r", "rerun", "Run again", id="jobs.rerun"),
        Binding("e,ctrl+e", "edit", "Edit and run", id="jobs.edit"),
        Binding("d", "remove", "Remove", id="jobs.remove"),
        Binding("c", "compare", "Compare", id="jobs.compare"),
        Binding("o", "order", "Sort by the next column", show=False, id="jobs.order"),
        Binding("O", "reverse", "Sort the other way", show=False, id="jobs.reverse"),
        Binding("b", "group", "Group by state, by backend", show=False, id="jobs.group"),
        Binding("C", "columns", "Columns", show=False, id="jobs.columns"),
        Binding("f", "follow", "Follow", id="jobs.follow"),
        Binding("w", "wrap", "Wrap", show=False, id="jobs.wrap"),
        Binding("t", "stamps", "Timestamps", show=False, id="jobs.timestamps"),
        Binding("y", "copy", "Copy", show=False, id="jobs.copy"),
        Binding("left_square_bracket", "tab(-1)", "Previous tab", show=False, id="jobs.tab_back"),
        Binding("right_square_bracket", "tab(1)", "Next tab", show=False, id="jobs.tab_on"),
        Binding("escape", "back", "Back", show=False, id="jobs.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._snapshot = Snapshot()
        self._listing = Listing(self.stoke.reading)
        self._wanted = ListingQuery()
        self._columns = known(None)
        self._trouble: StokeError | None = None
        self._detail: JobDetail | None = None
        self._watched: str | None = None
        self._to_log = False
        self._offered: tuple[bool, ...] = ()
        self._counts = ""
        self._troubled = True
        self._ages_at = 0.0

    def compose(self) -> ComposeResult:
        yield TopBar("jobs")
        with Container(id="jobs-body"):
            with Vertical(id="jobs-side"):
                yield SafeInput(id="jobs-filter", placeholder=FILTER_HINT, compact=True)
                yield JobList(self._listing, id="jobs-table")
                yield Static(Text(_NONE_YET), id="jobs-empty")
            yield Vertical(id="jobs-detail")
        yield Static(id="jobs-troubles", classes="troubles")
        yield KeyBar()

    def on_mount(self) -> None:
        self._filter.display = False
        self._restore()
        self.table.focus()
        self._resting = self.set_interval(REST_SECONDS, self._show_job, pause=True)
        self.stoke.jobs_signal.subscribe(self, self._show)
        self.set_interval(TICK_SECONDS, self._tick)
        self._show(self.stoke.snapshot)

    async def furnish(self) -> None:
        """Brings what the first frame was shown without."""
        from tui.jobs.job_detail import JobDetail

        if not self.app.is_running:
            return  # It was ended already.
        detail = JobDetail(self.stoke.reading)
        await self.query_one("#jobs-detail").mount(detail)
        if not detail.app.is_running:
            return  # Or meanwhile.
        self._detail = detail
        self.stoke.service.choose(self.table.chosen)
        self._show_job()
        self._go_to_log()
        self.refresh_bindings()

    # --- parts ------------------------------------------------------------------------------------

    @property
    def table(self) -> JobList:
        return self.query_one(JobList)

    @property
    def _filter(self) -> Input:
        return self.query_one("#jobs-filter", SafeInput)

    @property
    def job(self) -> Job | None:
        """The chosen job, as it stands."""
        return self.table.job if self.is_mounted else None

    # --- the focus --------------------------------------------------------------------------------

    # Not :focus-within, for which all that is in there is styled anew wherever the focus moves in it.
    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def _frame_focus(self) -> None:
        for part in self.query("#jobs-side, #jobs-detail"):
            part.set_class(part.has_focus_within, "-focused")

    # --- the list ---------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Columns, order and groups are as they were left."""
        kept = self.stoke.kept("jobs")
        kept = kept if isinstance(kept, dict) else {}
        order, group = kept.get("order"), kept.get("group")
        self._columns = known(kept.get("columns"))
        self._wanted = ListingQuery(
            order=order if isinstance(order, str) and order in ORDERS else "age",
            reverse=kept.get("reverse") is True,
            group=group if isinstance(group, str) and group in GROUPS else None,
        )
        self._show_columns()

    def _arrange(self, columns: tuple[str, ...] | None = None, **wanted: object) -> None:
        """Shows the list in another way, and keeps it for the next start."""
        self._columns = columns or self._columns
        self._wanted = replace(self._wanted, **wanted)  # type: ignore[arg-type]
        how = {"columns": list(self._columns), **asdict(self._wanted)}
        del how["words"]
        self.stoke.keep(jobs=how)
        self._show_columns()
        self._read()

    def _show_columns(self) -> None:
        order = self._wanted.order
        falling = ORDERS[order].descending != self._wanted.reverse
        self.table.show_columns(self._columns, order, falling)

    def _read(self, keep_chosen: bool = True) -> None:
        """Reads the listing anew; while it cannot be read, what was shown stays."""
        self._ages_at = self.stoke.clock()
        try:
            self._listing.read(self._wanted, self._ages_at)
            self._trouble = None
        except StokeError as error:
            self._trouble = error
        # Of a history that cannot be read nobody knows that it is empty.
        table, some = self.table, bool(self._listing.total) or self._trouble is not None
        table.display = some
        self.query_one("#jobs-empty").display = not some
        self.query_one("#jobs-body").set_class(not some, "-empty")
        self.query_one("#jobs-detail").display = some
        table.stale = frozenset(job.id for job in self._snapshot.jobs if job.stale)
        table.show(self._ages_at, keep_chosen)
        self._show_counts()
        self._show_troubles()

    def _show_counts(self) -> None:
        listed, total = len(self._listing), self._listing.total
        parts = [fmt.count(total, "job") if listed == total else f"{listed:,} of {total:,} jobs"]
        if groups := self._listing.groups:
            # Its heading may be far above.
            group = groups[self._listing.group_of(self.table.cursor)]
            parts.append(f"{clean(group.name)} {group.jobs:,}")
        if marked := len(self.table.marked):
            parts.append(f"{marked:,} marked")
        counts = " · ".join(parts)
        if counts != self._counts:
            self._counts = counts
            self.query_one("#jobs-side").border_title = Content(counts)

    # --- showing ----------------------------------------------------------------------------------

    def watch_job(self, job_id: str) -> None:
        """Chooses this job as soon as the history shows it, and goes to its log."""
        self._watched, self._to_log = job_id, True
        self._go_to_log()
        self._show(self._snapshot)

    def _go_to_log(self) -> None:
        if self._to_log and self._detail is not None:
            self._to_log = False
            self._filter.value = ""
            self._filter.display = False
            self._detail.tabs.active = "tab-log"
            self._detail.log_view.focus()

    def _show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._read()
        if self._watched is not None:
            self.table.choose(self._watched)
            if self.table.chosen == self._watched:
                self._watched = None
        self._show_job()
        self._offer_keys()

    def _show_troubles(self) -> None:
        if not (self._snapshot.troubles or self._trouble or self._troubled):
            return
        troubles = dict(self._snapshot.troubles)
        if self._trouble is not None:
            troubles["history"] = self._trouble
        text = Text("\n").join(
            Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.plain(error.what, "red"), " ",
                          fmt.plain(error.hint or ""))
            for name, error in troubles.items()
        )  # fmt: skip
        self._troubled = bool(troubles)
        line = self.query_one("#jobs-troubles", Static)
        line.display = bool(text.plain)
        line.update(text)

    def _show_job(self) -> None:
        self._resting.pause()
        if self._detail is not None:
            self._detail.show(self.job, self.stoke.clock())

    def _tick(self) -> None:
        now = self.stoke.clock()
        if self._trouble is not None:
            self._read()
        unfinished = any(not job.state.finished for job in self._snapshot.jobs)
        if unfinished or now - self._ages_at >= AGES_SECONDS:
            self._ages_at = now
            self.table.show(now)
        if self._detail is not None:
            self._detail.tick(now)

    @on(JobList.Chosen)
    def _chosen(self, event: JobList.Chosen) -> None:
        self._show_counts()
        if self._detail is not None:
            self.stoke.service.choose(event.job_id)
            self._resting.reset()
            self._resting.resume()
        self._offer_keys()

    @on(JobList.Marked)
    def _marked(self) -> None:
        self._show_counts()
        self._offer_keys()

    @on(JobList.Selected)
    def _enter(self) -> None:
        if self._detail is not None:
            self._show_job()
            self._detail.enter()

    @on(JobList.HeadClicked)
    def _sort_by(self, event: JobList.HeadClicked) -> None:
        if event.column == self._wanted.order:
            self.action_reverse()
        else:
            self._arrange(order=event.column, reverse=False)

    # --- keys -------------------------------------------------------------------------------------

    def _offer_keys(self) -> None:
        """Has the footer drawn again if other keys work now: that costs more than moving the cursor."""
        job = self.job
        state = (
            job is not None,
            job is not None and job.state.finished,
            bool(self.table.marked),
            bool(self._listing.total),
        )
        if state != self._offered:
            self._offered = state
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if not self.is_mounted:
            return True
        job = self.job
        marked = bool(self.table.marked)
        if action == "stop":
            return marked or (job is not None and not job.state.finished)
        if action == "remove":
            return marked or (job is not None and job.state.finished)
        if action in ("rerun", "edit"):
            return job is not None
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
        if action == "back":
            return self._filter.display or marked or not self.table.has_focus
        return True

    def action_find(self) -> None:
        if self._detail is not None and self._detail.log_view.has_focus:
            self._detail.pane.action_ask("find")
        else:
            self._filter.display = True
            self._filter.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input is not self._filter:
            return
        self._wanted = replace(self._wanted, words=event.value)
        self._read(keep_chosen=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input is not self._filter:
            return
        self._filter.display = bool(self._filter.value)
        self.table.focus()

    def action_back(self) -> None:
        """One step: out of the filter or the job, then the marks go, then the filter."""
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

    def action_reverse(self) -> None:
        self._arrange(reverse=not self._wanted.reverse)

    def action_group(self) -> None:
        groups = [None, *GROUPS]
        at = groups.index(self._wanted.group) + 1
        self._arrange(group=groups[at % len(groups)])

    def action_columns(self) -> None:
        from tui.jobs.column_dialog import Columns

        self.app.push_screen(Columns(self._columns, self._arrange))

    # What follows is not offered before the detail is there.

    @property
    def detail(self) -> JobDetail:
        assert self._detail is not None
        return self._detail

    def action_follow(self) -> None:
        self.detail.log_view.toggle_follow()

    def action_wrap(self) -> None:
        self.detail.log_view.wrap = not self.detail.log_view.wrap

    def action_stamps(self) -> None:
        self.detail.log_view.stamps = not self.detail.log_view.stamps

    def action_tab(self, step: int) -> None:
        self.detail.step(step)

    def action_copy(self) -> None:
        """The log's lines where it has the focus, of the request what one chooses, else the id."""
        log, job = self.detail.log_view, self.job
        chosen = log.chosen() if log.has_focus or log.selecting else None
        offered = {} if chosen else self.detail.copies()
        if offered:
            from tui.dialogs.copy import Copy

            def picked(what: str | None) -> None:
                if what is not None:
                    self._copy(what, offered[what])

            self.app.push_screen(Copy(tuple(offered)), picked)
            return
        self._copy(*(chosen or ("job id", lambda: job.id if job else "")))

    def _copy(self, what: str, read: Callable[[], str]) -> None:
        from tui.terminal import clipboard

        def copied(route: str) -> None:
            self.app.notify(f"{what}: {route}", markup=False, timeout=4)
            self.detail.log_view.drop_selection()

        on_thread(self, lambda: clipboard.copy(self.app, read()), copied, self.stoke.show_error)

    def action_copy_text(self) -> None:
        if self._detail is None or not self._detail.log_view.selecting:
            raise SkipAction
        self.action_copy()

    # --- deeds ------------------------------------------------------------------------------------

    def action_stop(self) -> None:
        from tui.jobs.bulk_actions import stopping

        app = self.stoke
        self._to_jobs(
            lambda jobs: stopping(jobs, app.service.backends, app.history, app.config.stop_grace)
        )

    def action_remove(self) -> None:
        from tui.jobs.bulk_actions import removing

        self._to_jobs(lambda jobs: removing(jobs, self.stoke.service.backends, self.stoke.history))

    def _to_jobs(self, plan: Callable[[list[Job]], Deed]) -> None:
        """Asks, and does it to the marked jobs, or to the chosen one where none is marked."""
        from tui.dialogs.prompts import Confirm

        marked, chosen = tuple(self.table.marked), self.table.chosen
        wanted = marked or ((chosen,) if chosen is not None else ())

        def ask(deed: Deed) -> None:
            if not deed.jobs:
                self.app.notify("there is no such job among the marked", timeout=4)
                return

            def answered(yes: bool | None) -> None:
                if yes:
                    on_thread(self, deed.outcome, ended, self.stoke.show_error)

            def ended(outcome: Outcome) -> None:
                well = outcome.well
                if well:
                    what = clean(well[0]) if len(well) == 1 else fmt.count(len(well), "job")
                    said = "".join(f". {clean(one)}" for one in outcome.said)
                    text = f"{what}: {deed.done}{said}"
                    self.app.notify(text, markup=False, timeout=8 if said else 3)
                    self.table.unmark(well)
                for error in outcome.wrong[:3]:
                    self.stoke.show_error(error)
                if len(outcome.wrong) > 3:
                    self.stoke.show_error(StokeError(f"and {len(outcome.wrong) - 3:,} more"))
                self.stoke.service.look_now()

            self.app.push_screen(Confirm(deed.title, deed.body, deed.verb), answered)

        on_thread(self, lambda: plan(self.stoke.reading.those(wanted)), ask, self.stoke.show_error)

    def action_compare(self) -> None:
        """The two marked jobs, the older first; or the chosen one with a marked one, or, where none
        is marked, with the run before it."""
        from stoke.jobs.compare import Comparison, compare
        from tui.jobs.compare import CompareScreen

        reading, chosen = self.stoke.reading, self.table.chosen
        ids = tuple(self.table.marked)
        if len(ids) < 2 and chosen is not None and chosen not in ids:
            ids = (*ids, chosen)

        def work() -> tuple[Comparison, Comparison]:
            jobs = reading.those(ids)
            if len(jobs) == 1 and (before := reading.run_before(jobs[0])) is not None:
                jobs.append(before)
            if len(jobs) != 2:
                raise StokeError(
                    "two jobs are compared, no more and no fewer",
                    "mark two with space, or one and stand on the other",
                )
            second, first = jobs
            return compare(first, second, reading), compare(second, first, reading)

        def show(found: tuple[Comparison, Comparison]) -> None:
            self.app.push_screen(CompareScreen(*found))

        on_thread(self, work, show, self.stoke.show_error)

    def action_rerun(self) -> None:
        job = self.job
        if job is not None and (spec := self._spec(job)) is not None:
            self.stoke.submit(job.backend, spec, job.name, self.stoke.show_error)

    def action_edit(self) -> None:
        job = self.job
        if job is not None and (spec := self._spec(job)) is not None:
            self.stoke.edit(spec, job.name, job.backend)

    def _spec(self, job: Job) -> JobSpec | None:
        """Its request; says why if there is none to be had."""
        from tui.jobs.job_detail import read_spec

        spec = read_spec(self.stoke.reading, job.id)
        if isinstance(spec, RequestError):
            self.stoke.show_error(spec)
            return None
        return spec

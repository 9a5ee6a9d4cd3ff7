"""Details of a job: its log, phases and request in tabs. The frame around it has the title.

A sweep has no log and no phases; it has a tab with its tasks in their place.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static, TabbedContent, TabPane

from stoke.errors import RequestError, StokeError
from stoke.files.paths import current_folder
from stoke.history.database import History
from stoke.history.job import SWEEP, Job, JobState, beyond_reason
from stoke.history.usage import UsageCurves
from stoke.jobs.missing_module import packages_to_add
from stoke.request.spec import JobSpec
from stoke.request.stored import read_stored_spec
from stoke.request.undeclared_packages import Package
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.context import Context
from tui.jobs.columns import STATES, state_mark
from tui.jobs.results_view import ResultsView
from tui.jobs.spec_view import Copies, SpecView
from tui.jobs.sweep_view import SweepView
from tui.log.pane import LogPane
from tui.log.view import LogView
from tui.threads import on_thread
from tui.widgets.usage_curve import UsageCurve
from tui.widgets.waterfall import Waterfall

_TABS = {
    "tab-log": "Log",
    "tab-phases": "Phases",
    "tab-spec": "Spec",
    "tab-results": "Results",
}
_SWEEP_TABS = {"tab-tasks": "Tasks", "tab-spec": "Spec"}


_STATE_WIDTH = 24
"""The part of the title that a long name leaves to the state: `✓ succeeded? exit 143`."""
_LEAST_NAME = 20


class JobDetail(Vertical):
    def __init__(self, context: Context) -> None:
        super().__init__(id="job-detail")
        self.context = context
        self._job: Job | None = None
        self._now = 0.0
        self._spec_of: str | None = None
        self._ended: tuple[str, JobState] | None = None
        self.to_add: tuple[Package, ...] = ()
        """The packages whose absence ended the job, with what else its code imports."""

    def compose(self) -> ComposeResult:
        yield Static(id="job-reason")
        with Horizontal(id="job-head"):
            yield TabNames()
            header = Static(id="log-header")
            yield header
        with TabbedContent(id="job-tabs"):
            with TabPane("Log", id="tab-log"):
                with Vertical(id="log-summary"):
                    yield Waterfall(id="log-phases", brief=True)
                    yield UsageCurve(id="log-usage")
                yield LogPane(
                    self.context.jobs.locations.of,
                    header,
                    lambda job_id: read_spec(self.context.reading, job_id),
                    id="log-pane",
                )
            with (
                TabPane("Phases", id="tab-phases"),
                VerticalScroll(id="phases-scroll"),
            ):
                yield UsageCurve(id="usage")
                yield Waterfall(id="waterfall")
            with TabPane("Spec", id="tab-spec"):
                yield SpecView(self.context, id="spec-view")
            with TabPane("Tasks", id="tab-tasks"):
                yield SweepView(self.context, id="sweep-view")
            with TabPane("Results", id="tab-results"):
                yield ResultsView(self.context, id="results-view")

    @property
    def job(self) -> Job | None:
        return self._job

    @property
    def tabs(self) -> TabbedContent:
        return self.query_one("#job-tabs", TabbedContent)

    @property
    def pane(self) -> LogPane:
        return self.query_one(LogPane)

    @property
    def log_view(self) -> LogView:
        return self.pane.view

    @property
    def shows_log(self) -> bool:
        return self.tabs.active == "tab-log"

    def copies(self) -> Copies:
        """Return what of the request can be copied; nothing while another tab is shown."""
        if self.tabs.active == "tab-results":
            return self.query_one(ResultsView).copies()
        return self.query_one(SpecView).copies() if self.tabs.active == "tab-spec" else {}

    # --- showing ----------------------------------------------------------------------------------

    def show(self, job: Job | None, now: float) -> None:
        """Show a job; `now` is in epoch seconds."""
        self._job, self._now = job, now
        self.pane.show(job)
        tabs = self._tabs()
        if self.tabs.active not in tabs:
            self.tabs.active = next(iter(tabs))
        self.query_one(TabNames).show(self.tabs.active, tabs)
        self._look_for_missing(job)
        self._show_reason()
        self._show_tab()

    def show_merged_log(self, jobs: list[Job]) -> None:
        """Show the logs of these jobs as one, until there is another current job.

        Raises `StokeError` if they cannot be merged.
        """
        self.pane.show_merged(jobs, lambda ids: self.context.reading.those(ids))
        self.tabs.active = "tab-log"
        self.pane.enter()
        self._show_reason()
        self._show_tab()

    def show_own_log(self) -> None:
        """Show the log of the current job in place of a merged one."""
        if self.pane.merging is not None:
            self.pane.show_own()
            self._show_reason()
            self._show_tab()

    @property
    def _shows_merged(self) -> bool:
        return self.pane.merging is not None and self.shows_log

    def _title(self, width: int) -> Content | str:
        if self.pane.merging is not None and self.shows_log:
            return _merged_title(self.pane.merging.jobs)
        if self._job is None:
            return ""
        return _title(self._job, max(_LEAST_NAME, width - _STATE_WIDTH))

    def _look_for_missing(self, job: Job | None) -> None:
        """Look once, on a thread, for the module that a failed job lacked."""
        ended = (job.id, job.state) if job and not job.provisional else None
        if ended == self._ended:
            return
        self._ended, self.to_add = ended, ()
        if job is None or ended is None or job.state is not JobState.FAILED or job.exit_code != 1:
            return

        def look() -> list[Package]:
            spec = read_spec(self.context.reading, job.id)
            if isinstance(spec, RequestError):
                return []
            log = self.context.jobs.locations.of(job.id)
            return packages_to_add(job, spec, log, current_folder())

        def done(packages: list[Package]) -> None:
            if ended == self._ended and packages:
                self.to_add = tuple(packages)
                self._show_reason()
                self.screen.refresh_bindings()

        on_thread(self, look, done, lambda _: None)  # It is an offer, and the log has the error.

    def tick(self, now: float) -> None:
        """Update the times of an unfinished job."""
        self._now = now
        if self._job is not None and not self._job.state.finished:
            self._show_tab()

    def _show_reason(self) -> None:
        job = self._job
        frame = self.parent
        if isinstance(frame, Widget):
            frame.border_title = self._title(frame.size.width)
        line = self.query_one("#job-reason", Static)
        reason = job.reason if job else None
        line.display = bool(reason or self.to_add) and not self._shows_merged
        text = Text()
        if job is not None and reason:
            text.append_text(fmt.plain(reason, "$bad" if job.state == JobState.FAILED else "$warn"))
        if self.to_add:
            names = ", ".join(package.name + package.doubt for package in self.to_add)
            text.append("\n" if reason else "")
            text.append_text(fmt.plain(f"f6 adds {names} and runs again", "$warn"))
        line.update(text)

    @on(TabbedContent.TabActivated)
    def _tab_changed(self) -> None:
        self.query_one(TabNames).show(self.tabs.active, self._tabs())
        self.query_one("#log-header").visible = self.shows_log
        self._show_reason()
        self._show_tab()
        self.screen.refresh_bindings()

    def _show_tab(self) -> None:
        """Look up only what the active tab shows."""
        job = self._job
        if self.tabs.active == "tab-log":
            has_phases = job is not None and bool(job.phases) and not self._shows_merged
            self.query_one("#log-summary").set_class(not has_phases, "-none")
            if has_phases:
                self.query_one("#log-phases", Waterfall).show(job, (), self._now)
                self._show_usage("#log-usage")
        elif self.tabs.active == "tab-phases":
            self._show_usage("#usage")
            self.query_one("#waterfall", Waterfall).show(job, self._notes(), self._now)
        elif self.tabs.active == "tab-results":
            if job is not None:
                self.query_one(ResultsView).show(job)
        elif self.tabs.active == "tab-tasks":
            if job is not None and job.kind == SWEEP:
                self.query_one(SweepView).show(job)
        elif self.tabs.active == "tab-spec" and job is not None and job.id != self._spec_of:
            self._spec_of = job.id
            self.query_one(SpecView).show(job, read_spec(self.context.reading, job.id))

    def _show_usage(self, selector: str) -> None:
        job = self._job
        try:
            curve = UsageCurves(self.context.reading).of(job.id) if job else []
        except StokeError:
            curve = []  # The screen shows errors of the history.
        is_live = job is not None and job.state is JobState.RUNNING
        self.query_one(selector, UsageCurve).show(curve, is_live)

    def _notes(self) -> list[str]:
        """Return the notes and errors that the runner reported, and their hints."""
        try:
            notes = self.context.reading.notes(self._job.id) if self._job else []
        except StokeError:
            return []  # The screen shows errors of the history.
        reason = self._job.reason if self._job else None
        texts = [text for note in notes for text in (beyond_reason(note.text, reason), note.hint)]
        return list(dict.fromkeys(text for text in texts if text))

    def _tabs(self) -> dict[str, str]:
        """Return the tabs of the job: that of results only if it has some, or if it is shown."""
        job = self._job
        if job is not None and job.kind == SWEEP and self.pane.merging is None:
            return _SWEEP_TABS
        has_results = job is not None and bool(job.results_files or job.results_problem)
        shows = has_results or self.tabs.active == "tab-results"
        return {tab: name for tab, name in _TABS.items() if tab != "tab-results" or shows}

    # --- moving -----------------------------------------------------------------------------------

    def enter(self) -> None:
        """Focus the contents of the active tab."""
        if self.tabs.active == "tab-phases":
            self.query_one("#phases-scroll").focus()
        elif self.tabs.active == "tab-spec":
            self.query_one(SpecView).focus()
        elif self.tabs.active == "tab-tasks":
            self.query_one(SweepView).focus()
        elif self.tabs.active == "tab-results":
            self.query_one(ResultsView).enter()
        else:
            self.pane.enter()

    def step(self, by: int) -> None:
        """Go to another tab, with the focus if the focus was inside the tabs."""
        focused = self.screen.focused
        inside = focused is not None and self.tabs in focused.ancestors
        names = list(self._tabs())
        at = names.index(self.tabs.active) if self.tabs.active in names else 0
        self.tabs.active = names[(at + by) % len(names)]
        if inside:
            self.enter()


class TabNames(Static):
    """The names of the tabs, with the active one highlighted. A click shows a tab."""

    def __init__(self) -> None:
        super().__init__(id="job-tab-names")
        self._ends: list[tuple[int, str]] = []
        self._shown: tuple[str, Mapping[str, str]] | None = None

    def show(self, active: str, tabs: Mapping[str, str]) -> None:
        if self._shown == (active, tabs):
            return
        self._shown = (active, tabs)
        text = Content()
        self._ends = []
        for tab, name in tabs.items():
            text += Content.styled(
                f" {name} ", "bold $on-raised on $raised" if tab == active else "$quiet"
            )
            self._ends.append((len(text), tab))
        self.update(text)

    def on_click(self, event: events.Click) -> None:
        for end, tab in self._ends:
            if event.x < end:
                self.screen.query_one("#job-tabs", TabbedContent).active = tab
                return


def _title(job: Job, width: int) -> Content:
    """Return the name of a job in at most `width` cells, and its state."""
    words, style = STATES[job.state]
    parts: list[Content | tuple[str, str] | str] = [
        (fmt.cut(clean(job.id), width), "bold"), " ", (words + state_mark(job), style),
    ]  # fmt: skip
    if job.exit_code is not None:
        parts.append(f" exit {job.exit_code}")
    if job.stale:
        parts.append((" (unconfirmed: backend not answering)", "$warn"))
    return Content.assemble(*parts)


def _merged_title(jobs: list[Job]) -> Content:
    names = ", ".join(clean(job.name) for job in jobs)
    return Content.assemble((f"{len(jobs)} logs as one", "bold"), " ", (names, "$quiet"))


def read_spec(history: History, job_id: str) -> JobSpec | RequestError:
    """Return the request of a job, or the error that prevents it."""
    try:
        return read_stored_spec(history.spec(job_id))
    except RequestError as error:
        return error
    except StokeError as error:
        return RequestError("spec", error.what, error.hint)

"""Details of a job: its title, and its log, phases and request in tabs."""

from __future__ import annotations

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static, TabbedContent, TabPane

from stoke.errors import RequestError, StokeError
from stoke.files.paths import current_folder
from stoke.history.database import History
from stoke.history.job import Job, JobState, beyond_reason
from stoke.jobs.missing_module import packages_to_add
from stoke.request.imports import Package
from stoke.request.spec import JobSpec
from stoke.request.stored import read_stored_spec
from tui import format as fmt
from tui.context import Context
from tui.jobs.columns import state_text
from tui.jobs.spec_view import Copies, SpecView
from tui.log.pane import LogPane
from tui.log.view import LogView
from tui.threads import on_thread
from tui.widgets.waterfall import Waterfall

_TABS = ("tab-log", "tab-phases", "tab-spec")


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
        yield Static(id="job-title")
        with TabbedContent(id="job-tabs"):
            with TabPane("Log", id="tab-log"):
                yield LogPane(lambda job_id: self.context.jobs.locations.of(job_id), id="log-pane")
            with (
                TabPane("Phases", id="tab-phases"),
                VerticalScroll(id="phases-scroll"),
            ):
                yield Waterfall(id="waterfall")
            with TabPane("Spec", id="tab-spec"):
                yield SpecView(self.context, id="spec-view")

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
        return self.query_one(SpecView).copies() if self.tabs.active == "tab-spec" else {}

    # --- showing ----------------------------------------------------------------------------------

    def show(self, job: Job | None, now: float) -> None:
        """Show a job; `now` is in epoch seconds."""
        self._job, self._now = job, now
        self.pane.show(job)
        self._look_for_missing(job)
        self._show_title()
        self._show_tab()

    def _show_title(self) -> None:
        title = _title(self._job, self.to_add) if self._job else Text()
        self.query_one("#job-title", Static).update(title)

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
                self._show_title()
                self.screen.refresh_bindings()

        on_thread(self, look, done, lambda _: None)  # It is an offer, and the log has the error.

    def tick(self, now: float) -> None:
        """Update the times of an unfinished job."""
        self._now = now
        if self._job is not None and not self._job.state.finished:
            self._show_tab()

    @on(TabbedContent.TabActivated)
    def _tab_changed(self) -> None:
        self._show_tab()
        self.screen.refresh_bindings()

    def _show_tab(self) -> None:
        """Look up only what the active tab shows."""
        job = self._job
        if self.tabs.active == "tab-phases":
            self.query_one(Waterfall).show(job, self._notes(), self._now)
        elif self.tabs.active == "tab-spec" and job is not None and job.id != self._spec_of:
            self._spec_of = job.id
            self.query_one(SpecView).show(job, read_spec(self.context.reading, job.id))

    def _notes(self) -> list[str]:
        """Return the notes and errors that the runner reported, and their hints."""
        try:
            notes = self.context.reading.notes(self._job.id) if self._job else []
        except StokeError:
            return []  # The screen shows errors of the history.
        reason = self._job.reason if self._job else None
        texts = [text for note in notes for text in (beyond_reason(note.text, reason), note.hint)]
        return list(dict.fromkeys(text for text in texts if text))

    # --- moving -----------------------------------------------------------------------------------

    def enter(self) -> None:
        """Focus the contents of the active tab."""
        if self.tabs.active == "tab-phases":
            self.query_one("#phases-scroll").focus()
        elif self.tabs.active == "tab-spec":
            self.query_one(SpecView).focus()
        else:
            self.pane.enter()

    def step(self, by: int) -> None:
        """Go to another tab, with the focus if the focus was inside the tabs."""
        focused = self.screen.focused
        inside = focused is not None and self.tabs in focused.ancestors
        at = _TABS.index(self.tabs.active) if self.tabs.active in _TABS else 0
        self.tabs.active = _TABS[(at + by) % len(_TABS)]
        if inside:
            self.enter()


def _title(job: Job, to_add: tuple[Package, ...]) -> Text:
    text = Text.assemble(fmt.plain(job.id, "bold"), " ", state_text(job))
    if job.exit_code is not None:
        text.append(f" exit {job.exit_code}")
    if job.stale:
        text.append(" (unconfirmed: backend not answering)", style="$warn")
    if job.reason:
        text.append("\n")
        text.append_text(fmt.plain(job.reason, "$bad" if job.state == "failed" else "$warn"))
    if to_add:
        names = ", ".join(package.name + package.doubt for package in to_add)
        text.append("\n")
        text.append_text(fmt.plain(f"+ adds {names} and runs again", "$warn"))
    return text


def read_spec(history: History, job_id: str) -> JobSpec | RequestError:
    """Return the request of a job, or the error that prevents it."""
    try:
        return read_stored_spec(history.spec(job_id))
    except RequestError as error:
        return error
    except StokeError as error:
        return RequestError("spec", error.what, error.hint)

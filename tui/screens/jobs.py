"""Jobs: the list and, beside or below it, the chosen job."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from stoke import lifecycle
from stoke.errors import RequestError, StokeError
from stoke.job import Job
from stoke.logs.sanitise import clean
from stoke.spec import JobSpec, make_spec
from tui import clipboard
from tui import format as fmt
from tui.jobs_service import Snapshot
from tui.screens.base import StokeScreen
from tui.screens.dialogs import Confirm
from tui.threads import on_thread
from tui.widgets.editing import SafeInput
from tui.widgets.job_table import JobTable, state_text
from tui.widgets.log_pane import LogPane
from tui.widgets.spec_view import SpecView
from tui.widgets.top_bar import TopBar
from tui.widgets.waterfall import Waterfall

TICK_SECONDS = 1.0
AGES_SECONDS = 20.0
_TABS = ("tab-log", "tab-phases", "tab-spec")
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
        self._wanted: str | None = None
        self._spec_of: str | None = None
        self._ages_at = 0.0

    def compose(self) -> ComposeResult:
        yield TopBar("jobs")
        with Container(id="jobs-body"):
            with Vertical(id="jobs-side"):
                yield SafeInput(id="jobs-filter", placeholder="filter the list", compact=True)
                yield JobTable(id="jobs-table")
                yield Static(Text(_NONE_YET), id="jobs-empty")
            with Vertical(id="jobs-detail"):
                yield Static(id="job-title")
                with TabbedContent(id="job-tabs"):
                    with TabPane("Log", id="tab-log"):
                        yield LogPane(id="log-pane")
                    with (
                        TabPane("Phases", id="tab-phases"),
                        VerticalScroll(id="phases-scroll"),
                    ):
                        yield Waterfall(id="waterfall")
                    with TabPane("Spec", id="tab-spec"):
                        yield SpecView(id="spec-view")
        yield Static(id="jobs-troubles", classes="troubles")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self._filter.display = False
        self.table.focus()
        self.stoke.jobs_signal.subscribe(self, self._show)
        self.set_interval(TICK_SECONDS, self._tick)
        self._show(self.stoke.snapshot)

    # --- parts ------------------------------------------------------------------------------------

    @property
    def table(self) -> JobTable:
        return self.query_one(JobTable)

    @property
    def _filter(self) -> Input:
        return self.query_one("#jobs-filter", Input)

    @property
    def _log(self) -> LogPane:
        return self.query_one(LogPane)

    @property
    def _tabs(self) -> TabbedContent:
        return self.query_one("#job-tabs", TabbedContent)

    @property
    def job(self) -> Job | None:
        """The chosen job, as it stands."""
        if not self.is_mounted:
            return None
        chosen = self.table.chosen
        return next((job for job in self._snapshot.jobs if job.id == chosen), None)

    # --- showing ----------------------------------------------------------------------------------

    def watch_job(self, job_id: str) -> None:
        """Chooses this job as soon as the history shows it, and goes to its log."""
        self._wanted = job_id
        self._filter.value = ""
        self._filter.display = False
        self._tabs.active = "tab-log"
        self._log.view.focus()
        self._show(self._snapshot)

    def _show(self, snapshot: Snapshot) -> None:
        before = self._keys_for(self.job)
        self._snapshot = snapshot
        self._show_list()
        if self._wanted is not None and any(job.id == self._wanted for job in snapshot.jobs):
            self.table.choose(self._wanted)
            self._wanted = None
        self._show_troubles()
        self._show_job()
        if self._keys_for(self.job) != before:
            self.refresh_bindings()

    def _show_list(self) -> None:
        wanted = self._filter.value.lower().split()
        jobs = [
            job
            for job in self._snapshot.jobs
            if all(
                word in f"{job.id} {job.name} {job.state} {job.backend} {job.scope}".lower()
                for word in wanted
            )
        ]
        some = bool(self._snapshot.jobs)
        self.table.display = some
        self.query_one("#jobs-empty").display = not some
        self.query_one("#jobs-body").set_class(not some, "-empty")
        self.query_one("#jobs-detail").display = some
        self._ages_at = self.stoke.clock()
        self.table.show(jobs, self._ages_at)

    def _show_troubles(self) -> None:
        text = Text("\n").join(
            Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.plain(error.what, "red"), " ",
                          fmt.plain(error.mend or ""))
            for name, error in self._snapshot.troubles
        )  # fmt: skip
        line = self.query_one("#jobs-troubles", Static)
        line.display = bool(text.plain)
        line.update(text)

    def _show_job(self) -> None:
        job = self.job
        self._log.show(job)
        self.query_one("#job-title", Static).update(self._title(job) if job else Text())
        notes = self.stoke.service.notes(job.id) if job else ()
        self.query_one(Waterfall).show(job, notes, self.stoke.clock())
        if job is not None and job.id != self._spec_of:
            self._spec_of = job.id
            self.query_one(SpecView).show(job, self._spec(job))

    def _title(self, job: Job) -> Text:
        text = Text.assemble(fmt.plain(job.id, "bold"), " ", state_text(job))
        if job.exit_code is not None:
            text.append(f" exit {job.exit_code}")
        if job.stale:
            text.append(" (not confirmed: its backend does not answer)", style="yellow")
        if job.reason:
            text.append("\n")
            text.append_text(fmt.plain(job.reason, "red" if job.state == "failed" else "yellow"))
        return text

    def _spec(self, job: Job) -> JobSpec | RequestError | None:
        try:
            stored = self.stoke.history.spec(job.id)
            return make_spec(json.loads(stored)) if stored else None
        except RequestError as error:
            return error
        except (StokeError, ValueError) as error:
            return RequestError("spec", str(error))

    def _tick(self) -> None:
        unfinished = any(not job.state.finished for job in self._snapshot.jobs)
        if unfinished or self.stoke.clock() - self._ages_at >= AGES_SECONDS:
            self._show_list()
        job = self.job
        if job is not None and not job.state.finished:
            self.query_one(Waterfall).show(
                job, self.stoke.service.notes(job.id), self.stoke.clock()
            )

    @on(JobTable.Chosen)
    def _chosen(self, event: JobTable.Chosen) -> None:
        self.stoke.service.choose(event.job_id)
        self._show_job()
        self.refresh_bindings()

    @on(DataTable.RowSelected)
    def _enter(self) -> None:
        self._focus_detail()

    @on(TabbedContent.TabActivated)
    def _tab_activated(self) -> None:
        self.refresh_bindings()

    def _focus_detail(self) -> None:
        parts = {"tab-log": "#log-view", "tab-phases": "#phases-scroll", "tab-spec": "#spec-view"}
        self.query_one(parts[self._tabs.active or "tab-log"]).focus()

    # --- keys -------------------------------------------------------------------------------------

    def _keys_for(self, job: Job | None) -> tuple[object, ...] | None:
        return (job.id, job.state, job.stop_requested) if job else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if not self.is_mounted:
            return True
        job = self.job
        if action == "stop":
            return job is not None and not job.state.finished
        if action == "remove":
            return job is not None and job.state.finished
        if action in ("rerun", "edit", "copy", "tab"):
            return job is not None
        if action in ("follow", "wrap", "stamps"):
            return job is not None and self._tabs.active == "tab-log"
        if action == "find":
            return bool(self._snapshot.jobs)
        if action == "back":
            return self._filter.display or not self.table.has_focus
        return True

    def action_find(self) -> None:
        if self._log.view.has_focus:
            self._log.action_ask("find")
        else:
            self._filter.display = True
            self._filter.focus()

    @on(Input.Changed, "#jobs-filter")
    def _filter_changed(self) -> None:
        self._show_list()

    @on(Input.Submitted, "#jobs-filter")
    def _filter_submitted(self) -> None:
        self._filter.display = bool(self._filter.value)
        self.table.focus()

    def action_back(self) -> None:
        if self._filter.has_focus or self.table.has_focus:
            self._filter.value = ""
            self._filter.display = False
        self.table.focus()

    def action_follow(self) -> None:
        self._log.view.toggle_follow()

    def action_wrap(self) -> None:
        self._log.view.wrap = not self._log.view.wrap

    def action_stamps(self) -> None:
        self._log.view.stamps = not self._log.view.stamps

    def action_tab(self, step: int) -> None:
        inside = self.focused is not None and self._tabs in self.focused.ancestors
        at = _TABS.index(self._tabs.active) if self._tabs.active in _TABS else 0
        self._tabs.active = _TABS[(at + step) % len(_TABS)]
        if inside:
            self._focus_detail()

    def action_copy(self) -> None:
        log, job = self._log.view, self.job
        chosen = log.chosen() if log.has_focus or log.selecting else None
        what, read = chosen or ("job id", lambda: job.id if job else "")

        def copied(route: str) -> None:
            self.app.notify(f"{what}: {route}", markup=False, timeout=4)
            log.drop_selection()

        on_thread(self, lambda: clipboard.copy(self.app, read()), copied, self.stoke.show_error)

    def action_copy_text(self) -> None:
        if not self._log.view.selecting:
            raise SkipAction
        self.action_copy()

    def action_stop(self) -> None:
        job = self.job
        if job is None:
            return
        grace = fmt.duration(self.stoke.config.stop_grace)
        body = Text.assemble(
            fmt.plain(job.id, "bold"),
            f"\n\nIts code is asked to end; after {grace} it is killed. The log and the caches stay.",
        )

        def do() -> str | None:
            backend = self.stoke.service.backends.get(job.backend)
            return lifecycle.stop(job, backend, self.stoke.history, self.stoke.config.stop_grace)

        self._ask("Stop this job?", body, "Stop", do, "stopping")

    def action_remove(self) -> None:
        job = self.job
        if job is None:
            return
        lines, log_size = f"{job.log_lines:,}", fmt.size(job.log_bytes)
        body = Text.assemble(
            fmt.plain(job.id, "bold"),
            f"\n\nIts log ({lines} lines, {log_size}), phases and request go. The caches stay.",
        )

        def do() -> None:
            lifecycle.remove(job, self.stoke.service.backends.get(job.backend), self.stoke.history)

        self._ask("Remove this job?", body, "Remove", do, "removed")

    def _ask(
        self, title: str, body: Text, verb: str, do: Callable[[], str | None], done: str
    ) -> None:
        job = self.job
        name = clean(job.id) if job else ""

        def finished(said: str | None) -> None:
            text = f"{name}: {done}" + (f". {clean(said)}" if said else "")
            self.app.notify(text, markup=False, timeout=8 if said else 3)
            self.stoke.service.look_now()

        def answered(yes: bool | None) -> None:
            if yes:
                on_thread(self, do, finished, self.stoke.show_error)

        self.app.push_screen(Confirm(title, body, verb), answered)

    def action_rerun(self) -> None:
        job = self.job
        if job is None:
            return
        spec = self._spec(job)
        if not isinstance(spec, JobSpec):
            self.stoke.show_error(spec or RequestError(job.id, "its engine kept no request"))
            return
        self.stoke.submit(job.backend, spec, job.name, self.stoke.show_error)

    def action_edit(self) -> None:
        job = self.job
        if job is None:
            return
        spec = self._spec(job)
        if not isinstance(spec, JobSpec):
            self.stoke.show_error(spec or RequestError(job.id, "its engine kept no request"))
            return
        self.stoke.edit(spec, job.name, job.backend)

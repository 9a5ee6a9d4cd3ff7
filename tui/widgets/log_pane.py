"""A job's log: its figures, the window over the spool, and the line that searches it."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from stoke.job import Job
from stoke.paths import job_dir
from tui import format as fmt
from tui.widgets.editing import SafeInput
from tui.widgets.log_view import LogView


class LogPane(Vertical):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close_search", "Close search", show=False, id="log.close_search"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._job: Job | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="log-header")
        yield LogView(id="log-view")
        yield SafeInput(id="log-find", placeholder="find in the log", compact=True)

    def on_mount(self) -> None:
        self.query_one("#log-find").display = False

    @property
    def view(self) -> LogView:
        return self.query_one(LogView)

    @property
    def find_input(self) -> Input:
        return self.query_one("#log-find", Input)

    def show(self, job: Job | None) -> None:
        """Shows this job's log; a job that is shown already keeps its place."""
        other = (job.id if job else None) != (self._job.id if self._job else None)
        self._job = job
        if other:
            self.find_input.display = False
            self.find_input.value = ""
            self.view.show(job_dir(job.id) if job else None)
        self._header()

    @on(LogView.Changed)
    def _header(self) -> None:
        view, job = self.view, self._job
        if job is None:
            self.query_one("#log-header", Static).update("")
            return
        lines = "line" if view.rows == 1 else "lines"
        gaps = "gap" if job.log_gaps == 1 else "gaps"
        text = Text(f"{view.rows:,} {lines} · {fmt.size(view.bytes)} · {job.log_gaps} {gaps}")
        if job.log_gaps:
            text.stylize("yellow")
        if not view.follow:
            text.append(f"  {view.below:,} below, f follows", style="yellow")
        elif not job.state.finished:
            text.append("  following", style="green")
        if view.search is not None:
            text.append("\n")
            text.append_text(self._found())
        self.query_one("#log-header", Static).update(text)

    def _found(self) -> Text:
        search = self.view.search
        assert search is not None
        text = fmt.plain(f"/{search.query} ", "bold")
        if search.rows:
            place = search.place(self.view.cursor)
            text.append(f"match {place if place else '-'}/{len(search.rows):,}", style="bold")
        else:
            text.append("searching" if self.view.searching else "not found", style="yellow")
        return text

    # --- searching --------------------------------------------------------------------------------

    def open_search(self) -> None:
        self.find_input.display = True
        self.find_input.focus()

    @on(Input.Submitted, "#log-find")
    def _search(self, event: Input.Submitted) -> None:
        event.stop()
        if not event.value:
            self.action_close_search()
            return
        self.find_input.display = False
        self.view.find(event.value)
        self.view.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action == "close_search":
            # False before the widgets are there: the footer may ask that early.
            return bool(self.children) and (self.find_input.display or self.view.search is not None)
        return True

    def action_close_search(self) -> None:
        self.find_input.display = False
        self.find_input.value = ""
        self.view.find("")
        self.view.focus()

"""The log of a job: a header, the window over the spool, and a prompt for search and the like."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from stoke.errors import RequestError
from stoke.files.paths import job_dir
from stoke.history.job import Job
from stoke.logs import reader
from stoke.logs.fallback import LogLocation
from stoke.logs.reader import Matches
from stoke.logs.search import Query
from stoke.logs.spool import ENGINE_LOG
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.dialogs.prompts import Confirm
from tui.log.view import LogView
from tui.notifications import show_error
from tui.threads import on_thread
from tui.widgets.line_input import SafeInput
from tui.widgets.path_input import path_of

MOST_ENGINE_BYTES = 256 * 1024
"""Bytes of the engine's own lines that are shown, from the end; usually there are few."""
# The most lines that the style sheet allows for the header.
MOST_HEADER_LINES = 3


class _Prompt(NamedTuple):
    sign: str
    placeholder: str
    takes_regex: bool = False


_PROMPTS = {
    "find": _Prompt("/", "search the log", takes_regex=True),
    "filter": _Prompt("&", "show matching lines only", takes_regex=True),
    "time": _Prompt("@", "12:03, 11-21 12:03, -5m from the end, +90s from the start"),
    "save": _Prompt("save as", "file name"),
}


class LogPane(Vertical):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ampersand", "ask('filter')", "Filter", id="log.filter"),
        Binding("at", "ask('time')", "Go to time", show=False, id="log.time"),
        Binding("s", "ask('save')", "Save", id="log.save"),
        Binding("x", "engine", "Lines of the engine", show=False, id="log.engine"),
        Binding("ctrl+r", "regex", "Regular expression", id="log.regex"),
        Binding("escape", "step_back", "Step back", show=False, id="log.step_back"),
    ]

    def __init__(self, location_of: Callable[[str], LogLocation], *, id: str | None = None) -> None:  # noqa: A002
        """`location_of` returns where the log of a job is, from the job's id."""
        super().__init__(id=id)
        self._location_of = location_of
        self._job: Job | None = None
        self._prompt = ""
        self._regex = {"find": False, "filter": False}
        self._keys: tuple[bool, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(id="log-header")
        yield LogView(id="log-view")
        with VerticalScroll(id="log-engine") as engine:
            yield Static()
        with Horizontal(id="log-prompt") as prompt:
            yield Static(id="log-prompt-sign")
            yield SafeInput(id="log-prompt-input", compact=True)
        engine.display = prompt.display = False

    def on_mount(self) -> None:
        self.watch(self.view, "changes", self._header)

    @property
    def _engine(self) -> VerticalScroll:
        return self.query_one("#log-engine", VerticalScroll)

    def enter(self) -> None:
        """Focus the log, or the lines of the engine if those are shown."""
        (self._engine if self._engine.display else self.view).focus()

    @property
    def view(self) -> LogView:
        return self.query_one(LogView)

    def show(self, job: Job | None) -> None:
        """Show the log of this job; the present job keeps its position in the log."""
        other = (job.id if job else None) != (self._job.id if self._job else None)
        self._job = job
        if other:
            if self._prompting:
                self._close_prompt()
            self._show_engine(False)
            self.view.show(self._location(job) if job else None)
        elif self._engine.display:
            self._read_engine()
        self._header()

    def _location(self, job: Job) -> LogLocation:
        return self._location_of(job.id)

    # --- the engine's own lines -------------------------------------------------------------------

    def action_engine(self) -> None:
        """Switch between the output of the job and what the engine itself wrote into the log."""
        self._show_engine(not self._engine.display)
        self.enter()

    def _show_engine(self, shown: bool) -> None:
        if shown:
            self._read_engine()
        if shown != self._engine.display:
            # A hidden widget cannot have the focus.
            held = self._engine.has_focus or self.view.has_focus
            self._engine.display, self.view.display = shown, not shown
            if held:
                self.enter()
            self._header()

    def _read_engine(self) -> None:
        text = Text("No lines of the engine in this log.", style="$quiet")
        if self._job is not None:
            try:
                with open(self._location(self._job).current / ENGINE_LOG, "rb") as file:
                    file.seek(max(0, file.seek(0, 2) - MOST_ENGINE_BYTES))
                    lines = file.read().decode(errors="replace").splitlines()
                text = Text("\n".join(clean(line) for line in lines))
            except FileNotFoundError:
                pass
            except OSError as error:
                text = fmt.plain(f"Cannot read the lines of the engine: {error.strerror}", "$bad")
        self._engine.query_one(Static).update(text)

    # --- the header -------------------------------------------------------------------------------

    def _header(self) -> None:
        if self._job is None:
            self._update_header(Text())
            return
        if self._engine.display:
            self._update_header(Text("lines of the engine itself; x returns to the job's output"))
            return
        text = self._figures(self._job)
        queries = Text("   ").join(
            part for part in (self._filter_text(), self._search_text()) if part
        )
        for line in (self._unsaved(self._job), queries):
            if line:
                text.append("\n")
                text.append_text(line)
        self._update_header(text)
        keys = (self.view.search is None, self.view.filter is None, self.view.selecting)
        if keys != self._keys:
            self._keys = keys
            self.refresh_bindings()

    def _update_header(self, text: Text) -> None:
        """Lay out the screen again only if the header gets another height; its figures change often."""
        header = self.query_one("#log-header", Static)
        height = len(text.wrap(self.app.console, max(1, header.content_size.width)))
        header.update(text, layout=min(height, MOST_HEADER_LINES) != header.content_size.height)

    def _figures(self, job: Job) -> Text:
        log = self.view
        rows = log.lines.rows
        lines = "line" if rows == 1 else "lines"
        gaps = "gap" if job.log_gaps == 1 else "gaps"
        text = Text(f"{rows:,} {lines} · {fmt.size(log.lines.bytes)} · {job.log_gaps} {gaps}")
        if job.log_gaps:
            text.stylize("$warn")
        if log.selected_from is not None:
            selected = abs(log.cursor - log.selected_from) + 1
            text.append(f"  {selected:,} selected, y copies", style="bold")
        elif not log.follow:
            text.append(f"  {log.below:,} below", style="$warn")
        elif not job.state.finished:
            text.append("  following", style="$good")
        return text

    def _unsaved(self, job: Job) -> Text | None:
        shown = self._location(job).unsaved
        if shown is None:
            return None
        # The error of the backend gives the fix once the job has ended.
        return fmt.plain(f"not saved ({shown.why.reason}): {job_dir(job.id)}", "$warn")

    def _filter_text(self) -> Text | None:
        matches = self.view.filter
        if matches is None:
            return None
        text = self._query_text("&", matches)
        text.append(f"{len(matches.rows):,} of {self.view.lines.rows:,} lines")
        return text.append_text(self._progress(matches))

    def _search_text(self) -> Text | None:
        matches = self.view.search
        if matches is None:
            return None
        text = self._query_text("/", matches)
        if matches.rows:
            at = matches.place(self.view.row)
            text.append(f"{f'{at:,}' if at else '-'} of {len(matches.rows):,}")
        elif matches.whole:
            text.append("not found", style="$warn")
        return text.append_text(self._progress(matches))

    def _query_text(self, sign: str, matches: Matches) -> Text:
        query = matches.queries[-1]
        regex = " (regular expression)" if query.regex else ""
        return Text.assemble(fmt.plain(f"{sign}{query.text[:60]}", "bold"), regex, " ")

    def _progress(self, matches: Matches) -> Text:
        if matches.whole:
            return Text()
        share = matches.scanned / max(1, self.view.lines.rows)
        return Text(f" searching, {share:.0%}", style="$warn")

    # --- the prompt -------------------------------------------------------------------------------

    @property
    def _input(self) -> Input:
        return self.query_one("#log-prompt-input", Input)

    @property
    def _prompting(self) -> bool:
        return bool(self.children) and self.query_one("#log-prompt").display

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        # The key bar may ask before the widgets are mounted.
        if action == "engine":
            return bool(self.children) and self._job is not None and not self._prompting
        if action == "ask":
            return bool(self.children) and self._job is not None and not self._prompting
        if action == "regex":
            return self._prompting and _PROMPTS[self._prompt].takes_regex
        if action == "step_back":
            return bool(self.children) and (
                self._prompting
                or self.view.selecting
                or self.view.search is not None
                or self.view.filter is not None
            )
        return True

    def action_ask(self, what: str) -> None:
        self._prompt = what
        now = {"find": self.view.search, "filter": self.view.filter}.get(what)
        value = now.queries[-1].text if now is not None else ""
        if what == "save" and self._job is not None:
            value = f"{clean(self._job.id)}.log"
        self._input.value = value
        self._input.placeholder = _PROMPTS[what].placeholder
        self._sign()
        self.query_one("#log-prompt").display = True
        self._input.focus()
        self._input.action_select_all()
        self.refresh_bindings()

    def _sign(self) -> None:
        prompt = _PROMPTS[self._prompt]
        regex = " regular expression" if self._regex.get(self._prompt) else ""
        self.query_one("#log-prompt-sign", Static).update(Text(f"{prompt.sign}{regex} "))

    def action_regex(self) -> None:
        self._regex[self._prompt] = not self._regex[self._prompt]
        self._sign()

    @on(Input.Submitted, "#log-prompt-input")
    def _answered(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            if self._prompt == "save":
                self._save(event.value.strip())
            elif self._prompt == "time":
                self.view.jump(event.value)
            else:
                query = Query(event.value, self._regex[self._prompt]) if event.value else None
                (self.view.find if self._prompt == "find" else self.view.show_only)(query)
        except RequestError as error:
            # Keep the prompt, to correct the text.
            show_error(self, error)
            return
        self._close_prompt()
        self.view.focus()

    def _close_prompt(self) -> None:
        self.query_one("#log-prompt").display = False
        self.refresh_bindings()

    def action_step_back(self) -> None:
        """Leave one thing: the prompt, the selection, the search, the filter."""
        if self._prompting:
            self._close_prompt()
        elif self.view.selecting:
            self.view.drop_selection()
        elif self.view.search is not None:
            self.view.find(None)
        else:
            self.view.show_only(None)
        self.view.focus()
        self.refresh_bindings()

    # --- saving -----------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        if not name or self._job is None:
            return
        try:
            target = path_of(name).absolute()
        except RuntimeError as error:
            raise RequestError("file", f"{name!r}: {error}") from error
        location = self._location(self._job)

        def write(replace: bool) -> None:
            on_thread(self, lambda: save(replace), done, partial(show_error, self))

        def save(replace: bool) -> int | None:
            try:
                return reader.save(location, target, replace)
            except FileExistsError:
                return None

        def done(size: int | None) -> None:
            if size is not None:
                saved = f"saved {fmt.size(size)} as {clean(fmt.place(str(target)))}"
                self.notify(saved, markup=False, timeout=5)
                return
            body = Text.assemble(fmt.plain(str(target), "bold"), "\n\nThis file exists already.")
            self.app.push_screen(Confirm("Replace this file?", body, "Replace"), answered)

        def answered(yes: bool | None) -> None:
            if yes:
                write(True)

        write(False)

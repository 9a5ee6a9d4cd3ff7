"""The log of a job: the window over the spool, its header, and a prompt for search and the like."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from stoke.errors import RequestError, StokeError
from stoke.files.paths import job_dir
from stoke.history.job import Job, JobState
from stoke.logs import reader
from stoke.logs.fallback import LogLocation
from stoke.logs.levels import Level, LevelQuery
from stoke.logs.reader import Matches
from stoke.logs.search import Query
from stoke.logs.spool import ENGINE_LOG, LogSource
from stoke.request.spec import JobSpec
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.dialogs.prompts import Confirm
from tui.log.code import CodePlace
from tui.log.merging import Merging
from tui.log.tags import Tags
from tui.log.view import LogView
from tui.notifications import show_error
from tui.terminal import programs
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


_LEVEL_WORDS = {Level.WARNING: "warnings", Level.ERROR: "errors"}


class LogPane(Vertical):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ampersand", "ask('filter')", "Filter", id="log.filter"),
        Binding("at", "ask('time')", "Go to time", show=False, id="log.time"),
        Binding("l", "level", "Level", id="log.level"),
        Binding("S", "ask('save')", "Save", id="log.save"),
        Binding("vertical_line", "pager", "Open in $PAGER", show=False, id="log.pager"),
        Binding("ctrl+e", "editor", "$EDITOR", show=False, id="log.editor"),
        Binding("enter", "code", "Code of a traceback", show=False, id="log.code"),
        Binding("x", "engine", "Lines of the engine", show=False, id="log.engine"),
        Binding("f3", "regex", "Regular expression", id="log.regex"),
        Binding("escape", "step_back", "Step back", show=False, id="log.step_back"),
    ]

    def __init__(
        self,
        location_of: Callable[[str], LogLocation],
        header: Static,
        spec_of: Callable[[str], JobSpec | RequestError],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """`location_of` returns where the log of a job is, from the job's id.

        `header` is a widget elsewhere, usually of one row; the pane fills it. `spec_of` returns the
        request of a job.
        """
        super().__init__(id=id)
        self._location_of = location_of
        self._header_line = header
        self._spec_of = spec_of
        # Whether to wrap the lines of the shown job, once the user has chosen.
        self._wrap: bool | None = None
        # The place and the query from before a search that is being typed.
        self._before: tuple[tuple[int, bool], Query | None] | None = None
        self._job: Job | None = None
        self._prompt = ""
        self._regex = {"find": False, "filter": False}
        self._keys: tuple[bool, ...] = ()
        self.merging: Merging | None = None
        """The jobs whose logs are shown as one, in place of that of the current job."""

    def compose(self) -> ComposeResult:
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
        """Show the log of this job; the present job keeps its position in the log.

        Several logs that are shown as one stay until there is another job.
        """
        other = (job.id if job else None) != (self._job.id if self._job else None)
        self._job = job
        if other:
            self._end_merging()
            self._show_log()
        elif self._engine.display:
            self._read_engine()
        if self._wrap is None and job is not None and self.merging is None:
            # The whole error can be read at once.
            self.view.wrap = job.state == JobState.FAILED
        self._header()

    def show_merged(self, jobs: Sequence[Job], read: Callable[[Sequence[str]], list[Job]]) -> None:
        """Show the logs of these jobs as one, until `show_own` or another job is shown.

        `read` returns the jobs with these ids as they are now, on any thread.
        """

        def failed(error: StokeError) -> None:
            self.show_own()
            show_error(self, error)

        self._end_merging()
        self.merging = Merging(self, jobs, self._location_of, read, self._header, failed)
        self._show_log()
        self.view.wrap = False
        self._header()

    def show_own(self) -> None:
        """Show the log of the current job again."""
        if self.merging is not None:
            self._end_merging()
            self._show_log()
            self.show(self._job)

    def _end_merging(self) -> None:
        if self.merging is not None:
            self.view.show(None)
            self.merging.close()
            self.merging = None

    def on_unmount(self) -> None:
        if self.merging is not None:
            self.merging.close()

    def _show_log(self) -> None:
        if self._prompting:
            self._close_prompt()
        self._show_engine(False)
        self._wrap = None
        job, merging = self._job, self.merging
        if merging is not None:
            log = merging.log
            self.view.show(log.folder, log.job_ids, Tags(merging.jobs, log.owner))
        else:
            self.view.show(self._location(job) if job else None, (job.id,) if job else ())
        self.refresh_bindings()

    def toggle_wrap(self) -> None:
        self._wrap = self.view.wrap = not self.view.wrap

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
        job = self._job
        # One row, where the screen is wide enough: the log needs the others.
        extent = Text() if self.view.selected_from is not None else self._extent(job)
        parts = (self._filter_text() or extent, self._whereabouts(job), self._search_text(),
                 self._unsaved(job) if self.merging is None else None)  # fmt: skip
        self._update_header(Text("  ").join(part for part in parts if part))
        self.view.explain(self._why_empty(job))
        keys = (self.view.search is None, self.view.filter is None, self.view.selecting)
        if keys != self._keys:
            self._keys = keys
            self.refresh_bindings()

    def _update_header(self, text: Text) -> None:
        """Lay out the screen again only if the header gets another height; its figures change often."""
        header = self._header_line
        height = len(text.wrap(self.app.console, max(1, header.content_size.width)))
        header.update(text, layout=min(height, MOST_HEADER_LINES) != header.content_size.height)

    def _extent(self, job: Job) -> Text:
        log = self.view
        rows = log.lines.rows
        lines = "line" if rows == 1 else "lines"
        jobs = [job] if self.merging is None else self.merging.jobs
        text = Text(f"{rows:,} {lines} · {fmt.size(log.lines.bytes)}")
        if gaps := sum(job.log_gaps for job in jobs):
            text.append(f" · {fmt.count(gaps, 'gap')}", style="$warn")
        return text

    def _whereabouts(self, job: Job) -> Text:
        log = self.view
        if log.selected_from is not None:
            selected = abs(log.cursor - log.selected_from) + 1
            return Text(f"{selected:,} selected, y copies", style="bold")
        if not log.follow:
            return Text(f"{log.below:,} below" if log.below else "", style="$warn")
        ended = job.state.finished if self.merging is None else self.merging.have_ended
        return Text("" if ended else "following", style="$good")

    def _why_empty(self, job: Job) -> str:
        if self.view.filter is not None:
            return "No line matches. Esc shows all lines again." if self.view.filter.whole else ""
        jobs = [job] if self.merging is None else self.merging.jobs
        if all(job.state.finished for job in jobs):
            return "No output."
        return f"No output yet: the job is {job.state}." if len(jobs) == 1 else "No output yet."

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
        if isinstance(query, LevelQuery):
            return Text(f"{_LEVEL_WORDS[query.least]} ", style="bold")
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
        if action == "engine" and self.merging is not None:
            return False
        if action == "code":
            return bool(self.children) and self._job is not None and self.view.has_focus
        if action in ("ask", "level", "pager", "editor", "engine"):
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
        if what == "find":
            search = self.view.search
            query = search.queries[-1] if search is not None else None
            self._before = (self.view.place(), query)
        now = {"find": self.view.search, "filter": self.view.filter}.get(what)
        value = now.queries[-1].text if now is not None else ""
        if now is not None and isinstance(now.queries[-1], LevelQuery):
            value = ""
        if what == "save" and self._job is not None:
            value = "jobs.log" if self.merging is not None else f"{clean(self._job.id)}.log"
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

    @on(Input.Changed, "#log-prompt-input")
    def _typed(self, event: Input.Changed) -> None:
        """Search while the text is typed, from where the cursor was."""
        event.stop()
        if self._prompt != "find" or self._before is None or not self._input.has_focus:
            return
        place = self._before[0]
        try:
            query = Query(event.value, self._regex["find"]) if event.value else None
        except RequestError:
            return  # Of an expression that is not complete.
        if query is None:
            self.view.find(None)
            self.view.return_to(place)
        elif not self._searches(query):
            self.view.find(query, place[0])

    def _searches(self, query: Query) -> bool:
        """Return whether this search runs already."""
        if self.view.search is None:
            return False
        now = self.view.search.queries[-1]
        return (now.text, now.regex) == (query.text, query.regex)

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
                if self._prompt == "filter":
                    self.view.show_only(query)
                elif query is None or not self._searches(query):
                    self.view.find(query, self._before[0][0] if self._before else None)
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
            if self._prompt == "find" and self._before is not None:
                place, query = self._before
                self.view.find(query)
                self.view.return_to(place)
        elif self.view.selecting:
            self.view.drop_selection()
        elif self.view.search is not None:
            self.view.find(None)
        else:
            self.view.show_only(None)
        self.view.focus()
        self.refresh_bindings()

    # --- levels and other programs ----------------------------------------------------------------

    def action_level(self) -> None:
        """Show warnings and errors only, then errors only, then all lines."""
        shown = self.view.filter.queries[-1] if self.view.filter is not None else None
        now = shown.least if isinstance(shown, LevelQuery) else None
        following = {None: Level.WARNING, Level.WARNING: Level.ERROR}.get(now)
        self.view.show_only(LevelQuery(following) if following is not None else None)

    def action_pager(self) -> None:
        self._open(programs.pager)

    def action_editor(self) -> None:
        self._open(programs.editor)

    def action_code(self) -> None:
        """Open the code of the traceback line under the cursor, or above it, in the editor."""
        job = self._job
        places = self.view.code_places()
        if job is None or not places:
            self.notify("no traceback here", timeout=3)
            return
        job_id = self.view.job_at(self.view.cursor) or job.id
        spec = self._spec_of(job_id)
        if isinstance(spec, RequestError):
            show_error(self, spec)
            return
        missing: StokeError | None = None
        for place in places:
            try:
                file = place.file_of(spec, job_id)
            except StokeError as error:
                missing = missing or error
                continue
            self._edit(file, spec.code or "", place)
            return
        if missing is not None:
            show_error(self, missing)

    def _edit(self, file: Path | None, code: str, place: CodePlace) -> None:
        """Open a file of the project, or a copy of the job's code that it ran."""
        with tempfile.TemporaryDirectory(prefix="stoke-code-") as folder:
            if file is None:
                file = Path(folder) / Path(place.path).name
                file.write_text(code)
                file.chmod(0o400)
            try:
                with self.app.suspend():
                    programs.editor().open(file, place.line)
            except SuspendNotSupported:
                show_error(self, StokeError("there is no terminal for another program"))
            except StokeError as error:
                show_error(self, error)

    def _open(self, choose: Callable[[], programs.Program]) -> None:
        """Show a copy of the log, as it is drawn but complete, in another program."""
        if self._job is None:
            return
        source, tag = self._saved(self._job)
        # In a folder that only its owner can read.
        folder = tempfile.TemporaryDirectory(prefix="stoke-log-")
        target = Path(folder.name) / ("jobs.log" if tag else f"{self._job.id}.log")

        def show(_: None) -> None:
            with folder:
                try:
                    with self.app.suspend():
                        choose().open(target)
                except SuspendNotSupported:
                    show_error(self, StokeError("there is no terminal for another program"))
                except StokeError as error:
                    show_error(self, error)

        def failed(error: StokeError) -> None:
            folder.cleanup()
            show_error(self, error)

        on_thread(self, lambda: reader.save_as_shown(source, target, tag), show, failed)

    def _saved(self, job: Job) -> tuple[LogSource, reader.Tag | None]:
        """Return the log that is shown, and what precedes its lines in a file."""
        tags, merging = self.view.tags, self.merging
        if merging is None or tags is None:
            return self._location(job), None
        width = max(map(cell_len, map(clean, tags.names)))
        return merging.log.folder, lambda row: f"{fmt.fit(clean(tags.of(row)), width)} | "

    # --- saving -----------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        if not name or self._job is None:
            return
        try:
            target = path_of(name).absolute()
        except RuntimeError as error:
            raise RequestError("file", f"{name!r}: {error}") from error
        source, tag = self._saved(self._job)

        def write(replace: bool) -> None:
            on_thread(self, lambda: save(replace), done, partial(show_error, self))

        def save(replace: bool) -> int | None:
            try:
                return reader.save(source, target, replace, tag)
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

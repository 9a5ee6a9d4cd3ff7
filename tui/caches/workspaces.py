"""Workspaces: a row for each, and the actions on them. Opened from Caches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from stoke.backend.capabilities import KeepsWorkspaces, Workspace
from stoke.backend.registry import backend_names
from stoke.errors import RequestError, StokeError
from stoke.files.paths import current_folder
from stoke.text.sanitize import clean
from stoke.workspaces.keeper import Copied, Progress, WorkspaceKeeper, in_use
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.caches.workspace_dialogs import Line, RemoveWorkspace, WorkspaceForm, files_text
from tui.context import Context
from tui.threads import Work, WorkCancelledError, call_in, on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.path_input import path_of
from tui.widgets.top_bar import TopBar

_COLUMNS = (("on", 6), ("size", 8), ("files", 8), ("used", 5), ("used by", 7))
_OTHER_CELLS = sum(width for _, width in _COLUMNS) + 2 * (len(_COLUMNS) + 1) + 1
_WIDEST_USERS = 30
_NONE = "No workspaces yet. A job makes one: stoke run --workspace NAME FILE"
_REPLACES = "Files that exist there are replaced."

Key = tuple[str, str]
T = TypeVar("T")


class WorkspacesTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next workspace", show=False, id="workspaces.down"),
        Binding("up,k", "cursor_up", "Previous workspace", show=False, id="workspaces.up"),
    ]


class WorkspacesScreen(StokeScreen):
    CHANGES = frozenset({"clone", "rename", "copy_in", "remove"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", id="workspaces.measure"),
        Binding("u", "copy_in", "Copy in", id="workspaces.copy_in"),
        Binding("D", "copy_out", "Copy out", id="workspaces.copy_out"),
        Binding("Y", "clone", "Clone", id="workspaces.clone"),
        Binding("E", "rename", "Rename", id="workspaces.rename"),
        Binding("d", "remove", "Remove", id="workspaces.remove"),
        Binding("f5", "reload", "Reload", show=False, id="workspaces.reload"),
        Binding("escape,q", "end_or_back", "Back", id="workspaces.back"),
        Binding("ctrl+c", "end", "Cancel work", show=False, id="workspaces.end"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._found: dict[Key, Workspace] = {}
        self._errors: dict[str, StokeError] = {}
        self._listing: set[str] = set()
        self._work: Work | None = None

    def compose(self) -> ComposeResult:
        yield TopBar("caches", self.context.read_only)
        yield WorkspacesTable(id="workspaces-table", cursor_type="row")
        yield Static(id="workspaces-empty")
        yield Static(id="workspaces-detail")
        yield Static(id="workspaces-errors", classes="errors")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(WorkspacesTable).focus()
        self.action_reload()

    def on_unmount(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def on_resize(self) -> None:
        table = self.query_one(WorkspacesTable)
        table.clear(columns=True)
        left = max(10, self.size.width - _OTHER_CELLS)
        users = min(_WIDEST_USERS, left // 3) if self.size.width > 100 else 0
        table.add_column(Text("workspace"), width=left - users)
        for label, width in _COLUMNS:
            is_text = label in ("on", "used by")
            heading = Text(label, justify="left" if is_text else "right")
            table.add_column(heading, width=width + (users if label == "used by" else 0))
        self._show()

    # --- reading ----------------------------------------------------------------------------------

    def action_reload(self) -> None:
        for name in backend_names():
            if name not in self._listing:
                self._listing.add(name)
                on_thread(
                    self,
                    partial(self._workspaces_of, name),
                    partial(self._listed, name),
                    partial(self._not_listed, name),
                )
        self._show()

    def _workspaces_of(self, name: str) -> list[Workspace]:
        backend = self.context.backends.get(name)
        return self._keeper(name).all() if isinstance(backend, KeepsWorkspaces) else []

    def _keeper(self, backend: str) -> WorkspaceKeeper:
        return WorkspaceKeeper(self.context.backends.get(backend), self.context.history)

    def _listed(self, name: str, workspaces: list[Workspace]) -> None:
        self._listing.discard(name)
        self._errors.pop(name, None)
        others = {key: one for key, one in self._found.items() if key[0] != name}
        self._found = others | {(name, one.name): one for one in workspaces}
        self._show()

    def _not_listed(self, name: str, error: StokeError) -> None:
        self._listing.discard(name)
        self._errors[name] = error
        self._show()

    # --- showing ----------------------------------------------------------------------------------

    def _show(self) -> None:
        table = self.query_one(WorkspacesTable)
        if not table.columns:
            return  # A backend answered before the size is known, which makes the columns.
        current = self._current()
        keys = sorted(self._found)
        with self.prevent(DataTable.RowHighlighted):
            table.clear()
            for key in keys:
                table.add_row(*self._row(self._found[key]), key="/".join(key))
            if current is not None:
                with suppress(ValueError):
                    table.move_cursor(row=keys.index((current.backend, current.name)))
        table.display = bool(keys)
        empty = self.query_one("#workspaces-empty", Static)
        empty.display = not keys
        empty.update(Text("Loading ..." if self._listing else _NONE))
        errors = self.query_one("#workspaces-errors", Static)
        errors.display = bool(self._errors)
        errors.update(
            Text("\n").join(
                Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.error_text(error))
                for name, error in sorted(self._errors.items())
            )
        )
        self._show_detail()

    def _row(self, one: Workspace) -> list[Text]:
        used = fmt.UNKNOWN
        if one.last_used is not None:
            used = fmt.age(max(0.0, self.context.clock() - one.last_used))
        count = len(one.in_use_by)
        users = fmt.cell(", ".join(one.in_use_by), "$warn")
        if self.size.width <= 100:
            users = Text(fmt.count(count, "job"), style="$warn")
        return [
            fmt.cell(one.name),
            fmt.cell(one.backend),
            Text(fmt.size(one.bytes), justify="right"),
            Text(fmt.UNKNOWN if one.files is None else f"{one.files:,}", justify="right"),
            Text(used, justify="right"),
            users if count else Text("none", style="$quiet"),
        ]

    @on(DataTable.RowHighlighted)
    def _show_detail(self) -> None:
        text = Text()
        one = self._current()
        if one is not None:
            text.append_text(fmt.plain(one.name, "bold"))
            text.append_text(fmt.plain(f" · {fmt.place(one.place)}"))
            if one.node:
                text.append_text(fmt.plain(f" on {one.node}"))
            if one.scope:
                text.append_text(fmt.plain(f" · made in the scope {one.scope}"))
            if one.in_use_by:
                text.append("\n")
                text.append_text(fmt.plain(f"in use by {', '.join(one.in_use_by)}", "$warn"))
            if one.bytes is None:
                text.append("\nnot measured (m measures)", style="$quiet")
            elif one.measured_at is not None:
                measured = fmt.age(max(0.0, self.context.clock() - one.measured_at))
                text.append(
                    f"\n{fmt.size(one.bytes)} in {files_text(one)}, measured {measured} ago"
                )
        if self._work is not None:
            step = self._work.step or "starting"
            step = "cancelling" if self._work.cancelled else f"{step} (esc cancels)"
            text.append("\n")
            text.append_text(fmt.plain(f"{self._work.doing}: {step}", "$busy"))
        self.query_one("#workspaces-detail", Static).update(text)
        self.refresh_bindings()

    def _current(self) -> Workspace | None:
        table = self.query_one(WorkspacesTable)
        if not table.row_count:
            return None
        value = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((one for key, one in self._found.items() if "/".join(key) == value), None)

    # --- work on a workspace ----------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if not self.is_mounted:
            return True
        if action == "end":
            return self._work is not None
        if action in ("measure", "copy_out", *self.CHANGES):
            return self._work is None and self._current() is not None
        return True

    def action_end(self) -> None:
        if self._work is not None:
            self._work.cancel()
            self._show_detail()

    def action_end_or_back(self) -> None:
        if self._work is not None:
            self.action_end()
        else:
            self.dismiss()

    def _start(
        self,
        workspace: Workspace,
        doing: str,
        do: Callable[[WorkspaceKeeper, Progress], T],
        done: Callable[[T], object],
    ) -> None:
        """Run `do` on a thread, with its progress on the screen and a key that cancels it."""
        work = self._work = Work(
            f"{doing} {workspace.name}", lambda: call_in(self, self._show_detail)
        )

        def ended(result: T) -> None:
            self._work = None
            done(result)
            self.action_reload()

        def failed(error: StokeError) -> None:
            self._work = None
            if isinstance(error, WorkCancelledError):
                self.notify(f"{clean(work.doing)}: cancelled", markup=False)
            else:
                self.show_error(error)
            self.action_reload()

        on_thread(self, lambda: do(self._keeper(workspace.backend), work.progress), ended, failed)
        self._show_detail()

    def _tell(self, text: str) -> None:
        self.notify(clean(text), markup=False, timeout=5)

    def _tell_copied(self, copied: Copied) -> None:
        text = f"copied {fmt.count(copied.files, 'file')}, {fmt.size(copied.bytes)}"
        if copied.problems:
            text += f"; left out {len(copied.problems):,}: {copied.problems[0]}"
        self.notify(
            clean(text),
            markup=False,
            severity="warning" if copied.problems else "information",
            timeout=8,
        )

    def _ask(
        self, title: str, body: str, verb: str, lines: list[Line], then: Callable[..., object]
    ) -> None:
        def answered(values: tuple[str, ...] | None) -> None:
            if values is not None:
                then(*values)

        self.app.push_screen(WorkspaceForm(title, body, verb, lines), answered)

    def action_measure(self) -> None:
        one = self._current()
        if one is not None:
            self._start(
                one, "measuring", lambda keeper, progress: keeper.measure(one, progress),
                lambda measured: self._found.update({(one.backend, one.name): measured}),
            )  # fmt: skip

    def action_clone(self) -> None:
        one = self._current()
        if one is None:
            return

        def clone(new: str) -> None:
            self._start(
                one, "cloning", lambda keeper, progress: keeper.clone(one, new, progress),
                self._tell_copied,
            )  # fmt: skip

        body = "Copies everything in it into a new workspace."
        if one.in_use_by:
            body += f" It is in use by {', '.join(one.in_use_by)}: files may change meanwhile."
        self._ask(f"Clone {one.name}", body, "Clone", [Line("name of the copy")], clone)

    def action_rename(self) -> None:
        one = self._current()
        if one is None:
            return
        if one.in_use_by:
            self.show_error(in_use(one.name, one.in_use_by, "renamed"))
            return

        def rename(new: str) -> None:
            self._start(
                one, "renaming", lambda keeper, progress: keeper.rename(one, new, progress),
                lambda _: self._tell(f"renamed {one.name} to {new}"),
            )  # fmt: skip

        body = (
            "Jobs that name the old one make a new, empty workspace. An engine that cannot rename "
        )
        body += "copies it, and then removes the old one."
        lines = [Line("new name", one.name)]
        self._ask(f"Rename {one.name}", body, "Rename", lines, rename)

    def action_copy_in(self) -> None:
        from stoke.workspaces.copying import copy_in

        one = self._current()
        if one is None:
            return

        def copy(source: str, target: str) -> None:
            self._start(
                one, "copying into",
                lambda keeper, progress: copy_in(keeper, _here(source), one, target, progress),
                self._tell_copied,
            )  # fmt: skip

        here = Line("file or folder here", f"{current_folder()}/", is_path=True)
        self._ask(f"Copy into {one.name}", _REPLACES, "Copy", [here, Line("path in it", "/")], copy)

    def action_copy_out(self) -> None:
        from stoke.workspaces.copying import copy_out

        one = self._current()
        if one is None:
            return

        def copy(source: str, target: str) -> None:
            self._start(
                one, "copying out of",
                lambda keeper, progress: copy_out(keeper, one, source, _here(target), progress),
                self._tell_copied,
            )  # fmt: skip

        lines = [
            Line("path in it", "/"),
            Line("folder here", f"{current_folder()}/{one.name}", is_path=True),
        ]
        self._ask(f"Copy out of {one.name}", _REPLACES, "Copy", lines, copy)

    def action_remove(self) -> None:
        one = self._current()
        if one is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._start(
                    one, "removing", lambda keeper, _: keeper.remove(one),
                    lambda _: self._tell(f"removed {one.name}"),
                )  # fmt: skip

        measure = partial(self._keeper(one.backend).measure, one)
        self.app.push_screen(RemoveWorkspace(one, measure), answered)


def _here(text: str) -> Path:
    try:
        return path_of(text)
    except RuntimeError as error:
        raise RequestError("path", str(error)) from None

"""The results of a job: a list with sizes, and a preview of the one under the cursor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import DataTable, Static

from stoke.errors import StokeError
from stoke.files.paths import current_folder
from stoke.history.job import Job
from stoke.results.store import read_results, results_folder, results_removed
from tui import format as fmt
from tui.context import Context
from tui.jobs.result_preview import Node, Preview, read_preview
from tui.threads import on_thread

if TYPE_CHECKING:
    from textual.widgets.tree import TreeNode

    from stoke.results.collect import Collected

MOST_LISTED = 2_000
_LEAST_ROWS = 24
"""Of a picture, if the pane is lower than that."""


class ResultsTable(DataTable[Text]):
    pass


class ResultsView(Vertical):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("S", "save", "Save", id="results.save"),
        Binding("ctrl+o", "open", "Open", show=False, id="results.open"),
    ]

    def __init__(self, context: Context, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.context = context
        self._shown: tuple[str, float | None, str | None] | None = None
        self._job: Job | None = None
        self._results: Collected | None = None
        self._previewed: str | None = None
        self._reading: object = None
        """Identifies the last reading. What earlier ones return is not shown."""
        self._picture_space: tuple[int, int] | None = None
        """What the shown picture was fitted into."""

    def compose(self) -> ComposeResult:
        yield Static(id="results-total")
        yield ResultsTable(id="results-table", cursor_type="row", show_header=False)
        yield Static(id="results-note")
        yield VerticalScroll(id="results-preview")

    def enter(self) -> None:
        self.query_one(ResultsTable).focus()

    def show(self, job: Job) -> None:
        """Show the results of a job, unless they are shown already."""
        shown = (job.id, job.results_at, job.results_problem)
        if shown == self._shown:
            return
        self._shown, self._job, self._results, self._previewed = shown, job, None, None
        self._reading, self._picture_space = None, None
        self.query_one(ResultsTable).clear(columns=True)
        self.query_one("#results-note", Static).update("")
        self.query_one("#results-preview").remove_children()
        self._say("")

        def listed(results: Collected | None) -> None:
            if self._shown == shown:
                self._results = results
                self._list(job, results)

        on_thread(self, lambda: read_results(job.id), listed, lambda error: self._say(error.what))

    def _say(self, text: str) -> None:
        self.query_one("#results-total", Static).update(fmt.plain(text, "$quiet"))

    def _list(self, job: Job, results: Collected | None) -> None:
        if results is None:
            self._say(_why_none(job))
            return
        total = f"{fmt.count(len(results.files), 'file')}, {fmt.size(results.bytes)}"
        more = len(results.files) - MOST_LISTED
        left = f"; {more:,} more: stoke results {job.id}" if more > 0 else ""
        refused = f"; {results.refused_count:,} refused" if results.refused_count else ""
        self._say(f"{total}{refused}{left}")
        table = self.query_one(ResultsTable)
        table.add_column("size", width=9)
        table.add_column("file")
        for file in results.files[:MOST_LISTED]:
            size = Text(f"{fmt.size(file.size):>9}", style="$quiet")
            table.add_row(size, fmt.cell(file.path), key=file.path)

    @on(DataTable.RowHighlighted, "#results-table")
    def _highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        path = event.row_key.value
        if path is not None and path != self._previewed:
            self._previewed = path
            self._read()

    def on_resize(self) -> None:
        """Fit a picture into the new size."""
        if self._picture_space is not None and self._picture_space != self._space():
            self._read()

    def _space(self) -> tuple[int, int]:
        """Return the pixels that a picture may take. A low pane scrolls."""
        size = self.query_one("#results-preview").scrollable_content_region.size
        return max(1, size.width), 2 * max(_LEAST_ROWS, size.height)

    def _read(self) -> None:
        job, path, space = self._job, self._previewed, self._space()
        if job is None or path is None:
            return
        reading = self._reading = object()

        def wanted() -> bool:
            return self._reading is reading

        def read(preview: Preview) -> None:
            if wanted():
                self._picture_space = None if preview.picture is None else space
                self._preview(preview)

        on_thread(
            self,
            lambda: read_preview(results_folder(job.id) / path, space, wanted),
            read,
            lambda error: read(Preview(note=error.what)),
        )

    def _preview(self, preview: Preview) -> None:
        self.query_one("#results-note", Static).update(fmt.plain(preview.note, "$quiet"))
        frame = self.query_one("#results-preview", VerticalScroll)

        async def put() -> None:
            await frame.remove_children()
            await frame.mount(_widget_for(preview))
            frame.scroll_home(animate=False)

        self.call_later(put)

    # --- actions ----------------------------------------------------------------------------------

    def copies(self) -> dict[str, Callable[[], str]]:
        """Return what `y` offers."""
        job, results = self._job, self._results
        if job is None or results is None:
            return {}
        folder = results_folder(job.id)
        path = None if self._previewed is None else str(folder / self._previewed)
        sums = "".join(f"{file.sha256}  {file.path}\n" for file in results.files)
        return {
            **({"path of the file": lambda: path} if path else {}),
            "path of the folder": lambda: str(folder),
            "checksums, for sha256sum -c": lambda: sums,
        }

    def action_save(self) -> None:
        """Copy all results into a folder of the current one, named after the job."""
        from stoke.results.copy_out import copy_out

        job, results = self._job, self._results
        if job is None or results is None:
            return
        target = current_folder() / f"{job.id}-results"

        def copied(written: int) -> None:
            text = f"Copied {fmt.count(written, 'file')} to {fmt.place(str(target))}"
            self.notify(text, markup=False, timeout=5)

        on_thread(
            self,
            lambda: copy_out(
                results, results_folder(job.id), target, force=False, progress=lambda *_: None
            ),
            copied,
            self._failed,
        )

    def action_open(self) -> None:
        """Open the file under the cursor with the program that the system has for it."""
        from tui.terminal.programs import open_with_system

        job, path = self._job, self._previewed
        if job is not None and path is not None:
            whole: Path = results_folder(job.id) / path
            on_thread(self, lambda: open_with_system(whole), lambda _: None, self._failed)

    def _failed(self, error: StokeError) -> None:
        from tui.notifications import show_error

        show_error(self, error)


def _why_none(job: Job) -> str:
    if job.results_problem:
        return f"not collected: {job.results_problem}; try again: stoke results {job.id}"
    if not job.state.finished:
        return "results are collected when the job has ended"
    if job.results_at is None:
        return "results are being collected"
    if not job.results_files:
        return "no results: the code wrote nothing to $STOKE_RESULTS"
    return f"removed, {results_removed(job.id) or 'or their list is damaged'}"


def _widget_for(preview: Preview) -> Widget:
    if preview.picture is not None:
        from tui.widgets.picture import PictureView

        return PictureView(preview.picture)
    if preview.table is not None:
        return _table(preview.table)
    if preview.tree is not None:
        return _tree(preview.tree)
    if preview.markdown is not None:
        from textual.widgets import Markdown

        return Markdown(preview.markdown, open_links=False)
    return Static(Text(preview.text or ""))


def _table(rows: list[list[str]]) -> Widget:
    names, *others = rows
    table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
    for name in names:
        table.add_column(Text(name))
    for row in others:
        table.add_row(*map(Text, row))
    return table


def _tree(root: Node) -> Widget:
    from textual.widgets import Tree

    tree: Tree[None] = Tree(Text(root.label))

    def add(parent: TreeNode[None], nodes: list[Node]) -> None:
        for node in nodes:
            if node.inner:
                add(parent.add(Text(node.label)), node.inner)
            else:
                parent.add_leaf(Text(node.label))

    add(tree.root, root.inner)
    tree.root.expand()
    return tree

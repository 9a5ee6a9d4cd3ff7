"""The files that would travel with the form's code, as a tree, with what is left out and why."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from stoke.text.sanitize import clean
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.new_job.file_tree import FileTree, Row
from tui.new_job.project import form_hint
from tui.new_job.project_files import ProjectFiles

_SIZE_WIDTH = 9


class FileTreeView(ScrollView, can_focus=True):
    """The rows of a tree; only visible ones are drawn."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "files--size",
        "files--folder",
        "files--left-out",
        "files--cursor",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False, id="files.down"),
        Binding("up,k", "move(-1)", "Up", show=False, id="files.up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="files.page_down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="files.page_up"),
        Binding("home,g", "move(-1_000_000)", "First", show=False, id="files.first"),
        Binding("end,G", "move(1_000_000)", "Last", show=False, id="files.last"),
        Binding("enter", "open_or_close", "Open or close the folder", id="files.toggle"),
    ]

    def __init__(self, tree: FileTree) -> None:
        super().__init__(id="files-tree")
        self._tree = tree
        self._rows = tree.rows()
        self._cursor = 0

    def on_mount(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows))
        self.refresh()

    def on_resize(self) -> None:
        self._lay_out()

    def action_move(self, by: int) -> None:
        self._cursor = max(0, min(len(self._rows) - 1, self._cursor + by))
        region = Region(0, self._cursor, 1, 1)
        self.scroll_to_region(region, animate=False, immediate=True, force=True)
        self.refresh()

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 1))

    def action_open_or_close(self) -> None:
        if self._rows:
            self._tree.toggle(self._rows[self._cursor].node)
            self._rows = self._tree.rows()
            self._lay_out()

    def on_click(self, event: events.Click) -> None:
        row = event.y + self.scroll_offset.y
        if row < len(self._rows):
            self._cursor = row
            self.action_open_or_close()

    def render_line(self, y: int) -> Strip:
        at = y + self.scroll_offset.y
        width = self.size.width
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[at]
        node = row.node
        kind = "left-out" if node.why is not None else "folder" if node.children else ""
        base = self.rich_style
        style = base + self.get_component_rich_style(f"files--{kind}") if kind else base
        size_style = base + self.get_component_rich_style("files--size")
        if at == self._cursor:
            cursor = self.get_component_rich_style("files--cursor")
            style, size_style = style + cursor, size_style + cursor
        size = _size(row)
        label = fmt.fit(self._label(row), max(4, width - _SIZE_WIDTH - 1))
        return Strip(
            [Segment(f"{size:>{_SIZE_WIDTH}} ", size_style), Segment(label, style)]
        ).adjust_cell_length(width, style)

    def _label(self, row: Row) -> str:
        node = row.node
        is_folder = node.children is not None
        mark = "  "
        if node.children:
            mark = "▾ " if node.path in self._tree.opened else "▸ "
        text = f"{'  ' * row.depth}{mark}{clean(node.name)}{'/' if is_folder else ''}"
        if node.target is not None:
            text += f" → {clean(node.target)}"
        if node.why is not None:
            # The reason must not be pushed out by a long name.
            reason = f"  {clean(node.why)}"
            most = max(8, self.size.width - _SIZE_WIDTH - 1 - cell_len(reason))
            return (text if cell_len(text) <= most else fmt.fit(text, most)) + reason
        if node.children and node.path not in self._tree.opened:
            text += f"  {fmt.count(node.files, 'file')}"
        return text


def _size(row: Row) -> str:
    node = row.node
    if node.why is not None:
        return "stays"
    if node.target is not None:
        return "link"
    if node.children is not None and not node.files:
        return "" if node.children else "empty"
    return fmt.size(node.size)


class FilesDialog(Dialog[None]):
    """Lists what travels; changes nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Close", id="files.close"),
    ]

    def __init__(self, files: ProjectFiles) -> None:
        super().__init__()
        self._files = files

    def compose(self) -> ComposeResult:
        files = self._files
        with Vertical(classes="dialog"):
            title = fmt.plain(f"{fmt.place(files.project.root)}: {files.summary}", "bold")
            yield Static(title, classes="files-title")
            if files.error is not None:
                yield Static(fmt.plain(files.error.why, "$bad"))
                yield Static(fmt.plain(form_hint(files.error.hint), "bold"))
            for note, hint in files.notes:
                yield Static(fmt.plain(f"{note}; {form_hint(hint)}", "$warn"))
            yield FileTreeView(files.tree)
            yield Static("Enter opens and closes a folder, esc closes the list.", classes="hint")

    def on_mount(self) -> None:
        self.query_one(FileTreeView).focus()

    def action_close(self) -> None:
        self.dismiss(None)

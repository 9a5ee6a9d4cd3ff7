"""The environments of one cache volume: size, what removing each frees, and their packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from stoke.backend.api import Volume
from stoke.cache.volumes import CachedEnvironment, Progress, Usage
from stoke.errors import StokeError
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.threads import Work, call_in, on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar

_COLUMNS = (("key", 8), ("size", 7), ("frees", 7), ("uses", 5), ("used", 7), ("packages", 30))
# The width of the other columns, with a scrollbar.
_OTHER_COLUMNS = sum(width + 2 for _, width in _COLUMNS[:-1]) + 3


class EnvironmentsTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next environment", show=False, id="environments.down"),
        Binding("up,k", "cursor_up", "Previous environment", show=False, id="environments.up"),
        Binding("home,g", "scroll_top", "First environment", show=False, id="environments.first"),
        Binding("end,G", "scroll_bottom", "Last environment", show=False, id="environments.last"),
    ]


class EnvironmentsScreen(StokeScreen):
    """`usage` measures the volume on a thread, and is cancelled when the screen closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", id="environments.measure"),
        Binding("escape,q", "back", "Back", id="environments.back"),
        Binding("ctrl+c", "end", "Cancel measuring", show=False, id="environments.end"),
    ]

    def __init__(
        self, context: Context, volume: Volume, usage: Callable[[Progress], Usage]
    ) -> None:
        super().__init__(context)
        self._volume = volume
        self._measure = usage
        self._work: Work | None = None
        self._usage: Usage | None = None
        self._error: StokeError | None = None

    def compose(self) -> ComposeResult:
        yield TopBar("caches", self.context.read_only)
        yield Static(id="environments-volume")
        yield EnvironmentsTable(id="environments-table", cursor_type="row")
        with VerticalScroll(id="environments-packages", can_focus=False):
            yield Static()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(EnvironmentsTable).focus()
        self.action_measure()

    def on_unmount(self) -> None:
        self.action_end()

    def on_resize(self) -> None:
        self._show()

    # --- measuring --------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action in ("measure", "end"):
            return (self._work is None) == (action == "measure")
        return True

    def action_measure(self) -> None:
        work = Work("measuring", lambda: call_in(self, self._show_head))
        self._work = work

        def ended(usage: Usage | None, error: StokeError | None) -> None:
            self._work, self._error = None, error
            self._usage = usage or self._usage
            self._show()

        on_thread(
            self,
            lambda: self._measure(work.progress),
            lambda usage: ended(usage, None),
            lambda error: ended(None, error),
        )
        self._show_head()

    def action_end(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def action_back(self) -> None:
        self.dismiss()

    # --- showing ----------------------------------------------------------------------------------

    def _show_head(self) -> None:
        volume, usage = self._volume, self._usage
        text = fmt.plain(f"{fmt.place(volume.name)}", "bold")
        text.append_text(fmt.plain(f" · {volume.backend} · {volume.scope} · {volume.kind}"))
        if volume.in_use_by:
            text.append("\n")
            text.append_text(fmt.plain(f"in use by {', '.join(volume.in_use_by)}", "$warn"))
        if usage is not None:
            count = len(usage.environments)
            text.append(f"\n{fmt.size(usage.bytes)} in {fmt.count(count, 'environment')}")
            if volume.kind == "python":
                text.append(f", of which {fmt.size(usage.uv_bytes)} are shared packages")
                if usage.snapshots:
                    text.append(f" and {fmt.size(usage.snapshot_bytes)} files of projects")
            text.append(f" · measured {fmt.age(self.context.clock() - usage.measured_at)} ago")
        if self._work is not None:
            step = f"{self._work.step or 'starting'} (ctrl+c cancels)"
            text.append("\n")
            text.append_text(fmt.plain(f"measuring: {step}", "$busy"))
        if self._error is not None:
            text.append("\n")
            text.append_text(fmt.error_text(self._error))
        self.query_one("#environments-volume", Static).update(text)
        self.refresh_bindings()

    def _show(self) -> None:
        self._show_head()
        table = self.query_one(EnvironmentsTable)
        row = table.cursor_row
        table.clear(columns=True)
        for label, width in _COLUMNS[:-1]:
            table.add_column(Text(label), width=width)
        table.add_column(Text("packages"), width=max(10, self.size.width - _OTHER_COLUMNS))
        for one in self._environments():
            table.add_row(*self._row(one), key=one.key)
        table.move_cursor(row=row)
        self._show_packages()

    def _environments(self) -> list[CachedEnvironment]:
        """Return the environments, the one that frees most first."""
        found = self._usage.environments if self._usage else ()
        return sorted(found, key=lambda one: (-one.reclaimable, one.key))

    def _row(self, one: CachedEnvironment) -> list[Text]:
        used = fmt.plain("in use", "$warn")
        if not one.busy:
            used = Text(fmt.age(self.context.clock() - one.last_used), justify="right")
        return [
            fmt.plain(one.key[:8]),
            Text(fmt.size(one.bytes), justify="right"),
            Text(fmt.size(one.reclaimable), justify="right"),
            Text(f"{one.uses:,}", justify="right"),
            used,
            fmt.cell(", ".join(one.packages)),
        ]

    @on(DataTable.RowHighlighted)
    def _show_packages(self) -> None:
        found = self._environments()
        row = self.query_one(EnvironmentsTable).cursor_row
        text = Text()
        if 0 <= row < len(found):
            one = found[row]
            built = "-"
            if one.built_at is not None:
                built = f"{fmt.age(self.context.clock() - one.built_at)} ago"
            text = fmt.plain(one.key, "bold")
            text.append(f" built {built}, {fmt.count(len(one.packages), 'package')}\n")
            if one.in_use_by:
                used_by = f"in use by {', '.join(one.in_use_by)}\n"
                text.append_text(fmt.plain(used_by, "$warn"))
            text.append_text(fmt.plain("  ".join(one.packages)))
        elif self._usage is not None:
            text.append("No environments.", style="$quiet")
        self.query_one("#environments-packages Static", Static).update(text)

"""Caches: a row a volume, what it holds and who uses it; measuring and clearing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from stoke.backend import Volume, backend_names
from stoke.caches import Housekeeper
from stoke.errors import StokeError
from tui import format as fmt
from tui.screens.base import StokeScreen
from tui.screens.clear_cache import ClearCache
from tui.threads import on_thread
from tui.widgets.top_bar import TopBar

# 79 columns with what stands between them; the line below the table has what they cut off.
_COLUMNS = (
    ("backend", 7),
    ("scope", 14),
    ("kind", 6),
    ("size", 9),
    ("measured", 8),
    ("entries", 7),
    ("in use by", 14),
)
_TRUST = (
    "Jobs that share a scope can change each other's packages: "
    "give every team or project that should not a scope of its own."
)
_NONE_YET = "No cache yet: the first job with packages makes one."

Key = tuple[str, str, str]


class CachesTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Next cache", show=False, id="caches.down"),
        Binding("up,k", "cursor_up", "Previous cache", show=False, id="caches.up"),
        Binding("home,g", "scroll_top", "First cache", show=False, id="caches.first"),
        Binding("end,G", "scroll_bottom", "Last cache", show=False, id="caches.last"),
    ]


class CachesScreen(StokeScreen):
    CHANGES = frozenset({"clear"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", id="caches.measure"),
        Binding("c", "clear", "Clear", id="caches.clear"),
        Binding("r", "reload", "Look again", id="caches.reload"),
        Binding("escape", "back", "Back to the jobs", show=False, id="caches.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._volumes: dict[Key, Volume] = {}
        self._busy: dict[Key, str] = {}
        self._troubles: dict[str, StokeError] = {}
        self._looking: set[str] = set()

    def compose(self) -> ComposeResult:
        yield TopBar("caches")
        yield Static(Text(_TRUST), id="caches-trust", classes="hint")
        yield CachesTable(id="caches-table", cursor_type="row")
        yield Static(id="caches-empty")
        yield Static(id="caches-detail")
        yield Static(id="caches-troubles", classes="troubles")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        table = self.query_one(CachesTable)
        for label, width in _COLUMNS:
            table.add_column(Text(label), width=width, key=label)
        table.focus()

    def on_screen_resume(self) -> None:
        # A volume may have come or grown since the screen was left.
        if not self._busy:
            self.action_reload()

    # --- showing ----------------------------------------------------------------------------------

    def action_reload(self) -> None:
        for name in backend_names():
            if name not in self._looking:
                self._looking.add(name)
                on_thread(
                    self,
                    partial(self._look, name),
                    partial(self._found, name),
                    partial(self._down, name),
                )
        self._show()

    def _look(self, name: str) -> list[Volume]:
        return self._housekeeper().volumes(self.stoke.service.backends.get(name))

    def _housekeeper(self) -> Housekeeper:
        return Housekeeper(self.stoke.history, self.stoke.config.lock_ttl)

    def _found(self, name: str, volumes: list[Volume]) -> None:
        self._looking.discard(name)
        self._troubles.pop(name, None)
        before, self._volumes = (
            self._volumes,
            {key: volume for key, volume in self._volumes.items() if volume.backend != name},
        )
        for volume in volumes:
            key = _key(volume)
            measured = before.get(key)
            # A figure taken here outlives a listing that knows none; its age stands beside it.
            newer = measured and (measured.measured_at or 0) > (volume.measured_at or 0)
            self._volumes[key] = measured if measured and newer else volume
        self._show()

    def _down(self, name: str, error: StokeError) -> None:
        self._looking.discard(name)
        self._troubles[name] = error
        self._show()

    def _show(self) -> None:
        table = self.query_one(CachesTable)
        chosen = self._chosen()
        table.clear()
        for key, volume in sorted(self._volumes.items()):
            table.add_row(*self._row(key, volume), key="/".join(key))
        if chosen is not None and chosen in self._volumes:
            table.move_cursor(row=sorted(self._volumes).index(chosen))
        table.display = bool(self._volumes)
        empty = self.query_one("#caches-empty", Static)
        empty.display = not self._volumes
        empty.update(Text("looking ..." if self._looking else _NONE_YET))
        self._show_detail()
        troubles = self.query_one("#caches-troubles", Static)
        troubles.display = bool(self._troubles)
        troubles.update(
            Text("\n").join(
                Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.error_text(error))
                for name, error in sorted(self._troubles.items())
            )
        )
        self.refresh_bindings()

    @on(DataTable.RowHighlighted)
    def _show_detail(self) -> None:
        text = Text()
        chosen = self._chosen()
        if chosen is not None:
            volume = self._volumes[chosen]
            text.append_text(fmt.plain(fmt.place(volume.name), "bold"))
            if volume.in_use_by:
                text.append_text(fmt.plain(f" in use by {', '.join(volume.in_use_by)}", "yellow"))
            text.append("\n")
        if self._volumes:
            total = [volume.bytes for volume in self._volumes.values() if volume.bytes is not None]
            unmeasured = len(self._volumes) - len(total)
            text.append(f"{fmt.size(sum(total) if total else None)} in all")
            if unmeasured:
                text.append(f", {unmeasured} not measured: m measures", style="yellow")
        for key, doing in self._busy.items():
            text.append("\n")
            text.append_text(fmt.plain(f"{fmt.place(key[2])}: {doing}", "cyan"))
        self.query_one("#caches-detail", Static).update(text)

    def _row(self, key: Key, volume: Volume) -> tuple[Text, ...]:
        age = fmt.UNKNOWN
        if volume.measured_at is not None:
            age = f"{fmt.age(self.stoke.clock() - volume.measured_at)} ago"
        entries = fmt.UNKNOWN if volume.entries is None else f"{volume.entries:,}"
        holders = ", ".join(volume.in_use_by)
        return (
            fmt.plain(volume.backend),
            fmt.plain(volume.scope),
            fmt.plain(volume.kind),
            Text(fmt.size(volume.bytes), justify="right"),
            Text("..." if key in self._busy else age, justify="right"),
            Text(entries, justify="right"),
            fmt.plain(holders, "yellow") if holders else Text("nobody", style="dim"),
        )

    def _chosen(self) -> Key | None:
        table = self.query_one(CachesTable)
        if not table.row_count:
            return None
        value = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((key for key in self._volumes if "/".join(key) == value), None)

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if action in ("measure", "clear") and self.is_mounted:
            chosen = self._chosen()
            return chosen is not None and chosen not in self._busy
        return True

    def _measure(self, volume: Volume) -> Volume:
        backend = self.stoke.service.backends.get(volume.backend)
        return self._housekeeper().measured(backend, volume, lambda _: None)

    def action_measure(self) -> None:
        key = self._chosen()
        if key is None:
            return
        self._set_busy(key, "measuring ...")

        def done(volume: Volume) -> None:
            if key in self._volumes:
                self._volumes[key] = volume
            self._set_busy(key, None)

        on_thread(
            self, partial(self._measure, self._volumes[key]), done, partial(self._failed, key)
        )

    def _failed(self, key: Key, error: StokeError) -> None:
        self._set_busy(key, None)
        self.stoke.show_error(error)

    def _set_busy(self, key: Key, doing: str | None) -> None:
        if doing is None:
            self._busy.pop(key, None)
        else:
            self._busy[key] = doing
        self._show()

    def action_clear(self) -> None:
        key = self._chosen()
        if key is None:
            return
        volume = self._volumes[key]

        def answered(yes: bool | None) -> None:
            if yes:
                self._clear(key, volume)

        self.app.push_screen(ClearCache(volume, partial(self._measure, volume)), answered)

    def _clear(self, key: Key, volume: Volume) -> None:
        self._set_busy(key, "clearing ...")

        def progress(step: str) -> None:
            self.app.call_later(self._set_busy, key, f"clearing: {step}")

        def work() -> int:
            backend = self.stoke.service.backends.get(volume.backend)
            return self._housekeeper().clear(backend, volume, progress).bytes

        def done(freed: int) -> None:
            self._busy.pop(key, None)
            # What was measured before says nothing any more.
            self._volumes[key] = replace(volume, bytes=None, entries=None, measured_at=None)
            self.app.notify(f"freed {fmt.size(freed)}", markup=False)
            self.action_reload()

        on_thread(self, work, done, partial(self._failed, key))

    def action_back(self) -> None:
        self.app.switch_mode("jobs")


def _key(volume: Volume) -> Key:
    return (volume.backend, volume.node or "", volume.name)

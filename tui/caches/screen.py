"""Caches: a row for each volume with its size, savings and users; and the actions on volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Static

from stoke.backend.api import Volume
from stoke.backend.registry import backend_names
from stoke.cache.volumes import Housekeeper, Progress, Pruned, Usage
from stoke.errors import StokeError
from stoke.history.job import Job
from stoke.jobs.request import Request
from stoke.request.fields import TRUST
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import WIDE, StokeScreen
from tui.caches.clear import ClearCache
from tui.caches.environments import EnvironmentsScreen
from tui.caches.measuring import BackgroundMeasuring
from tui.caches.prune import Plan, PruneCache
from tui.caches.warm import WarmCache
from tui.context import Context
from tui.jobs_snapshot import JobsSnapshot
from tui.messages import ShowScreen
from tui.metrics.cache_figures import CacheHistory, read_cache_history
from tui.threads import Work, WorkCancelledError, call_in, on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.tiles import Tiles
from tui.widgets.top_bar import TopBar

# The names of jobs get what the other columns leave.
_COLUMNS = (
    ("on", 6),
    ("scope", 13),
    ("kind", 6),
    ("size", 7),
    ("envs", 4),
    ("hit%", 4),
    ("saved", 6),
    ("not recv", 8),
    ("used by", 0),
)
# Of a wide screen.
_WIDE_COLUMNS = (
    ("on", 8),
    ("scope", 16),
    ("kind", 6),
    ("size", 8),
    ("share", 10),
    ("age", 4),
    ("envs", 4),
    ("hit rate", 8),
    ("time saved", 10),
    ("data saved", 10),
    ("used by", 0),
)
_NO_CACHES = "No caches yet. The first job with packages makes one, or press W to warm one."

Key = tuple[str, str, str]
T = TypeVar("T")


class CachesTable(DataTable[Text]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.environments", "Environments", id="caches.enter"),
        Binding("down,j", "cursor_down", "Next cache", show=False, id="caches.down"),
        Binding("up,k", "cursor_up", "Previous cache", show=False, id="caches.up"),
        Binding("home,g", "scroll_top", "First cache", show=False, id="caches.first"),
        Binding("end,G", "scroll_bottom", "Last cache", show=False, id="caches.last"),
    ]


class CachesScreen(StokeScreen):
    CHANGES = frozenset({"prune", "clear", "warm"})
    PANES = "#caches-table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", id="caches.measure"),
        Binding("p", "prune", "Prune", id="caches.prune"),
        Binding("d", "clear", "Clear", id="caches.clear"),
        Binding("W", "warm", "Warm", id="caches.warm"),
        Binding("V", "workspaces", "Workspaces", id="caches.workspaces"),
        Binding("f5", "reload", "Reload", show=False, id="caches.reload"),
        Binding("ctrl+c", "end", "Cancel work", show=False, id="caches.end"),
        Binding("escape", "end_or_back", "Cancel work, or back", show=False, id="caches.back"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._volumes: dict[Key, Volume] = {}
        self._works: dict[Key, Work] = {}
        self._warming: set[str] = set()
        self._data: CacheHistory | None = None
        self._errors: dict[str, StokeError] = {}
        self._listing: set[str] = set()
        self._all_listed = False
        self._background = BackgroundMeasuring(self, self._measure, self._measured)
        self._scopes: dict[str, str] = {}
        """Each scope as its cells show it."""

    def compose(self) -> ComposeResult:
        # Imported here: plotext would delay the first frame of the program.
        from tui.widgets.plots import BYTES, SHARE, TimePlot

        yield TopBar("caches", self.context.read_only)
        yield Static(Text(TRUST), id="caches-trust", classes="hint")
        yield Tiles(("time saved", "data saved", "hit rate", "in caches"), id="caches-tiles")
        yield CachesTable(id="caches-table", cursor_type="row")
        yield Static(id="caches-empty")
        yield Static(id="caches-detail")
        with Horizontal(id="caches-plots"):
            yield TimePlot("size", BYTES, "Not measured yet.", id="caches-sizes")
            yield TimePlot("hit rate", SHARE, "Not used yet.", id="caches-hits")
        yield Static(id="caches-errors", classes="errors")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(CachesTable).focus()
        self.context.snapshots.subscribe(self, self._jobs_changed)

    def on_screen_resume(self) -> None:
        # Volumes may have been added or have grown meanwhile.
        if not self._works:
            self.action_reload()

    def on_resize(self) -> None:
        table = self.query_one(CachesTable)
        columns = _WIDE_COLUMNS if self._wide else _COLUMNS
        left = self.size.width - sum(width for _, width in columns) - 2 * len(columns) - 1
        widths = [width or left for _, width in columns]
        if widths != [column.width for column in table.ordered_columns]:
            table.clear(columns=True)
            for (label, _), width in zip(columns, widths, strict=True):
                is_text = label in ("on", "scope", "kind", "share", "used by")
                table.add_column(Text(label, justify="left" if is_text else "right"), width=width)
        self._show()

    @property
    def _wide(self) -> bool:
        return self.size.width >= WIDE

    # --- reading ----------------------------------------------------------------------------------

    def action_reload(self) -> None:
        for name in backend_names():
            if name not in self._listing:
                self._listing.add(name)
                on_thread(
                    self,
                    partial(self._volumes_of, name),
                    partial(self._show_volumes, name),
                    partial(self._show_failure, name),
                )
        read = partial(read_cache_history, self.context.history, now=self.context.clock())
        on_thread(self, read, self._loaded, self._failed)
        self._show()

    def _volumes_of(self, name: str) -> list[Volume]:
        return self._housekeeper().volumes(self.context.backends.get(name))

    def _housekeeper(self) -> Housekeeper:
        return Housekeeper(self.context.history, self.context.config.lock_ttl)

    def _show_volumes(self, name: str, volumes: list[Volume]) -> None:
        self._listing.discard(name)
        self._errors.pop(name, None)
        before, self._volumes = (
            self._volumes,
            {key: volume for key, volume in self._volumes.items() if volume.backend != name},
        )
        for volume in volumes:
            key = _key(volume)
            measured = before.get(key)
            # A newer measurement outlives a listing that began before it; the list of users does not.
            if measured and (measured.measured_at or 0) > (volume.measured_at or 0):
                volume = replace(measured, in_use_by=volume.in_use_by)
            self._volumes[key] = volume
        self._show()
        if self.context.backends.get(name).capabilities.caches_here:
            self._background.add(volumes, self.context.snapshot.jobs)

    def on_unmount(self) -> None:
        self._background.close()

    def _measured(self, volume: Volume) -> None:
        """Show a volume that was measured in the background."""
        if _key(volume) in self._volumes:
            self._volumes[_key(volume)] = volume
            self._show()

    def _show_failure(self, name: str, error: StokeError) -> None:
        self._listing.discard(name)
        self._errors[name] = error
        self._show()

    def _loaded(self, data: CacheHistory) -> None:
        self._errors.pop("history", None)
        self._data = data
        self._show()

    def _failed(self, error: StokeError) -> None:
        self._errors["history"] = error
        self._show()

    def _jobs_changed(self, snapshot: JobsSnapshot) -> None:
        """Notify of the end of warm jobs that were started here, and measure what jobs added to."""
        here = [
            volume
            for volume in self._volumes.values()
            if self.context.backends.get(volume.backend).capabilities.caches_here
        ]
        self._background.add(here, snapshot.jobs)
        if not self._warming:
            return
        for job in snapshot.jobs:
            if job.id in self._warming and job.state.finished:
                self._warming.discard(job.id)
                why = f": {clean(job.reason)}" if job.reason else ""
                self.notify(
                    f"{clean(job.id)} {job.state} in {fmt.duration(job.seconds)}{why}",
                    severity="information" if job.exit_code == 0 else "error",
                    markup=False,
                )
                self._measure_warmed(job)
                self.action_reload()
        self._show_detail()

    def _measure_warmed(self, job: Job) -> None:
        """Measure what a warm job has added to, also where that starts a container."""
        if self.context.backends.get(job.backend).capabilities.pods:
            return
        grown = [
            volume
            for volume in self._volumes.values()
            if (volume.backend, volume.scope) == (job.backend, job.scope)
        ]
        self._background.add(grown, (job,))

    # --- showing ----------------------------------------------------------------------------------

    def _show(self) -> None:
        table = self.query_one(CachesTable)
        current = self._current()
        # Backends answer in any order. Until all have, an unmoved cursor stays on the first row.
        stays = self._all_listed or table.cursor_row > 0
        self._all_listed = self._all_listed or not self._listing
        keys = sorted(self._volumes)
        width = dict(_WIDE_COLUMNS if self._wide else _COLUMNS)["scope"]
        scopes = (volume.scope for volume in self._volumes.values())
        self._scopes = fmt.cut_distinct(scopes, width)
        with self.prevent(DataTable.RowHighlighted):
            table.clear()
            for key in keys:
                table.add_row(*self._row(key, self._volumes[key]), key="/".join(key))
            if current in self._volumes and stays:
                table.move_cursor(row=keys.index(current))
        table.display = bool(self._volumes)
        tiles = self.query_one(Tiles)
        tiles.display = bool(self._volumes)
        savings = self._data.savings if self._data else (fmt.UNKNOWN,) * 3
        tiles.show((*savings, fmt.size(self._total)))
        self.query_one("#caches-plots").display = bool(self._volumes)
        empty = self.query_one("#caches-empty", Static)
        empty.display = not self._volumes
        empty.update(Text("Loading ..." if self._listing else _NO_CACHES))
        self._show_current()
        errors = self.query_one("#caches-errors", Static)
        errors.display = bool(self._errors)
        errors.update(self._problems())

    def _problems(self) -> Text:
        """Return what failed. An engine that no job has used is only named: few machines have all."""
        figures = self._data.metrics.figures if self._data else ()
        used = {"history", self.context.config.backend, *(one.backend for one in figures)}
        used |= {backend for backend, *_ in self._volumes}
        lines = [
            Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.error_text(error))
            for name, error in sorted(self._errors.items())
            if name in used
        ]
        if unused := [clean(name) for name in sorted(self._errors) if name not in used]:
            missing = f"Unavailable: {', '.join(unused)}. stoke doctor says why."
            lines.append(Text(missing, "$quiet"))
        return Text("\n").join(lines)

    @on(DataTable.RowHighlighted)
    def _show_current(self) -> None:
        self._show_detail()
        self._show_plots()
        self.refresh_bindings()

    def _show_detail(self) -> None:
        text = Text()
        current = self._current()
        if current is not None:
            volume = self._volumes[current]
            text.append_text(fmt.plain(fmt.place(volume.name), "bold"))
            if volume.node:
                text.append_text(fmt.plain(f" on {volume.node}"))
            if volume.measured_at is not None and not self._wide:
                text.append(f" measured {self._age(volume)} ago", style="$quiet")
            if volume.in_use_by:
                text.append_text(fmt.plain(f" in use by {', '.join(volume.in_use_by)}", "$warn"))
            text.append("\n")
        if self._volumes:
            unmeasured = sum(volume.bytes is None for volume in self._volumes.values())
            text.append(f"{fmt.size(self._total)} in total")
            if unmeasured:
                text.append(f", {unmeasured} not measured (m measures)", style="$warn")
        for key, work in self._works.items():
            step = "cancelling" if work.cancelled else f"{work.step or 'starting'} (esc cancels)"
            text.append("\n")
            text.append_text(fmt.plain(f"{work.doing} {_short(key)}: {step}", "$busy"))
        jobs = {job.id: job for job in self.context.snapshot.jobs}
        for job_id in sorted(self._warming):
            job = jobs.get(job_id)
            phase = f", {job.phases[-1].name}" if job and job.phases else ""
            state = job.state if job else "submitted"
            text.append("\n")
            text.append_text(fmt.plain(f"{job_id}: {state}{phase} (1 shows it)", "$busy"))
        self.query_one("#caches-detail", Static).update(text)

    def _show_plots(self) -> None:
        from tui.widgets.plots import Line, TimePlot

        current = self._current()
        if current is None:
            return
        volume, data, now = self._volumes[current], self._data, self.context.clock()
        sizes = data.sizes_of(volume) if data else []
        rates = data.hit_rates(volume) if data else []
        figures = data.figures(volume) if data else None
        size, rate = fmt.size(volume.bytes), fmt.share(figures.hit_rate if figures else None)
        self.query_one("#caches-sizes", TimePlot).show([Line(volume.kind, size, sizes)], now)
        self.query_one("#caches-hits", TimePlot).show(
            [Line(volume.kind, rate, rates, data.interval if data else None)], now
        )

    @property
    def _total(self) -> int | None:
        """Bytes of the volumes that were measured."""
        sizes = [volume.bytes for volume in self._volumes.values() if volume.bytes is not None]
        return sum(sizes) if sizes else None

    def _row(self, key: Key, volume: Volume) -> Sequence[Text]:
        size = fmt.size(volume.bytes)
        is_busy = key in self._works
        figures = self._data.figures(volume) if self._data else None
        count = len(volume.in_use_by)
        users = fmt.cell(", ".join(volume.in_use_by), "$warn")
        if not self._wide:
            # Their names are below the table.
            users = Text(fmt.count(count, "job"), style="$warn")
        share = (_share_bar(volume.bytes, self._total),) if self._wide else ()
        # Of a narrow screen, the age of the measurement is below the table.
        ages = (_right("..." if is_busy else self._age(volume)),) if self._wide else ()
        return (
            fmt.cell(volume.backend),
            Text(self._scopes[volume.scope]),
            fmt.cell(volume.kind),
            _right("..." if is_busy and not self._wide else size),
            *share,
            *ages,
            _right(fmt.UNKNOWN if volume.entries is None else f"{volume.entries:,}"),
            _right(fmt.share(figures.hit_rate if figures else None)),
            _right(fmt.duration(figures.saved_seconds if figures else None)),
            _right(fmt.size(figures.saved_bytes if figures else None)),
            users if count else Text("none", style="$quiet"),
        )

    def _age(self, volume: Volume) -> str:
        """Return how long ago a volume was measured."""
        if volume.measured_at is None:
            return fmt.UNKNOWN
        return fmt.age(self.context.clock() - volume.measured_at)

    def _current(self) -> Key | None:
        table = self.query_one(CachesTable)
        if not table.row_count:
            return None
        value = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((key for key in self._volumes if "/".join(key) == value), None)

    # --- work on a volume -------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if not self.is_mounted:
            return True
        current = self._current()
        if action in ("measure", "clear", "prune"):
            return current is not None and current not in self._works
        if action == "environments":
            return current is not None
        if action == "end":
            return self._work_to_cancel() is not None
        return True

    def _work_to_cancel(self) -> Work | None:
        """Return the work on the current volume, or else any other."""
        current = self._current()
        works = [work for work in self._works.values() if not work.cancelled]
        mine = self._works.get(current) if current else None
        return mine if mine in works else next(iter(works), None)

    def action_end(self) -> None:
        work = self._work_to_cancel()
        if work is not None:
            work.cancel()
            self._show_current()

    def action_end_or_back(self) -> None:
        if self._work_to_cancel() is not None:
            self.action_end()
        else:
            self.post_message(ShowScreen("jobs"))

    def _start_work(
        self, key: Key, doing: str, do: Callable[[Progress], T], done: Callable[[T], object]
    ) -> None:
        """Run `do` on a thread, with its progress on the screen and a key that cancels it."""
        work = Work(doing, lambda: call_in(self, self._show_detail))
        self._works[key] = work

        def ended(result: T) -> None:
            del self._works[key]
            done(result)
            self.action_reload()

        def failed(error: StokeError) -> None:
            del self._works[key]
            if isinstance(error, WorkCancelledError):
                self.notify(f"{doing} {clean(_short(key))}: cancelled", markup=False)
            else:
                self.show_error(error)
            # The work may be half done, or the volume may have been removed.
            self.action_reload()

        on_thread(self, lambda: do(work.progress), ended, failed)
        self._show()

    def _measure(self, volume: Volume, progress: Progress) -> Volume:
        backend = self.context.backends.get(volume.backend)
        return self._housekeeper().measure(backend, volume, progress)

    def action_measure(self) -> None:
        key = self._current()
        if key is None:
            return

        def done(volume: Volume) -> None:
            if key in self._volumes:
                self._volumes[key] = volume

        self._start_work(key, "measuring", partial(self._measure, self._volumes[key]), done)

    def action_environments(self) -> None:
        key = self._current()
        if key is None:
            return
        volume = self._volumes[key]
        backends = self.context.backends

        def usage(progress: Progress) -> Usage:
            return self._housekeeper().usage(backends.get(volume.backend), volume, progress)

        self.app.push_screen(EnvironmentsScreen(self.context, volume, usage))

    def action_workspaces(self) -> None:
        from tui.caches.workspaces import WorkspacesScreen

        self.app.push_screen(WorkspacesScreen(self.context))

    def action_clear(self) -> None:
        key = self._current()
        if key is None:
            return
        volume = self._volumes[key]

        def clear(progress: Progress) -> Pruned:
            backend = self.context.backends.get(volume.backend)
            return self._housekeeper().clear(backend, volume, progress)

        def answered(yes: bool | None) -> None:
            if yes:
                self._start_work(key, "clearing", clear, self._freed)

        self.app.push_screen(ClearCache(volume, partial(self._measure, volume)), answered)

    def action_prune(self) -> None:
        key = self._current()
        if key is None:
            return
        volume = self._volumes[key]

        def prune(plan: Plan, dry_run: bool, progress: Progress) -> Pruned:
            return self._housekeeper().prune(
                self.context.backends.get(volume.backend),
                volume,
                progress,
                unused=plan.unused,
                max_bytes=plan.max_bytes,
                dry_run=dry_run,
            )

        def answered(plan: Plan | None) -> None:
            if plan is not None:
                self._start_work(
                    key, "pruning", lambda progress: prune(plan, False, progress), self._freed
                )

        def dry_run(plan: Plan, progress: Progress) -> Pruned:
            return prune(plan, True, progress)

        budget = self.context.config.budget(volume.scope)
        self.app.push_screen(PruneCache(volume, budget, dry_run), answered)

    def _freed(self, pruned: Pruned) -> None:
        text = f"freed {fmt.size(pruned.bytes)}"
        if pruned.busy:
            text += f"; {len(pruned.busy)} in use kept"
        if pruned.trouble:
            text += f"; {clean(pruned.trouble)}; prune again to free the rest"
        self.notify(text, markup=False, severity="warning" if pruned.trouble else "information")

    # --- warming ----------------------------------------------------------------------------------

    def action_warm(self) -> None:
        key = self._current()
        config = self.context.config
        backend, scope = config.backend, config.scope
        if key is not None:
            backend, scope = self._volumes[key].backend, self._volumes[key].scope

        def answered(requests: list[Request] | None) -> None:
            for request in requests or ():
                self._warm(backend, request)

        self.app.push_screen(WarmCache(self.context, backend, scope), answered)

    def _warm(self, backend: str, request: Request) -> None:
        def done(job: Job) -> None:
            self._warming.add(job.id)
            self._show_detail()

        self.context.submissions.submit(self, backend, lambda: request, done, self.show_error)


def _key(volume: Volume) -> Key:
    return (volume.backend, volume.node or "", volume.name)


def _short(key: Key) -> str:
    _, node, name = key
    return f"{fmt.place(name)} on {node}" if node else fmt.place(name)


def _share_bar(part: int | None, whole: int | None) -> Text:
    if not part or not whole:
        return Text()
    width = dict(_WIDE_COLUMNS)["share"]
    length = max(1, round(part / whole * width))
    return Text.assemble(("━" * length, "$good"), ("─" * (width - length), "$quiet"))


def _right(text: str) -> Text:
    return Text(text, justify="right")

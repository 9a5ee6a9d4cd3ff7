"""Caches: a row a volume, what it holds, what it saves and who uses it; and looking after it."""

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
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import WIDE, StokeScreen
from tui.caches.clear import ClearCache
from tui.caches.environments import EnvironmentsScreen
from tui.caches.prune import Plan, PruneCache
from tui.caches.warm import WarmCache
from tui.metrics.cache_figures import Records, read_records
from tui.new_job.form import TRUST
from tui.snapshot import Snapshot
from tui.threads import GivenUpError, Work, answer, on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar

# With what stands between them 79 columns, so that 80 hold a scroll bar too; and what a wide screen
# has more room for.
_COLUMNS = (
    ("on", 6),
    ("scope", 8),
    ("kind", 6),
    ("size", 7),
    ("age", 4),
    ("envs", 4),
    ("hits", 4),
    ("saved", 6),
    ("saved", 7),
    ("used by", 7),
)
_WIDER = {1: 16, 9: 28}
_NONE_YET = "No cache yet: the first job with packages makes one, or w warms one."

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
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", id="caches.measure"),
        Binding("p", "prune", "Prune", id="caches.prune"),
        Binding("c", "clear", "Clear", id="caches.clear"),
        Binding("w", "warm", "Warm", id="caches.warm"),
        Binding("r", "reload", "Look again", show=False, id="caches.reload"),
        Binding("ctrl+c", "end", "End what goes on", show=False, id="caches.end"),
        Binding("escape", "end_or_back", "End what goes on, or back", show=False, id="caches.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._volumes: dict[Key, Volume] = {}
        self._works: dict[Key, Work] = {}
        self._warming: set[str] = set()
        self._records: Records | None = None
        self._troubles: dict[str, StokeError] = {}
        self._looking: set[str] = set()
        self._all_told = False

    def compose(self) -> ComposeResult:
        # Here, so that the first paint of the program need not wait for plotext.
        from tui.widgets.plots import BYTES, SHARE, TimePlot

        yield TopBar("caches")
        yield Static(Text(TRUST), id="caches-trust", classes="hint")
        yield CachesTable(id="caches-table", cursor_type="row")
        yield Static(id="caches-empty")
        yield Static(id="caches-detail")
        with Horizontal(id="caches-plots"):
            yield TimePlot("size", BYTES, "not measured yet", id="caches-sizes")
            yield TimePlot("hit rate", SHARE, "no job has used it yet", id="caches-hits")
        yield Static(id="caches-troubles", classes="troubles")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(CachesTable).focus()
        self.stoke.jobs_signal.subscribe(self, self._jobs_changed)

    def on_screen_resume(self) -> None:
        # A volume may have come or grown since the screen was left.
        if not self._works:
            self.action_reload()

    def on_resize(self) -> None:
        table = self.query_one(CachesTable)
        widths = [
            _WIDER.get(number, width) if self._wide else width
            for number, (_, width) in enumerate(_COLUMNS)
        ]
        if widths != [column.width for column in table.ordered_columns]:
            table.clear(columns=True)
            for (label, _), width in zip(_COLUMNS, widths, strict=True):
                table.add_column(Text(label), width=width)
        self._show()

    @property
    def _wide(self) -> bool:
        return self.size.width >= WIDE

    # --- what there is ----------------------------------------------------------------------------

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
        on_thread(self, lambda: read_records(self.stoke.history), self._told, self._untold)
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
            # A figure taken here outlives a listing that began before it; who uses it does not.
            if measured and (measured.measured_at or 0) > (volume.measured_at or 0):
                volume = replace(measured, in_use_by=volume.in_use_by)
            self._volumes[key] = volume
        self._show()

    def _down(self, name: str, error: StokeError) -> None:
        self._looking.discard(name)
        self._troubles[name] = error
        self._show()

    def _told(self, records: Records) -> None:
        self._troubles.pop("history", None)
        self._records = records
        self._show()

    def _untold(self, error: StokeError) -> None:
        self._troubles["history"] = error
        self._show()

    def _jobs_changed(self, snapshot: Snapshot) -> None:
        """Warm jobs that were begun here are told of until they end."""
        if not self._warming:
            return
        for job in snapshot.jobs:
            if job.id in self._warming and job.state.finished:
                self._warming.discard(job.id)
                why = f": {clean(job.reason)}" if job.reason else ""
                self.app.notify(
                    f"{clean(job.id)} {job.state} in {fmt.duration(job.seconds)}{why}",
                    severity="information" if job.exit_code == 0 else "error",
                    markup=False,
                )
                self.action_reload()
        self._show_detail()

    # --- showing ----------------------------------------------------------------------------------

    def _show(self) -> None:
        table = self.query_one(CachesTable)
        chosen = self._chosen()
        # Backends answer in any order at first; who has not moved yet stays on the first row.
        stays = self._all_told or table.cursor_row > 0
        self._all_told = self._all_told or not self._looking
        keys = sorted(self._volumes)
        with self.prevent(DataTable.RowHighlighted):
            table.clear()
            for key in keys:
                table.add_row(*self._row(key, self._volumes[key]), key="/".join(key))
            if chosen in self._volumes and stays:
                table.move_cursor(row=keys.index(chosen))
        table.display = bool(self._volumes)
        self.query_one("#caches-plots").display = bool(self._volumes)
        empty = self.query_one("#caches-empty", Static)
        empty.display = not self._volumes
        empty.update(Text("looking ..." if self._looking else _NONE_YET))
        self._show_chosen()
        troubles = self.query_one("#caches-troubles", Static)
        troubles.display = bool(self._troubles)
        troubles.update(
            Text("\n").join(
                Text.assemble(fmt.plain(f"{name}: ", "bold"), fmt.error_text(error))
                for name, error in sorted(self._troubles.items())
            )
        )

    @on(DataTable.RowHighlighted)
    def _show_chosen(self) -> None:
        self._show_detail()
        self._show_plots()
        self.refresh_bindings()

    def _show_detail(self) -> None:
        text = Text()
        chosen = self._chosen()
        if chosen is not None:
            volume = self._volumes[chosen]
            text.append_text(fmt.plain(fmt.place(volume.name), "bold"))
            if volume.node:
                text.append_text(fmt.plain(f" on {volume.node}"))
            if volume.in_use_by:
                text.append_text(fmt.plain(f" in use by {', '.join(volume.in_use_by)}", "yellow"))
            text.append("\n")
        if self._volumes:
            total = [volume.bytes for volume in self._volumes.values() if volume.bytes is not None]
            unmeasured = len(self._volumes) - len(total)
            text.append(f"{fmt.size(sum(total) if total else None)} in all")
            if unmeasured:
                text.append(f", {unmeasured} not measured: m measures", style="yellow")
        for key, work in self._works.items():
            step = "ending" if work.given_up else f"{work.step or 'beginning'} (esc ends it)"
            text.append("\n")
            text.append_text(fmt.plain(f"{work.doing} {_short(key)}: {step}", "cyan"))
        jobs = {job.id: job for job in self.stoke.snapshot.jobs}
        for job_id in sorted(self._warming):
            job = jobs.get(job_id)
            phase = f", {job.phases[-1].name}" if job and job.phases else ""
            state = job.state if job else "submitted"
            text.append("\n")
            text.append_text(fmt.plain(f"{job_id}: {state}{phase} (1 lists it)", "cyan"))
        self.query_one("#caches-detail", Static).update(text)

    def _show_plots(self) -> None:
        from tui.widgets.plots import Line, TimePlot

        chosen = self._chosen()
        if chosen is None:
            return
        volume, records, now = self._volumes[chosen], self._records, self.stoke.clock()
        sizes = records.sizes_of(volume) if records else []
        rates = records.hit_rates(volume) if records else []
        figures = records.figures(volume) if records else None
        size, rate = fmt.size(volume.bytes), fmt.share(figures.hit_rate if figures else None)
        self.query_one("#caches-sizes", TimePlot).show([Line(volume.kind, size, sizes)], now)
        self.query_one("#caches-hits", TimePlot).show([Line(volume.kind, rate, rates)], now)

    def _row(self, key: Key, volume: Volume) -> Sequence[Text]:
        age = fmt.UNKNOWN
        if volume.measured_at is not None:
            age = fmt.age(self.stoke.clock() - volume.measured_at)
        figures = self._records.figures(volume) if self._records else None
        count = len(volume.in_use_by)
        users = fmt.plain(", ".join(volume.in_use_by), "yellow")
        if not self._wide:
            # Their names stand below the table.
            users = Text(fmt.count(count, "job"), style="yellow")
        return (
            fmt.plain(volume.backend),
            fmt.plain(volume.scope),
            fmt.plain(volume.kind),
            _right(fmt.size(volume.bytes)),
            _right("..." if key in self._works else age),
            _right(fmt.UNKNOWN if volume.entries is None else f"{volume.entries:,}"),
            _right(fmt.share(figures.hit_rate if figures else None)),
            _right(fmt.duration(figures.saved_seconds if figures else None)),
            _right(fmt.size(figures.saved_bytes if figures else None)),
            users if count else Text("nobody", style="dim"),
        )

    def _chosen(self) -> Key | None:
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
        chosen = self._chosen()
        if action in ("measure", "clear", "prune"):
            return chosen is not None and chosen not in self._works
        if action == "environments":
            return chosen is not None
        if action == "end":
            return self._to_end() is not None
        return True

    def _to_end(self) -> Work | None:
        """The work on the chosen volume, or else any that goes on."""
        chosen = self._chosen()
        works = [work for work in self._works.values() if not work.given_up]
        mine = self._works.get(chosen) if chosen else None
        return mine if mine in works else next(iter(works), None)

    def action_end(self) -> None:
        work = self._to_end()
        if work is not None:
            work.give_up()
            self._show_chosen()

    def action_end_or_back(self) -> None:
        if self._to_end() is not None:
            self.action_end()
        else:
            self.app.switch_mode("jobs")

    def _begin(
        self, key: Key, doing: str, do: Callable[[Progress], T], done: Callable[[T], object]
    ) -> None:
        """Runs `do` on a thread, with its progress on the screen and a key that ends it."""
        work = Work(doing, lambda: answer(self, self._show_detail))
        self._works[key] = work

        def ended(result: T) -> None:
            del self._works[key]
            done(result)
            self.action_reload()

        def failed(error: StokeError) -> None:
            del self._works[key]
            if isinstance(error, GivenUpError):
                self.app.notify(f"{doing} {clean(_short(key))}: ended", markup=False)
            else:
                self.stoke.show_error(error)
            # Whatever it was may have gone half the way, or the volume may be gone.
            self.action_reload()

        on_thread(self, lambda: do(work.progress), ended, failed)
        self._show()

    def _measured(self, volume: Volume, progress: Progress) -> Volume:
        backend = self.stoke.service.backends.get(volume.backend)
        return self._housekeeper().measured(backend, volume, progress)

    def action_measure(self) -> None:
        key = self._chosen()
        if key is None:
            return

        def done(volume: Volume) -> None:
            if key in self._volumes:
                self._volumes[key] = volume

        self._begin(key, "measuring", partial(self._measured, self._volumes[key]), done)

    def action_environments(self) -> None:
        key = self._chosen()
        if key is None:
            return
        volume = self._volumes[key]
        backends = self.stoke.service.backends

        def usage(progress: Progress) -> Usage:
            return self._housekeeper().usage(backends.get(volume.backend), volume, progress)

        self.app.push_screen(EnvironmentsScreen(volume, usage))

    def action_clear(self) -> None:
        key = self._chosen()
        if key is None:
            return
        volume = self._volumes[key]

        def clear(progress: Progress) -> Pruned:
            backend = self.stoke.service.backends.get(volume.backend)
            return self._housekeeper().clear(backend, volume, progress)

        def answered(yes: bool | None) -> None:
            if yes:
                self._begin(key, "clearing", clear, self._freed)

        self.app.push_screen(ClearCache(volume, partial(self._measured, volume)), answered)

    def action_prune(self) -> None:
        key = self._chosen()
        if key is None:
            return
        volume = self._volumes[key]

        def prune(plan: Plan, dry_run: bool, progress: Progress) -> Pruned:
            return self._housekeeper().prune(
                self.stoke.service.backends.get(volume.backend),
                volume,
                progress,
                unused=plan.unused,
                max_bytes=plan.max_bytes,
                dry_run=dry_run,
            )

        def answered(plan: Plan | None) -> None:
            if plan is not None:
                self._begin(key, "pruning", lambda say: prune(plan, False, say), self._freed)

        def look(plan: Plan, progress: Progress) -> Pruned:
            return prune(plan, True, progress)

        budget = self.stoke.config.budget(volume.scope)
        self.app.push_screen(PruneCache(volume, budget, look), answered)

    def _freed(self, pruned: Pruned) -> None:
        text = f"freed {fmt.size(pruned.bytes)}"
        if pruned.busy:
            text += f"; {len(pruned.busy)} in use stayed"
        if pruned.trouble:
            text += f"; {clean(pruned.trouble)}; a later prune frees the rest"
        self.app.notify(text, markup=False, severity="warning" if pruned.trouble else "information")

    # --- warming ----------------------------------------------------------------------------------

    def action_warm(self) -> None:
        key = self._chosen()
        config = self.stoke.config
        backend, scope = config.backend, config.scope
        if key is not None:
            backend, scope = self._volumes[key].backend, self._volumes[key].scope

        def answered(requests: list[Request] | None) -> None:
            for request in requests or ():
                self._warm(backend, request)

        self.app.push_screen(WarmCache(backend, scope), answered)

    def _warm(self, backend: str, request: Request) -> None:
        def done(job: Job) -> None:
            self._warming.add(job.id)
            self._show_detail()

        self.stoke.hand_over(backend, request, done, self.stoke.show_error)


def _key(volume: Volume) -> Key:
    return (volume.backend, volume.node or "", volume.name)


def _short(key: Key) -> str:
    _, node, name = key
    return f"{fmt.place(name)} on {node}" if node else fmt.place(name)


def _right(text: str) -> Text:
    return Text(text, justify="right")

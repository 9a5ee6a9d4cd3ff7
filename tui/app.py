"""The program with the screens: what they share, and the way in and out."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

from rich.console import RenderableType
from textual import events
from textual._compositor import CompositorUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.message import Message
from textual.screen import Screen
from textual.signal import Signal
from textual.widget import AwaitMount

import styles
import tui.textual_patches.colour_cache  # noqa: F401
from stoke.cache.scopes import is_ephemeral
from stoke.errors import RequestError, StokeError
from stoke.history.database import History
from stoke.history.job import Job
from stoke.text.sanitize import clean, clean_block
from tui import keymap, themes, ui_state
from tui.base_screen import StokeScreen
from tui.command_palette import Actions
from tui.garbage_collection import Garbage
from tui.jobs.screen import JobsScreen
from tui.snapshot import Snapshot
from tui.terminal.bell import Bell
from tui.terminal.driver import LinkDriver, answering
from tui.terminal.frames import Canvas, Frame
from tui.threads import on_thread
from tui.widgets.top_bar import TopBar

# What the first frame does not show is imported when it is wanted: a start must not wait for it.
if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.config.model import Config
    from stoke.jobs.request import Request
    from stoke.race.recording import Recording
    from stoke.request.spec import JobSpec
    from tui.jobs_service import JobsService
    from tui.race.screen import RaceScreen

Place = tuple[str | None, str | None]
WHERE = {
    "jobs": "Jobs",
    "new": "New job",
    "caches": "Caches",
    "metrics": "Metrics",
    "race": "Race",
}


def _new_job() -> Screen[None]:
    from tui.new_job.screen import NewJobScreen

    return NewJobScreen()


def _caches() -> Screen[None]:
    from tui.caches.screen import CachesScreen

    return CachesScreen()


def _metrics() -> Screen[None]:
    from tui.metrics.screen import MetricsScreen

    return MetricsScreen()


def _race() -> Screen[None]:
    from tui.race.screen import RaceScreen

    return RaceScreen()


class SnapshotMessage(Message):
    """The service has read the history anew; only the newest reading matters."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotMessage)


class StokeApp(App[None]):
    """`clock` gives epoch seconds; tests stand it still. With a `recording` it begins in Race, on that.

    `StokeError` when there is no history. Without a configuration nothing is configured, and it is made
    when it is asked for first.
    """

    TITLE = "stoke"
    CSS = styles.stylesheet(*styles.FIRST)
    COMMANDS = App.COMMANDS | {Actions}
    MODES: ClassVar[dict[str, str | Callable[[], Screen[None]]]] = {
        "jobs": JobsScreen,
        "new": _new_job,
        "caches": _caches,
        "metrics": _metrics,
        "race": _race,
    }
    DEFAULT_MODE = "jobs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "switch('jobs')", "Jobs", show=False, id="app.jobs"),
        Binding("2", "switch('new')", "New job", show=False, id="app.new"),
        Binding("3", "switch('caches')", "Caches", show=False, id="app.caches"),
        Binding("4", "switch('metrics')", "Metrics", show=False, id="app.metrics"),
        Binding("5", "switch('race')", "Race", show=False, id="app.race"),
        # Not COMMAND_PALETTE_BINDING: that has priority and would take ":" away from editors.
        Binding("colon", "command_palette", "Commands", show=False, id="app.commands"),
        Binding("question_mark,f1", "help", "Help", id="app.help"),
        Binding("f2", "welcome", "Getting started", show=False, id="app.welcome"),
        Binding("ctrl+l", "redraw", "Draw the screen again", show=False, id="app.redraw"),
        Binding("M", "mouse", "Mouse on or off", show=False, id="app.mouse"),
        Binding("q", "back_or_quit", "Quit", id="app.quit"),
    ]

    def __init__(
        self,
        config: Config | None = None,
        clock: Callable[[], float] = time.time,
        recording: Recording | None = None,
    ) -> None:
        if config is not None and config.color == "never":
            os.environ["NO_COLOR"] = "1"
        super().__init__(driver_class=LinkDriver)
        self._given = config
        self.clock = clock
        self.history = History()
        self.reading = History(self.history.path, read_only=True)
        """For the screens: what is written meanwhile does not hold it up."""
        self.snapshot = Snapshot()
        self.jobs_signal: Signal[Snapshot] = Signal(self, "jobs")
        self._kept = ui_state.load("screens")
        self._clusters = _clusters(self._kept.get("clusters"))
        self._recording = recording
        self._canvas = Canvas()
        self._garbage: Garbage | None = None
        self._completing = self._leaves = False
        self._submissions = 0

    def on_mount(self) -> None:
        if not self.is_headless:
            # Whoever waits for Python's lock gets it after a millisecond instead of five: a thread that
            # takes a flood of output in must not hold up the keys.
            sys.setswitchinterval(0.001)
        own, wrong = themes.load()
        for one in own:
            self.register_theme(one)
        keys, problems = keymap.load()
        self.set_keymap(keys)
        wrong += problems
        wanted = (self._given.theme if self._given else None) or self._kept.get("theme")
        if wanted in self.available_themes:
            self.theme = wanted
        elif wanted is not None:
            known = ", ".join(sorted(self.available_themes))
            wrong.append(f"there is no theme called {wanted}; choose one of: {known}")
        for what in wrong:
            self.notify(clean(what), severity="warning", markup=False, timeout=10)
        self.theme_changed_signal.subscribe(self, lambda theme: self.keep(theme=theme.name))
        mode = self._kept.get("mode")
        if mode in self.MODES and mode != self.current_mode:
            self._load_sheets()
            self.switch_mode(mode)
        self.mode_change_signal.subscribe(self, lambda mode: self.keep(mode=mode))
        # An editor or the shell had the terminal meanwhile.
        self.app_resume_signal.subscribe(self, lambda _: self.action_redraw())

    @cached_property
    def config(self) -> Config:
        if self._given is not None:
            return self._given
        from stoke.config.loader import load_config

        return load_config()

    @property
    def read_only(self) -> bool:
        return self._given is not None and self._given.read_only

    @cached_property
    def _bell(self) -> Bell:
        return Bell(self.config.bell, self.config.bell_after)

    @cached_property
    def service(self) -> JobsService:
        from tui.jobs_service import JobsService

        return JobsService(
            self.config,
            self.history,
            self._post_snapshot,
            self._at_cluster,
            partial(answering, self),
        )

    def on_ready(self) -> None:
        self._completing = True
        self.screen.call_after_refresh(self._complete)

    async def _complete(self) -> None:
        """The first frame is shown: now for the rest. Who leaves meanwhile leaves behind it, because
        what is being mounted finds nothing when it is taken away."""
        self._load_sheets()
        screen = self.get_screen_stack("jobs")[0]
        assert isinstance(screen, JobsScreen)
        await screen.furnish()
        if not self.is_running:
            return  # Ended meanwhile, and nobody would end what begins here.
        self.service.start()
        if self._recording is not None:
            self.replay(self._recording)
        elif not self._kept.get("welcomed") and self._is_new():
            await self.action_welcome()
        if not self.is_headless:
            self._garbage = Garbage(self)
        self._completing = False
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if self._leaves and not self._submissions:
            self.exit()

    def _load_sheets(self) -> None:
        """Those of the other screens; once."""
        self.stylesheet.add_source(styles.stylesheet(*styles.LATER), ("styles", "later"))

    def _is_new(self) -> bool:
        try:
            return not self.history.list(limit=1)
        except StokeError:
            return False  # The listing says what is wrong with it.

    def keep(self, **values: object) -> None:
        """Keeps how the screens stand, for the next start."""
        self._kept.update(values)
        try:
            ui_state.save("screens", self._kept)
        except StokeError as error:
            self.show_error(error)

    def cluster(self, backend: str) -> Place:
        """(context, namespace) as chosen here for that backend; None: as configured."""
        return self._clusters.get(backend, (None, None))

    def choose_cluster(self, backend: str, context: str | None, namespace: str | None) -> None:
        """Where that backend's jobs go from now on, at the next start as well."""
        if (context, namespace) != self.cluster(backend):
            self._clusters[backend] = (context, namespace)
            self.keep(clusters=self._clusters)

    def kept(self, name: str) -> object:
        return self._kept.get(name)

    def _at_cluster(self, backend: Backend) -> None:
        from stoke.backend.capabilities import ChoosesCluster

        if isinstance(backend, ChoosesCluster):
            backend.choose(*self.cluster(backend.name))

    def exit(
        self, result: None = None, return_code: int = 0, message: RenderableType | None = None
    ) -> None:
        if self._completing:
            self._leaves = True
            return
        if self._submissions and not self._leaves:
            self._leaves = True
            self.notify("leaves once the job is submitted; again: leaves now", timeout=10)
            return
        # On unmounting it is too late: what a screen holds has gone by then.
        for stack in self._screen_stacks.values():
            for screen in stack:
                if isinstance(screen, StokeScreen):
                    screen.leaving()
        super().exit(result, return_code, message)

    def on_unmount(self) -> None:
        self.service.close()

    # --- the terminal -----------------------------------------------------------------------------

    def _display(
        self, screen: Screen[object], renderable: RenderableType | CompositorUpdate | None
    ) -> None:
        # Textual has no public hook between a frame and the terminal; its version is pinned.
        if isinstance(renderable, CompositorUpdate):
            renderable = Frame(renderable, self._canvas)
        super()._display(screen, renderable)  # type: ignore[arg-type]

    def on_resize(self, _: events.Resize) -> None:
        # A terminal that was smaller for a moment has lost what stood there, also when it is as large
        # as before by now.
        self.action_redraw()

    def action_redraw(self) -> None:
        """Draws the whole screen again, over what something else may have written there."""
        self._canvas.forget()
        self.screen.refresh()

    async def on_event(self, event: events.Event) -> None:
        if self._garbage is not None and isinstance(event, events.Key):
            self._garbage.pressed()
        await super().on_event(event)

    # --- what happens -----------------------------------------------------------------------------

    def _post_snapshot(self, snapshot: Snapshot) -> None:
        try:
            self.post_message(SnapshotMessage(snapshot))
        except RuntimeError:
            pass  # The program is leaving.

    def on_snapshot_message(self, message: SnapshotMessage) -> None:
        self._call(self._bell.ended(self.snapshot.jobs, message.snapshot.jobs))
        self.snapshot = message.snapshot
        self.jobs_signal.publish(message.snapshot)

    def _call(self, ended: list[Job]) -> None:
        """Tells of jobs that took long and are over."""
        for job in ended:
            self.notify(f"{clean(job.id)} {job.state}", markup=False)
        sequence = self._bell.sequence(ended)
        if sequence and self._driver is not None:
            self._driver.write(sequence)

    # --- what screens share -----------------------------------------------------------------------

    def show_error(self, error: StokeError) -> None:
        hint = f"\n{clean_block(error.hint)}" if error.hint else ""
        self.notify(f"{clean_block(error.what)}{hint}", severity="error", markup=False, timeout=10)

    def submit(
        self,
        backend: str,
        spec: JobSpec,
        name: str,
        failed: Callable[[StokeError], object],
        submitted: Callable[[], object] = lambda: None,
        watch: bool = True,
    ) -> None:
        """Submits on a thread, then shows the job if it is to be watched; `failed` gets what went
        wrong."""
        if self.read_only:
            failed(RequestError("read_only", "the screens change nothing here", "leave it out"))
            return

        def done(job: Job) -> None:
            submitted()
            self.notify(f"submitted {clean(job.id)}", markup=False, timeout=3)
            if watch:
                self.service.choose(job.id)
                self._show_job(job.id)

        self.hand_over(backend, self.request(spec, name), done, failed)

    def hand_over(
        self,
        backend: str,
        request: Request,
        done: Callable[[Job], object],
        failed: Callable[[StokeError], object],
    ) -> None:
        """Submits on a thread. Who leaves meanwhile leaves behind it, for a job half handed over would
        never start; if it fails they stay and see why."""
        from stoke.jobs.prepare import prepare
        from stoke.jobs.submit import submit

        def work() -> Job:
            engine = self.service.backends.get(backend)
            return submit(prepare(request, engine, self.history), self.history)

        def over() -> None:
            self._submissions -= 1
            self.service.look_now()

        def submitted(job: Job) -> None:
            done(job)
            over()
            self._leave_if_asked()

        def wrong(error: StokeError) -> None:
            over()
            self._leaves = False
            failed(error)

        self._submissions += 1
        on_thread(self, work, submitted, wrong)

    def request(self, spec: JobSpec, name: str) -> Request:
        """`spec` with what the configuration says of the way it is run."""
        from stoke.jobs.request import Request

        return Request(
            spec,
            name=name,
            lock_ttl=self.config.lock_ttl,
            on_cache_trouble=self.config.on_cache_trouble,
        )

    def race(self, backend: str, spec: JobSpec, name: str) -> None:
        """Opens Race, and runs this request there cold and warm."""
        request = self.request(spec, name)
        self._on_race(lambda screen: screen.race(backend, request))

    def replay(self, recording: Recording) -> None:
        """Opens Race on a recorded one."""
        self._on_race(lambda screen: screen.replay(recording))

    def _on_race(self, do: Callable[[RaceScreen], object]) -> None:
        def there() -> None:
            from tui.race.screen import RaceScreen

            screen = self.get_screen_stack("race")[0]
            assert isinstance(screen, RaceScreen)
            do(screen)

        self.switch_mode("race")
        self.call_after_refresh(there)

    def _show_job(self, job_id: str) -> None:
        self.switch_mode("jobs")
        screen = self.get_screen_stack("jobs")[0]
        assert isinstance(screen, JobsScreen)
        screen.watch_job(job_id)

    def edit(self, spec: JobSpec, name: str, backend: str) -> None:
        """Opens New job with this request in it."""

        def fill() -> None:
            from tui.new_job.screen import NewJobScreen

            screen = self.get_screen_stack("new")[0]
            assert isinstance(screen, NewJobScreen)
            screen.offer(spec, name, backend)

        self.switch_mode("new")
        self.call_after_refresh(fill)

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action not in ("switch", "help", "welcome", "back_or_quit"):
            return True
        # The palette is a dialog too, and offers them.
        return not self.screen.is_modal or isinstance(self.screen, CommandPalette)

    def action_switch(self, mode: str) -> None:
        if self.current_mode != mode:
            self.switch_mode(mode)

    def on_top_bar_picked(self, event: TopBar.Picked) -> None:
        self.action_switch(event.mode)

    def action_help(self) -> None:
        from tui.dialogs.prompts import Help

        focused = self.focused
        where = WHERE[self.current_mode]
        if focused is not None and focused.id:
            where += f", {focused.id.replace('-', ' ')}"
        self.push_screen(Help(where, list(self.screen.active_bindings.values())))

    def action_welcome(self) -> AwaitMount:
        """What this is. Comes by itself once, as long as there are no jobs."""
        from tui.dialogs.welcome import Welcome, example

        def chosen(what: str | None) -> None:
            if what == "example":
                spec = example(self.config)
                self.submit(self.config.backend, spec, "example", self.show_error)
            elif what == "help":
                self.action_help()
            elif what is not None:
                self.action_switch(what)

        self.keep(welcomed=True)
        return self.push_screen(Welcome(), chosen)

    def action_back_or_quit(self) -> None:
        if self.current_mode == "jobs":
            self.exit()
        else:
            self.switch_mode("jobs")

    def action_mouse(self) -> None:
        """With the mouse off the terminal selects text as it does elsewhere."""
        driver = self._driver
        if driver is None:
            return
        # A driver without a mouse ignores both calls, so it is on while they are made.
        on = not driver._mouse
        driver._mouse = True
        # Textual has no public switch; its version is pinned.
        (driver._enable_mouse_support if on else driver._disable_mouse_support)()  # type: ignore[attr-defined]
        driver._mouse = on
        self.notify("mouse on" if on else "mouse off: the terminal selects", timeout=3)

    def _fatal_error(self) -> None:
        """End the program after an unexpected error.

        Textual would print the traceback with its local variables, which can hold secrets.
        """
        from rich.text import Text

        from stoke.files.crash_report import report_crash

        error = self._exception
        if self._exit_renderables or error is None:
            return  # The first error is reported; the others follow from it.
        what, hint = report_crash(error)
        # Textual prints the first of these on stderr, after it has restored the terminal.
        self._exit_renderables.append(Text(f"error: {clean(what)}\nhint: {clean(hint)}"))
        self._close_messages_no_wait()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)


def _clusters(stored: object) -> dict[str, Place]:
    """What was kept of the choices, without what is none."""
    found: dict[str, Place] = {}
    for backend, choice in stored.items() if isinstance(stored, dict) else ():
        if isinstance(choice, list) and len(choice) == 2:
            context, namespace = (one if isinstance(one, str) else None for one in choice)
            found[str(backend)] = (context, namespace)
    return found


def run(config: Config | None, recording: Recording | None = None) -> int:
    """Shows the screens until they are left, then says what still runs. Returns the exit code.

    They begin with `recording` in Race, if there is one.
    """
    app = StokeApp(config, recording=recording)
    app.run(mouse=config is None or config.mouse)
    # A cold run's scope goes with the program that raced it, and the run with its scope.
    unfinished = app.history.list(unfinished=True)
    running = [job for job in unfinished if not is_ephemeral(job.scope)]
    for job in running:
        name = clean(job.id)
        print(f"{name} is {job.state}; watch it with: stoke logs -f {name}")  # noqa: T201
    if running:
        print("the screens come back with: stoke")  # noqa: T201
    app.reading.close()
    app.history.close()
    # Python looks for garbage on its way out, which nobody needs and people wait for.
    gc.freeze()
    return app.return_code or 0


def keys_file() -> str:
    """A keys.toml with every action of the screens."""
    return keymap.as_file()

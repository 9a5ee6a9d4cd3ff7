"""The program with the screens: start, end, and what screens ask for by message."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, TypeVar

from rich.console import RenderableType
from textual import events
from textual.app import App
from textual.binding import Binding, BindingType
from textual.signal import Signal
from textual.theme import Theme
from textual.widget import AwaitMount
from textual.widgets import Static

import styles
import tui.textual_patches.colour_cache
import tui.textual_patches.printable_keys  # noqa: F401
from stoke.cache.scopes import is_ephemeral
from stoke.errors import StokeError
from stoke.history.job import Job
from stoke.text.sanitize import clean
from tui import IN_BROWSER, keymap, palette, themes
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.garbage_collection import GarbageCollection
from tui.jobs.screen import JobsScreen
from tui.jobs_snapshot import JobsSnapshot
from tui.messages import EditRequest, HistoryChanged, ShowJob, ShowScreen, StartRace
from tui.notifications import show_error
from tui.terminal.bell import Bell
from tui.terminal.driver import LinkDriver, pause_seconds
from tui.textual_patches.app import PatchedApp

# Whatever the first frame does not show is imported when it is wanted: a start must not wait for it.
if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.history.job import Job
    from stoke.race.recording import Recording

TITLES = {
    "jobs": "Jobs",
    "new": "New job",
    "caches": "Caches",
    "metrics": "Metrics",
    "race": "Race",
}
_Screen = TypeVar("_Screen", bound=StokeScreen)


def _new_job(context: Context) -> StokeScreen:
    from tui.new_job.screen import NewJobScreen

    return NewJobScreen(context)


def _caches(context: Context) -> StokeScreen:
    from tui.caches.screen import CachesScreen

    return CachesScreen(context)


def _metrics(context: Context) -> StokeScreen:
    from tui.metrics.screen import MetricsScreen

    return MetricsScreen(context)


def _race(context: Context) -> StokeScreen:
    from tui.race.screen import RaceScreen

    return RaceScreen(context)


_SCREENS: dict[str, Callable[[Context], StokeScreen]] = {
    "jobs": JobsScreen,
    "new": _new_job,
    "caches": _caches,
    "metrics": _metrics,
    "race": _race,
}


class StokeApp(PatchedApp):
    """`clock` returns epoch seconds; tests hold it still. With a `recording` the program starts in
    Race and replays it. Without a `config`, the default one is loaded when it is first needed.

    `StokeError` if the history cannot be opened.
    """

    TITLE = "stoke"
    CSS = styles.stylesheet(*styles.FIRST)
    ENABLE_COMMAND_PALETTE = False
    DEFAULT_MODE = "jobs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "switch('jobs')", "Jobs", show=False, id="app.jobs"),
        Binding("2", "switch('new')", "New job", show=False, id="app.new"),
        Binding("3", "switch('caches')", "Caches", show=False, id="app.caches"),
        Binding("4", "switch('metrics')", "Metrics", show=False, id="app.metrics"),
        Binding("5", "switch('race')", "Race", show=False, id="app.race"),
        Binding("ctrl+t", "race_job", "Race", show=False, id="app.race_job"),
        Binding("colon", "palette(':')", "Commands", show=False, id="app.commands"),
        # With priority, so that editors do not take it.
        Binding("ctrl+p", "palette", "Palette", show=False, priority=True, id="app.palette"),
        # Text fields need the letter.
        Binding("z,f8", "zoom", "Zoom", id="app.zoom"),
        Binding("question_mark,f1", "help", "Help", id="app.help"),
        Binding("f2", "welcome", "Getting started", show=False, id="app.welcome"),
        Binding("ctrl+l", "redraw", "Redraw the screen", show=False, id="app.redraw"),
        Binding("M", "mouse", "Mouse on or off", show=False, id="app.mouse"),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, id="app.suspend"),
        Binding("q", "quit_here", "Quit", id="app.quit"),
        Binding("q", "back_to_jobs", "Back", id="app.back"),
    ]

    def __init__(
        self,
        config: Config | None = None,
        clock: Callable[[], float] = time.time,
        recording: Recording | None = None,
    ) -> None:
        if config is not None and config.color == "never":
            os.environ["NO_COLOR"] = "1"
        self._colours: dict[str, str] = {}
        super().__init__(driver_class=LinkDriver)
        for theme in themes.OURS:
            self.register_theme(theme)
        if "TEXTUAL_THEME" not in os.environ:
            self.set_reactive(App.theme, themes.STOKE.name)
        self.stylesheet.set_variables(self.get_css_variables())
        self.context = Context(
            config,
            clock,
            signal=Signal(self, "snapshots"),
            publish=self._post_snapshot,
            show_error=partial(show_error, self),
            busy=partial(pause_seconds, self),
        )
        self.context.submissions.on_end = self._submission_ended
        for mode, screen in _SCREENS.items():
            self.add_mode(mode, partial(screen, self.context))
        self._recording = recording
        self._garbage: GarbageCollection | None = None
        self._is_starting = False
        self._is_quitting = False

    # --- start and end ----------------------------------------------------------------------------

    def on_mount(self) -> None:
        if not self.is_headless:
            # Give up Python's lock after one millisecond instead of five, so that a thread that reads
            # a flood of output does not delay the keys.
            sys.setswitchinterval(0.001)
        ui_state = self.context.ui_state
        own_themes, problems = themes.load()
        for theme in own_themes:
            self.register_theme(theme)
        keys, key_problems = keymap.load()
        self.set_keymap(keys)
        problems += key_problems
        wanted = self.context.theme
        if wanted in self.available_themes:
            # Without colours, Textual would draw the terminal's own ones as black on black.
            if not (self.no_color and palette.is_ansi(self.available_themes[wanted])):
                self.theme = wanted
        elif wanted is not None:
            known = ", ".join(sorted(self.available_themes))
            problems.append(f"unknown theme {wanted}; choose one of: {known}")
        for problem in problems:
            self.notify(clean(problem), severity="warning", markup=False, timeout=10)
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        mode = ui_state.get("mode")
        # In New job the first key would go into the code, also q.
        if mode in _SCREENS and mode not in (self.current_mode, "new"):
            self._load_later_styles()
            self.switch_mode(mode)
        self.mode_change_signal.subscribe(self, lambda mode: ui_state.set(mode=mode))
        # Another program had the terminal while this one was suspended.
        self.app_resume_signal.subscribe(self, lambda _: self.redraw())

    def on_ready(self) -> None:
        self._is_starting = True
        self.screen.call_after_refresh(self._finish_start)

    async def _finish_start(self) -> None:
        """Do what the first frame did not have to wait for.

        Quitting waits for this: a widget that is still being mounted fails when it is removed.
        """
        self._load_later_styles()
        await self._base_screen("jobs", JobsScreen).mount_deferred()
        if not self.is_running:
            return  # Starting the jobs service now would leave it running.
        self.context.jobs.start()
        if self._recording is not None:
            self._replay(self._recording)
        elif not self.context.ui_state.get("welcomed") and self._has_no_jobs():
            await self.action_welcome()
        if not self.is_headless:
            self._garbage = GarbageCollection(self)
        self._is_starting = False
        self._quit_if_asked()

    def _load_later_styles(self) -> None:
        """Load the style sheets of all other screens. Textual ignores a second call."""
        self.stylesheet.add_source(styles.stylesheet(*styles.LATER), ("styles", "later"))

    def _has_no_jobs(self) -> bool:
        try:
            return not self.context.history.list(limit=1)
        except StokeError:
            return False  # Jobs shows what is wrong with the history.

    def exit(
        self, result: None = None, return_code: int = 0, message: RenderableType | None = None
    ) -> None:
        if self._is_starting:
            self._is_quitting = True
            return
        if self.context.submissions.pending and not self._is_quitting:
            self._is_quitting = True
            self.notify(
                "Quitting once the job is submitted. Press q again to quit now.", timeout=10
            )
            return
        # At the time of the unmount event the widgets of the screens are already removed.
        for stack in self._screen_stacks.values():
            for screen in stack:
                if isinstance(screen, StokeScreen):
                    screen.save_unsaved()
        super().exit(result, return_code, message)

    def _quit_if_asked(self) -> None:
        if self._is_quitting and not self.context.submissions.pending:
            self.exit()

    def _submission_ended(self, succeeded: bool) -> None:
        if succeeded:
            self._quit_if_asked()
        else:
            self._is_quitting = False  # Stay, to show the error.

    def on_unmount(self) -> None:
        self.context.jobs.close()

    # --- colours ----------------------------------------------------------------------------------

    def get_css_variables(self) -> dict[str, str]:
        generated = super().get_css_variables()
        colours = palette.variables(self.current_theme, generated)
        if self.no_color and not palette.is_ansi(self.current_theme):
            colours = palette.without_hues(colours)
        if colours != self._colours:
            if self._colours:
                self.console.pop_theme()
            self._colours = colours
            self.console.push_theme(palette.text_styles(colours))
        self.theme_variables = {**generated, **colours}
        return self.theme_variables

    def _theme_changed(self, theme: Theme) -> None:
        self.context.ui_state.set(theme=theme.name)
        # A text takes its colours when it is given to its widget.
        for stack in self._screen_stacks.values():
            for text in chain.from_iterable(screen.query(Static) for screen in stack):
                text.update(text.content)

    # --- the terminal -----------------------------------------------------------------------------

    def on_resize(self, _: events.Resize) -> None:
        # A terminal that was smaller for a moment has lost its text, even if it is now as large as
        # before.
        self.redraw()

    def action_redraw(self) -> None:
        self.redraw()

    async def on_event(self, event: events.Event) -> None:
        if self._garbage is not None and isinstance(event, events.Key):
            self._garbage.key_pressed()
        await super().on_event(event)

    def action_mouse(self) -> None:
        on = self.toggle_mouse()
        if on is not None:
            self.notify("mouse on" if on else "mouse off: the terminal selects text", timeout=3)

    # --- changes of the history -------------------------------------------------------------------

    @cached_property
    def _bell(self) -> Bell:
        return Bell(self.context.config.bell, self.context.config.bell_after)

    def _post_snapshot(self, snapshot: JobsSnapshot) -> None:
        try:
            self.post_message(HistoryChanged(snapshot))
        except RuntimeError:
            pass  # The program is ending.

    def on_history_changed(self, message: HistoryChanged) -> None:
        before, self.context.snapshot = self.context.snapshot, message.snapshot
        if message.snapshot.jobs is before.jobs and message.snapshot.errors == before.errors:
            return  # Only the usage is new, which screens show at their next tick.
        self._announce(self._bell.ended(before.jobs, message.snapshot.jobs))
        self.context.snapshots.publish(message.snapshot)

    def _announce(self, ended: list[Job]) -> None:
        """Notify of long jobs that have ended."""
        for job in ended:
            self.notify(f"{clean(job.id)} {job.state}", markup=False)
        sequence = self._bell.sequence(ended)
        if sequence and self._driver is not None:
            self._driver.write(sequence)

    # --- what screens ask for ---------------------------------------------------------------------

    def _base_screen(self, mode: str, kind: type[_Screen]) -> _Screen:
        """Return the screen of a mode that was shown before."""
        screen = self.get_screen_stack(mode)[0]
        assert isinstance(screen, kind)
        return screen

    def on_show_screen(self, message: ShowScreen) -> None:
        self.action_switch(message.mode)

    def on_show_job(self, message: ShowJob) -> None:
        self.context.jobs.prioritize(message.job_id)
        self.switch_mode("jobs")
        self._base_screen("jobs", JobsScreen).show_job(message.job_id)

    def on_edit_request(self, message: EditRequest) -> None:
        def fill() -> None:
            from tui.new_job.screen import NewJobScreen

            screen = self._base_screen("new", NewJobScreen)
            screen.offer(message.spec, message.name, message.backend)

        self.switch_mode("new")
        self.call_after_refresh(fill)

    def on_start_race(self, message: StartRace) -> None:
        request = self.context.request(message.spec, message.name)

        def start() -> None:
            from tui.race.screen import RaceScreen

            self._base_screen("race", RaceScreen).race(message.backend, request)

        self.switch_mode("race")
        self.call_after_refresh(start)

    def _replay(self, recording: Recording) -> None:
        def start() -> None:
            from tui.race.screen import RaceScreen

            self._base_screen("race", RaceScreen).replay(recording)

        self.switch_mode("race")
        self.call_after_refresh(start)

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        screen = self.screen
        is_covered = screen.is_modal
        if action in ("switch", "help", "welcome"):
            return not is_covered
        if action == "zoom":
            return isinstance(screen, StokeScreen) and screen.can_zoom
        if action == "suspend_process":
            return not IN_BROWSER  # No shell is there to continue this process.
        if action == "race_job":
            return not self.context.read_only and self._job_to_race is not None
        if action == "quit_here":
            return not is_covered and self.current_mode == "jobs"
        if action == "back_to_jobs":
            return not is_covered and self.current_mode != "jobs"
        return True

    def action_zoom(self) -> None:
        if isinstance(self.screen, StokeScreen):
            self.screen.zoom()

    def action_switch(self, mode: str) -> None:
        if self.current_mode != mode:
            # They have been read, and the next screen would show them again.
            self.clear_notifications()
            self.switch_mode(mode)

    @property
    def _job_to_race(self) -> Job | None:
        """Return the selected job of Jobs while that screen is shown."""
        from tui.jobs.screen import JobsScreen

        return self.screen.job if isinstance(self.screen, JobsScreen) else None

    def action_race_job(self) -> None:
        job = self._job_to_race
        if job is None:
            return

        def start() -> None:
            from tui.race.screen import RaceScreen

            self._base_screen("race", RaceScreen).race_again(job)

        self.switch_mode("race")
        self.call_after_refresh(start)

    def action_help(self, words: str = "") -> None:
        from tui.dialogs.help import Help

        focused = self.focused
        where = TITLES[self.current_mode]
        if focused is not None and focused.id:
            where += f", {focused.id.replace('-', ' ')}"
        self.push_screen(Help(where, list(self.screen.active_bindings.values()), words))

    def action_palette(self, text: str = "") -> None:
        """Open the command palette with this text, or close it."""
        from tui.command_palette import CommandPalette
        from tui.palette_entries import Entry
        from tui.palette_sources import entries

        if isinstance(self.screen, CommandPalette):
            self.screen.action_close()
            return
        found = entries(
            self, self.context, TITLES, self.action_switch, self.jobs_screen, self.action_help
        )

        def chosen(entry: Entry | None) -> None:
            if entry is not None:
                found.remember(entry)
                # The palette still covers the screen that the entry needs.
                self.call_later(entry.run)

        self.push_screen(CommandPalette(found, text), chosen)

    def jobs_screen(self) -> JobsScreen:
        """Show Jobs and return it."""
        self.action_switch("jobs")
        return self._base_screen("jobs", JobsScreen)

    def action_welcome(self) -> AwaitMount:
        """Show the introduction; the program does so at its first start without jobs."""
        from tui.dialogs.welcome import Welcome, example

        context = self.context

        def chosen(what: str | None) -> None:
            if what == "example":
                backend, spec = context.config.backend, example(context.config)
                failed = partial(show_error, self)
                context.submissions.submit_spec(self, backend, spec, "example", failed)
            elif what == "help":
                self.action_help()
            elif what is not None:
                self.action_switch(what)

        context.ui_state.set(welcomed=True)
        return self.push_screen(Welcome(context.config.backend, context.read_only), chosen)

    def action_quit_here(self) -> None:
        self.exit()

    def action_back_to_jobs(self) -> None:
        self.switch_mode("jobs")


def run(config: Config | None, recording: Recording | None = None) -> int:
    """Show the screens until the user quits, then list the jobs that still run. Return the exit code.

    With a `recording` the program starts in Race and replays it.
    """
    app = StokeApp(config, recording=recording)
    app.run(mouse=config is None or config.mouse)
    unfinished = app.context.history.list(unfinished=True)
    # The run in an ephemeral scope is removed together with its scope.
    running = [job for job in unfinished if not is_ephemeral(job.scope)]
    for job in running:
        name = clean(job.id)
        print(f"{name} is {job.state}; watch it with: stoke logs -f {name}")  # noqa: T201
    if running:
        print("open the screens again with: stoke")  # noqa: T201
    app.context.close()
    # Skip Python's last garbage collection: users would wait for it.
    gc.freeze()
    return app.return_code or 0


def keys_file() -> str:
    """Return a keys.toml with every action of the screens."""
    return keymap.as_file()

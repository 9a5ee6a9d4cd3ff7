"""Race: one request cold and warm, as two waterfalls on one scale, and what the cache saved."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Digits, Static

from stoke.errors import EngineError, RequestError, StokeError
from stoke.history.job import Job
from stoke.jobs.request import Request
from stoke.race.race import COLD, WARM, WARMING, Race, RaceStatus, RaceStoppedError, RunFailedError
from stoke.race.recording import Recording, Run, write_recording
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.dialogs.prompts import Confirm
from tui.messages import ShowScreen
from tui.race import picture
from tui.race.open_recording import OpenRecording
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar
from tui.widgets.waterfall import Waterfall

REFRESH_SECONDS = 0.25
LONGEST_REPLAY = 20.0
"""In seconds; a longer race is replayed faster."""
_EMPTY = (
    "A race runs a request twice to show what its cache saves: cold, in an ephemeral scope that is "
    "removed afterwards, then warm, in the scope of the request.\n\n"
    "Write a job with packages in New job (2) and press ctrl+t there, or press o to open a recorded "
    "race."
)


class Lane(Vertical):
    """One of the two runs: its waterfall in a frame with title and figures, drawn when they change."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Waterfall(aligned=True)

    def show(self, title: str, job: Job | None, now: float, span: float, figures: str) -> None:
        is_running = job is not None and not job.state.finished
        shown = (
            title,
            figures,
            job,
            now if is_running else 0,
            span if job else 0,
        )
        if shown == self._shown:
            return
        self._shown = shown
        self.border_title = Content(clean(title))
        self.border_subtitle = Content(clean(figures))
        self.query_one(Waterfall).show(job, (), now, span)


class RaceScreen(StokeScreen):
    CHANGES = frozenset({"again", "stop"})
    PANES = "Lane"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "again", "Race again", id="race.again"),
        Binding("s", "stop", "Stop", id="race.stop"),
        Binding("R", "play", "Replay", id="race.replay"),
        Binding("S", "save", "Save", id="race.save"),
        Binding("ctrl+o", "open", "Open", id="race.open"),
        Binding("escape", "back", "Back to the jobs", show=False, id="race.back"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._request: tuple[str, Request] | None = None
        self._race: Race | None = None
        self._status = RaceStatus()
        self._recording: Recording | None = None
        self._error: StokeError | None = None
        self._replay_started: float | None = None
        self._timer: Timer | None = None
        self._stopping = False
        self._key_state: tuple[bool, ...] = ()
        self._texts: dict[str, Text] = {}
        self._progress = ("", "")
        """The last progress of the race: (its stage then, text)."""

    def compose(self) -> ComposeResult:
        yield TopBar("race", self.context.read_only)
        yield Static(id="race-what")
        yield Static(Text(_EMPTY), id="race-empty")
        with Container(id="race-lanes"):
            yield Lane(id="race-cold")
            yield Lane(id="race-warm")
        with Container(id="race-result"):
            yield Digits(id="race-ratio")
            yield Static(id="race-words")
        yield Static(id="race-error", classes="errors")
        yield KeyBar()

    def on_mount(self) -> None:
        self._show()

    # --- called by the program --------------------------------------------------------------------

    def race(self, backend: str, request: Request) -> None:
        """Run a request cold and warm, unless a race is running."""
        if self._is_racing:
            self.show_error(
                RequestError("race", "a race is running already", "wait for it, or stop it first")
            )
            return
        self._request = (backend, request)
        self._status, self._recording, self._error = RaceStatus(), None, None
        self._replay_started, self._stopping, self._progress = None, False, ("", "")
        self._start_refreshing()

        def work() -> Recording:
            backends = self.context.backends
            race = Race(
                request, backends, backends.get(backend), self.context.history, self.context.config,
                say=lambda text: self._set_progress(race, text),
            )  # fmt: skip
            self._race = race
            return race.run()

        on_thread(self, work, self._done, self._failed)

    def _set_progress(self, race: Race, text: str) -> None:
        """Called on the thread of the race; shown at the next refresh."""
        self._progress = (race.status.active, text)

    def replay(self, recording: Recording) -> None:
        """Show both runs from their start, at the same time."""
        if not self._is_racing:
            self._recording, self._error = recording, None
            self.action_play()

    # --- while a race runs ------------------------------------------------------------------------

    def _start_refreshing(self) -> None:
        """Draw regularly from now on, until `_stop_refreshing`; an idle screen is not drawn."""
        if self._timer is None:
            self._timer = self.set_interval(REFRESH_SECONDS, self._show)
        self._show()

    def _stop_refreshing(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._show()

    def _done(self, recording: Recording) -> None:
        self._race, self._recording = None, recording
        self._stop_refreshing()

    def _failed(self, error: StokeError) -> None:
        if self._race is not None:
            self._status = self._race.status
        self._race, self._error = None, error
        self._stop_refreshing()

    # --- showing ----------------------------------------------------------------------------------

    @property
    def _is_racing(self) -> bool:
        return self._timer is not None and self._replay_started is None

    def _show(self) -> None:
        if self._race is not None:
            self._status = self._race.status
        known = self._is_racing or self._recording is not None or self._error is not None
        self.query_one("#race-empty").display = not known
        for name in ("#race-lanes", "#race-result"):
            self.query_one(name).display = known
        self._update("#race-what", self._description())
        self.query_one("#race-error").display = self._error is not None
        if self._error is not None:
            self._update("#race-error", self._error_text(self._error))
        if self._recording is not None:
            self._show_recording(self._recording)
        elif known:
            self._show_status()
        keys = (self._is_racing, self._stopping, self._recording is None, self._request is None)
        if keys != self._key_state:
            self._key_state = keys
            self.refresh_bindings()

    def _update(self, name: str, text: Text) -> None:
        """Draw a text if it has changed."""
        if self._texts.get(name) != text:
            self._texts[name] = text
            self.query_one(name, Static).update(text)

    def _description(self) -> Text:
        if self._recording is not None:
            one = self._recording
            facts = [one.name, ", ".join(one.packages), f"on {one.backend}", f"scope {one.scope}"]
        elif self._request is not None:
            backend, request = self._request
            named = ", ".join((*request.spec.dependencies, *request.spec.system))
            facts = [request.name, named, f"on {backend}", f"scope {request.spec.scope}"]
        else:
            return Text("cold and warm start", style="bold")
        text = fmt.plain(facts[0], "bold")
        for fact in filter(None, facts[1:]):
            text.append_text(fmt.plain(f" · {fact}"))
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _show_status(self) -> None:
        status, now = self._status, self.context.clock()
        cold, warm = status.cold, status.warm
        if status.active != WARM and warm is None:
            warm = status.warming
        span = max(_seconds(cold, now), _seconds(warm, now))
        state = "not started" if self._error is not None else "waiting for the cold run"
        title = {
            WARMING: "Warm: filling its caches first",
            WARM: f"Warm, in scope {self._scope}",
        }.get(status.active, f"Warm, {state}")
        if not status.active and warm is not None:
            title = f"Warm, in scope {self._scope}"
        self.query_one("#race-cold", Lane).show(
            "Cold, with nothing cached", cold, now, span, _figures_so_far(cold, now)
        )
        self.query_one("#race-warm", Lane).show(title, warm, now, span, _figures_so_far(warm, now))
        words = {
            COLD: "Cold run. The warm run follows, so that they do not slow each other down.",
            WARMING: "Filling the caches; this counts for neither run.",
            WARM: "Warm run.",
        }.get(status.active, "Starting." if cold is None else "Finalizing.")
        if self._error is not None:
            words = ""
        elif self._stopping:
            words = "Stopping the race."
        elif self._progress[0] == status.active and self._progress[1]:
            words += f" {clean(self._progress[1])}"
        self._show_result("", Text(words, style="$quiet"))

    @property
    def _scope(self) -> str:
        return self._request[1].spec.scope if self._request else ""

    def _show_recording(self, one: Recording) -> None:
        span = max(one.cold.seconds, one.warm.seconds)
        moment = None
        if self._replay_started is not None:
            speed = max(1.0, span / LONGEST_REPLAY)
            moment = (self.context.clock() - self._replay_started) * speed
            if moment >= span:
                self._replay_started = moment = None
                # Not `_stop_refreshing`, which would draw again.
                if self._timer is not None:
                    self._timer.stop()
                    self._timer = None
        for name, title, run in (
            ("#race-cold", "Cold, with nothing cached", one.cold),
            ("#race-warm", f"Warm, in scope {one.scope}", one.warm),
        ):
            now = span if moment is None else min(moment, run.seconds)
            figures = (
                _figures(run) if moment is None or moment >= run.seconds else fmt.duration(now)
            )
            self.query_one(name, Lane).show(title, run.at(moment), now, span, figures)
        if moment is not None:
            speed_text = "" if span <= LONGEST_REPLAY else f", {span / LONGEST_REPLAY:.1f}x as fast"
            words = (
                f"Replay of both from the same moment{speed_text}. They ran one after the other."
            )
            self._show_result("", Text(words, style="$quiet"))
            return
        ratio = one.ratio
        words_text = fmt.plain(one.result, "bold")
        if one.warmed is not None:
            words_text.append(
                f"\nFilling the caches first took {fmt.duration(one.warmed)}, not counted.",
                style="$quiet",
            )
        for note in one.notes:
            words_text.append("\n")
            words_text.append_text(fmt.plain(note, "$warn"))
        self._show_result(
            "" if ratio is None else f"{ratio:.{1 if ratio < 10 else 0}f}x", words_text
        )

    def _show_result(self, ratio: str, words: Text) -> None:
        digits = self.query_one("#race-ratio", Digits)
        if digits.value != ratio:
            digits.update(ratio)
        digits.set_class(not ratio, "-none")
        self._update("#race-words", words)

    def _error_text(self, error: StokeError) -> Text:
        text = Text()
        if isinstance(error, RunFailedError):
            for line in error.tail[-6:]:
                text.append_text(fmt.plain(line, "$quiet"))
                text.append("\n")
        if isinstance(error, RaceStoppedError):
            text.append("Race stopped. The cold run and its caches were removed.")
        else:
            text.append_text(fmt.error_text(error))
        return text

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if action == "stop":
            return self._is_racing and not self._stopping
        if action == "again":
            return self._request is not None and not self._is_racing
        if action in ("play", "save"):
            return self._recording is not None
        return not self._is_racing if action == "open" else True

    def action_again(self) -> None:
        if self._request is not None:
            self.race(*self._request)

    def action_stop(self) -> None:
        body = Text("Stops the present run and removes the caches of the cold run.")

        def answered(yes: bool | None) -> None:
            race = self._race
            if not yes or race is None:
                return
            self._stopping = True
            self._show()

            def end() -> None:
                try:
                    race.stop(self.context.config.stop_grace)
                except EngineError:
                    pass  # The end of the run reports the error.

            threading.Thread(target=end, daemon=True).start()

        self.app.push_screen(Confirm("Stop this race?", body, "Stop"), answered)

    def action_play(self) -> None:
        self._replay_started = self.context.clock()
        self._start_refreshing()

    def action_save(self) -> None:
        """Write a picture and a recording into the current directory."""
        one = self._recording
        if one is None:
            return
        stem = re.sub(r"[^a-z0-9]+", "-", one.name.lower())[:40].strip("-") or "job"
        when = time.strftime("%Y%m%d-%H%M%S", time.localtime(one.raced_at))
        path = Path(f"race-{stem}-{when}.json")
        try:
            write_recording(one, path)
            path.with_suffix(".svg").write_text(picture.svg(self.app))
        except OSError as error:
            self.show_error(EngineError(f"cannot write {path}: {error.strerror}"))
        except StokeError as error:
            self.show_error(error)
        else:
            where = fmt.place(str(Path.cwd()))
            text = f"saved {path} and a picture in {clean(where)}"
            self.notify(f"{text}\nstoke race --replay {path}", markup=False, timeout=8)

    def action_open(self) -> None:
        newest = max(Path().glob("race-*.json"), key=lambda one: one.name, default=Path())

        def opened(recording: Recording | None) -> None:
            if recording is not None:
                self.replay(recording)

        self.app.push_screen(OpenRecording(newest.name), opened)

    def action_back(self) -> None:
        self.post_message(ShowScreen("jobs"))


def _seconds(job: Job | None, now: float) -> float:
    if job is None:
        return 0.0
    return job.seconds if job.seconds is not None else now - job.submitted_at


def _figures_so_far(job: Job | None, now: float) -> str:
    return "" if job is None else fmt.duration(_seconds(job, now))


def _figures(run: Run) -> str:
    parts = [f"first line {fmt.duration(run.ready)}", f"whole job {fmt.duration(run.seconds)}"]
    received = run.at().received_bytes
    if received is not None:
        parts.append(fmt.size(received))
    return " · ".join(parts)

"""Race: a request cold and warm, two waterfalls on one scale of time, and what the cache saved."""

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
from tui.dialogs.prompts import Confirm
from tui.race import picture
from tui.race.open_recording import OpenRecording
from tui.threads import on_thread
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar
from tui.widgets.waterfall import Waterfall

LOOK_SECONDS = 0.25
LONGEST_REPLAY = 20.0
"""Seconds; what took longer is shown faster."""
_EMPTY = (
    "A race runs a request twice and shows what its cache saves: cold, with caches of its own that are "
    "removed afterwards, then warm, in the request's own scope. The code runs twice.\n\n"
    "Write a job that names packages in New job (2) and press ctrl+t there, or press o here to open a "
    "recorded race."
)


class Lane(Vertical):
    """One of the two runs: its waterfall, what it is at above, its figures below.

    What looks as it did is not drawn again.
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Waterfall(aligned=True)

    def show(self, title: str, job: Job | None, now: float, span: float, figures: str) -> None:
        moves = job is not None and not job.state.finished
        shows = (
            title,
            figures,
            job,
            now if moves else 0,
            span if job else 0,
        )
        if shows == self._shown:
            return
        self._shown = shows
        self.border_title = Content(clean(title))
        self.border_subtitle = Content(clean(figures))
        self.query_one(Waterfall).show(job, (), now, span)


class RaceScreen(StokeScreen):
    CHANGES = frozenset({"again", "stop"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "again", "Race again", id="race.again"),
        Binding("s", "stop", "End it", id="race.stop"),
        Binding("p", "play", "Replay", id="race.replay"),
        Binding("S", "save", "Save", id="race.save"),
        Binding("o", "open", "Open", id="race.open"),
        Binding("escape", "back", "Back to the jobs", show=False, id="race.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._asked: tuple[str, Request] | None = None
        self._race: Race | None = None
        self._standing = RaceStatus()
        self._recording: Recording | None = None
        self._trouble: StokeError | None = None
        self._played_from: float | None = None
        self._timer: Timer | None = None
        self._ending = False
        self._could: tuple[bool, ...] = ()
        self._texts: dict[str, Text] = {}
        self._said = ("", "")
        """What the race was at when it last said something, and that."""

    def compose(self) -> ComposeResult:
        yield TopBar("race")
        yield Static(id="race-what")
        yield Static(Text(_EMPTY), id="race-empty")
        with Container(id="race-lanes"):
            yield Lane(id="race-cold")
            yield Lane(id="race-warm")
        with Container(id="race-result"):
            yield Digits(id="race-ratio")
            yield Static(id="race-words")
        yield Static(id="race-trouble", classes="troubles")
        yield KeyBar()

    def on_mount(self) -> None:
        self._show()

    # --- what the program asks for ----------------------------------------------------------------

    def race(self, backend: str, request: Request) -> None:
        """Runs it, unless a race is at work."""
        if self._at_work:
            self.stoke.show_error(
                RequestError("race", "there is one already", "wait for it, or end it first")
            )
            return
        self._asked = (backend, request)
        self._standing, self._recording, self._trouble = RaceStatus(), None, None
        self._played_from, self._ending, self._said = None, False, ("", "")
        self._look()

        def work() -> Recording:
            backends = self.stoke.service.backends
            race = Race(
                request, backends, backends.get(backend), self.stoke.history, self.stoke.config,
                say=lambda text: self._hear(race, text),
            )  # fmt: skip
            self._race = race
            return race.run()

        on_thread(self, work, self._done, self._failed)

    def _hear(self, race: Race, text: str) -> None:
        """On the race's thread; shown with the next look."""
        self._said = (race.status.active, text)

    def replay(self, recording: Recording) -> None:
        """Shows both runs from their beginning, at the same time."""
        if not self._at_work:
            self._recording, self._trouble = recording, None
            self.action_play()

    # --- while it goes on -------------------------------------------------------------------------

    def _look(self) -> None:
        """Draws again every now and then for as long as something moves; an idle screen is still."""
        if self._timer is None:
            self._timer = self.set_interval(LOOK_SECONDS, self._show)
        self._show()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._show()

    def _done(self, recording: Recording) -> None:
        self._race, self._recording = None, recording
        self._rest()

    def _failed(self, error: StokeError) -> None:
        if self._race is not None:
            self._standing = self._race.status
        self._race, self._trouble = None, error
        self._rest()

    # --- showing ----------------------------------------------------------------------------------

    @property
    def _at_work(self) -> bool:
        return self._timer is not None and self._played_from is None

    def _show(self) -> None:
        if self._race is not None:
            self._standing = self._race.status
        known = self._at_work or self._recording is not None or self._trouble is not None
        self.query_one("#race-empty").display = not known
        for name in ("#race-lanes", "#race-result"):
            self.query_one(name).display = known
        self._update("#race-what", self._what())
        self.query_one("#race-trouble").display = self._trouble is not None
        if self._trouble is not None:
            self._update("#race-trouble", self._trouble_text(self._trouble))
        if self._recording is not None:
            self._show_recording(self._recording)
        elif known:
            self._show_standing()
        can = (self._at_work, self._ending, self._recording is None, self._asked is None)
        if can != self._could:
            self._could = can
            self.refresh_bindings()

    def _update(self, name: str, text: Text) -> None:
        """Draws a text, unless it stands there already."""
        if self._texts.get(name) != text:
            self._texts[name] = text
            self.query_one(name, Static).update(text)

    def _what(self) -> Text:
        if self._recording is not None:
            one = self._recording
            facts = [one.name, ", ".join(one.packages), f"on {one.backend}", f"scope {one.scope}"]
        elif self._asked is not None:
            backend, request = self._asked
            named = ", ".join((*request.spec.dependencies, *request.spec.system))
            facts = [request.name, named, f"on {backend}", f"scope {request.spec.scope}"]
        else:
            return Text("cold against warm", style="bold")
        text = fmt.plain(facts[0], "bold")
        for fact in filter(None, facts[1:]):
            text.append_text(fmt.plain(f" · {fact}"))
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _show_standing(self) -> None:
        standing, now = self._standing, self.stoke.clock()
        cold, warm = standing.cold, standing.warm
        if standing.active != WARM and warm is None:
            warm = standing.warming
        span = max(_taken(cold, now), _taken(warm, now))
        over = "did not begin" if self._trouble is not None else "waits for the cold run"
        title = {
            WARMING: "Warm: its caches are not warm yet, warming them",
            WARM: f"Warm, in scope {self._scope}",
        }.get(standing.active, f"Warm, {over}")
        if not standing.active and warm is not None:
            title = f"Warm, in scope {self._scope}"
        self.query_one("#race-cold", Lane).show(
            "Cold, with nothing cached", cold, now, span, _standing_figures(cold, now)
        )
        self.query_one("#race-warm", Lane).show(
            title, warm, now, span, _standing_figures(warm, now)
        )
        words = {
            COLD: "The cold run. The warm one follows: at once they would be in each other's way.",
            WARMING: "Warming the caches first; this is in neither run.",
            WARM: "The warm run.",
        }.get(standing.active, "Beginning." if cold is None else "Bringing home.")
        if self._trouble is not None:
            words = ""
        elif self._ending:
            words = "Ending the race."
        elif self._said[0] == standing.active and self._said[1]:
            words += f" {clean(self._said[1])}"
        self._show_result("", Text(words, style="dim"))

    @property
    def _scope(self) -> str:
        return self._asked[1].spec.scope if self._asked else ""

    def _show_recording(self, one: Recording) -> None:
        span = max(one.cold.seconds, one.warm.seconds)
        moment = None
        if self._played_from is not None:
            speed = max(1.0, span / LONGEST_REPLAY)
            moment = (self.stoke.clock() - self._played_from) * speed
            if moment >= span:
                self._played_from = moment = None
                # Not through _rest: it draws, and this is being drawn.
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
            fast = "" if span <= LONGEST_REPLAY else f", {span / LONGEST_REPLAY:.1f} x as fast"
            words = f"Both as they went, from the same moment{fast}. They ran one after the other."
            self._show_result("", Text(words, style="dim"))
            return
        ratio = one.ratio
        words_text = fmt.plain(one.result, "bold")
        if one.warmed is not None:
            words_text.append(
                f"\nIts caches were not warm: warming took {fmt.duration(one.warmed)}, in neither run.",
                style="dim",
            )
        for note in one.notes:
            words_text.append("\n")
            words_text.append_text(fmt.plain(note, "yellow"))
        self._show_result(
            "" if ratio is None else f"{ratio:.{1 if ratio < 10 else 0}f}x", words_text
        )

    def _show_result(self, ratio: str, words: Text) -> None:
        digits = self.query_one("#race-ratio", Digits)
        if digits.value != ratio:
            digits.update(ratio)
        digits.set_class(not ratio, "-none")
        self._update("#race-words", words)

    def _trouble_text(self, error: StokeError) -> Text:
        text = Text()
        if isinstance(error, RunFailedError):
            for line in error.tail[-6:]:
                text.append_text(fmt.plain(line, "dim"))
                text.append("\n")
        if isinstance(error, RaceStoppedError):
            text.append("The race was ended; nothing of the cold run is left.")
        else:
            text.append_text(fmt.error_text(error))
        return text

    # --- keys -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if action == "stop":
            return self._at_work and not self._ending
        if action == "again":
            return self._asked is not None and not self._at_work
        if action in ("play", "save"):
            return self._recording is not None
        return not self._at_work if action == "open" else True

    def action_again(self) -> None:
        if self._asked is not None:
            self.race(*self._asked)

    def action_stop(self) -> None:
        body = Text("The run that is at work is stopped; the cold run's caches go in any case.")

        def answered(yes: bool | None) -> None:
            race = self._race
            if not yes or race is None:
                return
            self._ending = True
            self._show()

            def end() -> None:
                try:
                    race.stop(self.stoke.config.stop_grace)
                except EngineError:
                    pass  # What keeps it from ending is said when the run ends.

            threading.Thread(target=end, daemon=True).start()

        self.app.push_screen(Confirm("End this race?", body, "End it"), answered)

    def action_play(self) -> None:
        self._played_from = self.stoke.clock()
        self._look()

    def action_save(self) -> None:
        """A picture and a recording, side by side, where the program was started."""
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
            self.stoke.show_error(EngineError(f"cannot write {path}: {error.strerror}"))
        except StokeError as error:
            self.stoke.show_error(error)
        else:
            where = fmt.place(str(Path.cwd()))
            said = f"saved {path} and the picture beside it in {clean(where)}"
            self.notify(f"{said}\nstoke race --replay {path}", markup=False, timeout=8)

    def action_open(self) -> None:
        newest = max(Path().glob("race-*.json"), key=lambda one: one.name, default=Path())

        def opened(recording: Recording | None) -> None:
            if recording is not None:
                self.replay(recording)

        self.app.push_screen(OpenRecording(newest.name), opened)

    def action_back(self) -> None:
        self.app.switch_mode("jobs")


def _taken(job: Job | None, now: float) -> float:
    if job is None:
        return 0.0
    return job.seconds if job.seconds is not None else now - job.submitted_at


def _standing_figures(job: Job | None, now: float) -> str:
    return "" if job is None else fmt.duration(_taken(job, now))


def _figures(run: Run) -> str:
    parts = [f"first line {fmt.duration(run.ready)}", f"whole job {fmt.duration(run.seconds)}"]
    received = run.at().received_bytes
    if received is not None:
        parts.append(fmt.size(received))
    return " · ".join(parts)

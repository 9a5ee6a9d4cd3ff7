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
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Static

from stoke.errors import EngineError, RequestError, StokeError
from stoke.history.job import Job
from stoke.jobs.request import Request
from stoke.race.earlier import earlier_races
from stoke.race.race import (
    COLD,
    WARM,
    WARMING,
    Race,
    RaceStatus,
    RaceStoppedError,
    RunFailedError,
    check_race,
)
from stoke.race.recording import Recording, Run, write_recording
from stoke.request.stored import read_stored_spec
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.dialogs.prompts import Confirm
from tui.jobs_snapshot import JobsSnapshot
from tui.messages import ShowScreen
from tui.race import picture
from tui.race.lane import Lane, OutputTail
from tui.race.lists import EarlierRaces, JobsToRace, TitledList, job_row, race_row, raceable
from tui.race.open_recording import OpenRecording
from tui.threads import on_thread
from tui.widgets.big_number import BigNumber
from tui.widgets.key_bar import KeyBar
from tui.widgets.top_bar import TopBar

REFRESH_SECONDS = 0.25
LONGEST_REPLAY = 20.0
"""In seconds; a longer race is replayed faster."""
_EMPTY = (
    "A race runs a request twice to show what its cache saves: cold, in an ephemeral scope that is "
    "removed afterwards, then warm, in the scope of the request. Choose a job below, or press ctrl+t "
    "on a job in Jobs (1) or on a form with packages in New job (2)."
)
_COLD_TITLE = "Cold, with nothing cached"


class RaceScreen(StokeScreen):
    CHANGES = frozenset({"again", "stop", "race_job"})
    PANES = "OutputTail"
    AUTO_FOCUS = ""
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
        self._saving = False
        """The screen shows what its picture may have: no output, and no other race."""
        self._key_state: tuple[bool, ...] = ()
        self._texts: dict[str, Text] = {}
        self._outputs: dict[str, list[str]] = {}
        """The last lines of both runs; a recording has none."""
        self._jobs: list[Job] = []
        self._earlier: list[Recording] = []
        self._lists: tuple[list[list[str]], int] | None = None
        """What the lists show."""
        self._progress = ("", "")
        """The last progress of the race: (its stage then, text)."""

    def compose(self) -> ComposeResult:
        yield TopBar("race", self.context.read_only)
        yield Static(id="race-what")
        yield Static(Text(_EMPTY), id="race-empty")
        with Horizontal(id="race-result"):
            yield BigNumber(id="race-ratio")
            yield Static(id="race-words")
        with Vertical(id="race-lanes"):
            yield Lane(id="race-cold")
            yield Lane(id="race-warm")
        with Horizontal(id="race-outputs"):
            yield OutputTail("output of the cold run", id="race-cold-output")
            yield OutputTail("output of the warm run", id="race-warm-output")
        yield Static(id="race-error", classes="errors")
        with Horizontal(id="race-lists"):
            yield TitledList(
                "Jobs to race",
                "None yet: a race needs a job with packages.",
                JobsToRace(),
                id="race-jobs",
            )
            yield TitledList("Earlier races", "None yet.", EarlierRaces(), id="race-earlier")
        yield KeyBar()

    def on_mount(self) -> None:
        self._show()
        self.context.snapshots.subscribe(self, self._jobs_changed)

    def on_screen_resume(self) -> None:
        self._jobs_changed(self.context.snapshot)
        self._read_earlier()

    def _jobs_changed(self, snapshot: JobsSnapshot) -> None:
        if self.is_current:
            self._jobs = raceable(snapshot.jobs)
            self._show_lists()

    def _read_earlier(self) -> None:
        def done(races: list[Recording]) -> None:
            self._earlier = races
            self._show_lists()

        on_thread(self, earlier_races, done, self.show_error)

    def _show_lists(self) -> None:
        now = self.context.clock()
        jobs = [job_row(job, now) for job in self._jobs]
        races = [race_row(race, now) for race in self._earlier]
        shown = ([[cell.plain for cell in row] for row in (*jobs, *races)], len(jobs))
        if shown == self._lists:
            return
        had_jobs = self._lists is not None and self._lists[1] != 0
        self._lists = shown
        self.query_one("#race-jobs", TitledList).fill(jobs)
        self.query_one("#race-earlier", TitledList).fill(races)
        # The two lists are read in any order.
        races_table = self.query_one(EarlierRaces)
        is_default = self.focused is races_table and races_table.cursor_row == 0 and not had_jobs
        if self.focused is None or is_default:
            self.call_after_refresh(self._focus_list)
        self.refresh_bindings()

    def _focus_list(self) -> None:
        """Focus the first list that has rows, unless a race takes the place of the lists."""
        if self._shows_race:
            return
        for kind, rows in ((JobsToRace, self._jobs), (EarlierRaces, self._earlier)):
            if rows:
                self.query_one(kind).focus()
                return

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
        self._outputs = {}
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
            self._recording, self._error, self._outputs = recording, None, {}
            self.action_play()

    # --- while a race runs ------------------------------------------------------------------------

    def _start_refreshing(self) -> None:
        """Draw regularly from now on, until `_stop_refreshing`; an idle screen is not drawn."""
        self.set_focus(None)
        if self._timer is None:
            self._timer = self.set_interval(REFRESH_SECONDS, self._show)
        self._show()

    def _stop_refreshing(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._show()

    def _done(self, recording: Recording) -> None:
        self._read_outputs()
        self._race, self._recording = None, recording
        self._stop_refreshing()
        self._read_earlier()

    def _failed(self, error: StokeError) -> None:
        if self._race is not None:
            self._status = self._race.status
            self._read_outputs()
        self._race, self._error = None, error
        self._stop_refreshing()

    def _read_outputs(self) -> None:
        race = self._race
        if race is not None:
            self._outputs = {what: race.output(what) for what in (COLD, WARM)}

    # --- showing ----------------------------------------------------------------------------------

    @property
    def _is_racing(self) -> bool:
        return self._timer is not None and self._replay_started is None

    def _show(self) -> None:
        if self._race is not None:
            self._status = self._race.status
            self._read_outputs()
        known = self._shows_race
        self.query_one("#race-empty").display = not known
        self.query_one("#race-lanes").display = known
        self.query_one("#race-result").display = known and self._error is None
        # The error of a failed run has the end of its output.
        outputs = known and bool(self._outputs) and self._error is None and not self._saving
        self.query_one("#race-outputs").display = outputs
        # The styles decide whether the lists have room.
        self.set_class(known, "-race")
        self.set_class(outputs, "-outputs")
        self.set_class(self._saving, "-saving")
        if outputs:
            for what, lines in self._outputs.items():
                self.query_one(f"#race-{what}-output", OutputTail).show(lines)
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

    @property
    def _shows_race(self) -> bool:
        return self._is_racing or self._recording is not None or self._error is not None

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
            _COLD_TITLE, cold, now, span, _figures_so_far(cold, now)
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
        running = {COLD: cold, WARMING: status.warming, WARM: warm}.get(status.active)
        clock = "" if running is None else _clock(_seconds(running, now))
        self._show_result(clock, Text(words, style="$quiet"))

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
            ("#race-cold", _COLD_TITLE, one.cold),
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
            self._show_result(_clock(moment), Text(words, style="$quiet"))
            return
        words_text = Text().append_text(fmt.plain(one.result, "bold"))
        if one.warmed is not None:
            words_text.append(
                f"\nFilling the caches first took {fmt.duration(one.warmed)}, not counted.",
                style="$quiet",
            )
        for note in one.notes:
            words_text.append("\n")
            words_text.append_text(fmt.plain(note, "$warn"))
        self._show_result(one.ratio_text or "", words_text)

    def _show_result(self, number: str, words: Text) -> None:
        """Show the ratio, or a clock while a run or a replay lasts."""
        big = self.query_one(BigNumber)
        big.show(number)
        big.set_class(number.endswith("s"), "-clock")
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
        if action == "race_job":
            return bool(self._jobs) and not self._is_racing
        if action == "replay_earlier":
            return bool(self._earlier) and not self._is_racing
        if action == "open":
            return not self._is_racing
        return True

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
        if self._recording is not None:
            self._saving = True
            self._show()
            self.call_after_refresh(self._save, self._recording)

    def _save(self, one: Recording) -> None:
        if any(tail.region for tail in self.query(OutputTail)):
            # The screen is not laid out without the outputs yet, and these may hold secrets.
            self.call_after_refresh(self._save, one)
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
        self._saving = False
        self._show()

    def action_open(self) -> None:
        newest = max(Path().glob("race-*.json"), key=lambda one: one.name, default=Path())

        def opened(recording: Recording | None) -> None:
            if recording is not None:
                self.replay(recording)

        self.app.push_screen(OpenRecording(newest.name), opened)

    def action_race_job(self) -> None:
        """Race the job under the cursor."""
        row = self.query_one(JobsToRace).cursor_row
        if row < len(self._jobs):
            self.race_again(self._jobs[row])

    def race_again(self, job: Job) -> None:
        """Race the request of a job, unless a race is running."""

        def make() -> Request:
            spec = read_stored_spec(self.context.reading.spec(job.id))
            check_race(spec, self.context.backends.get(job.backend))
            return self.context.request(spec, job.name)

        on_thread(self, make, lambda request: self.race(job.backend, request), self.show_error)

    def action_replay_earlier(self) -> None:
        row = self.query_one(EarlierRaces).cursor_row
        if row < len(self._earlier):
            self.replay(self._earlier[row])

    def action_back(self) -> None:
        """Leave a race that has ended for the lists; leave the lists for Jobs."""
        if not self._shows_race or self._is_racing:
            self.post_message(ShowScreen("jobs"))
            return
        self._recording = self._error = self._replay_started = None
        self._outputs = {}
        self._stop_refreshing()
        self.call_after_refresh(self._focus_list)


def _seconds(job: Job | None, now: float) -> float:
    if job is None:
        return 0.0
    return job.seconds if job.seconds is not None else now - job.submitted_at


def _clock(seconds: float) -> str:
    # The clock can be set back during a run.
    return f"{max(0.0, seconds):.{1 if seconds < 100 else 0}f}s"


def _figures_so_far(job: Job | None, now: float) -> str:
    return "" if job is None else fmt.duration(_seconds(job, now))


def _figures(run: Run) -> str:
    parts = [f"code started {fmt.duration(run.ready)}", f"whole job {fmt.duration(run.seconds)}"]
    received = run.at().received_bytes
    if received is not None:
        parts.append(fmt.size(received))
    return " · ".join(parts)

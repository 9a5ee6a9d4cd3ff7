"""Progress output of `stoke run` on stderr: one line for each phase, none with --quiet."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from stoke.cli.output import print_notice, print_unsaved_log
from stoke.errors import EXIT_ENGINE, EngineError, WaitingError
from stoke.history.job import Job, JobState, Phase, Prediction
from stoke.logs.fallback import UnsavedLogError
from stoke.text.units import human_age, human_bytes, human_seconds

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.cli.passthrough import Passthrough
    from stoke.remote.events import Event
    from stoke.request.undeclared_packages import Package

# The last line has the seconds of `run`.
_HIDDEN_PHASES = frozenset({"run", "results"})
# Waiting for the engine gets a line only if a user notices it.
_ENGINE_PHASES = frozenset({"queue", "start"})
_NOTICED_SECONDS = 0.5
_ACTIVITY_SECONDS = 5.0
# The index may have newer versions than a lockfile of this age.
_OLD_SECONDS = 60.0


def phase_facts(phase: Phase) -> str:
    """Describe a finished phase: `0.41 s  miss  41 packages  6.6 MiB`."""
    parts = [human_seconds(phase.seconds)]
    if phase.hit is not None:
        parts.append(hit_text(phase))
    if phase.packages is not None:
        parts.append(f"{phase.packages} package{'' if phase.packages == 1 else 's'}")
    if phase.bytes is not None:
        parts.append(human_bytes(phase.bytes))
    if phase.hit and phase.made_at is not None and phase.started_at - phase.made_at >= _OLD_SECONDS:
        age = human_age(phase.started_at - phase.made_at)
        parts.append(f"{age} old; --upgrade refreshes it")
    return "  ".join(parts)


def hit_text(phase: Phase) -> str:
    """Return "hit", "miss" or "partial 39 of 41"; "-" if it is unknown."""
    if phase.outcome == "partial" and phase.packages:
        return f"partial {phase.cached} of {phase.packages}"
    return phase.outcome or "-"


def prediction_text(prediction: Prediction) -> str | None:
    """Describe a prediction: `python partial 39 of 41, system miss, about 3 s`; None if empty."""
    parts = [
        " ".join([name, expected, *_counts(prediction, name)])
        for name, expected in (("python", prediction.python), ("system", prediction.system))
        if expected
    ]
    if not parts:
        return None
    if prediction.seconds is not None:
        parts.append(f"about {human_seconds(prediction.seconds)}")
    return ", ".join(parts)


def _counts(prediction: Prediction, kind: str) -> list[str]:
    counts = prediction.counts.get(kind)
    if counts is None:
        return []
    # The dependencies of named packages are unknown before they are resolved.
    return [f"{counts.cached} of {counts.packages}{' named' if counts.named else ''}"]


def results_text(job: Job) -> str:
    """Describe what was collected: `3 files, 1.2 MiB`."""
    files = f"{job.results_files:,} file{'' if job.results_files == 1 else 's'}"
    return f"{files}, {human_bytes(job.results_bytes)}"


class ProgressPrinter:
    """Print each message once. All methods must be called on one thread.

    `troubles`: whether to report engines that do not answer; by default, if not `quiet`.
    """

    def __init__(self, quiet: bool, troubles: bool | None = None) -> None:
        self._quiet = quiet
        self._prints_troubles = not quiet if troubles is None else troubles
        self._printed: set[str] = set()
        self._announced: dict[str, tuple[str, float]] = {}
        self._troubles: set[str] = set()
        self._passthrough: Passthrough | None = None

    @property
    def is_shown(self) -> bool:
        return not self._quiet

    def attach(self, passthrough: Passthrough) -> None:
        """From now on, end an unfinished line of the job's output before each message."""
        self._passthrough = passthrough

    def print(self, text: str) -> None:
        if not self._quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        self._end_line()
        print_notice(text)

    def _end_line(self) -> None:
        if self._passthrough is not None:
            self._passthrough.end_line()

    def print_prediction(self, backend: Backend, prediction: Prediction) -> None:
        expected = prediction_text(prediction)
        if expected:
            self.print(f"on {backend.name}, expecting {expected}")

    def print_undeclared(self, packages: list[Package]) -> None:
        """Propose the packages for the imports of code that declares none."""
        if packages:
            modules = ", ".join(package.module + package.doubt for package in packages)
            options = " ".join(f"-w {shlex.quote(package.name)}" for package in packages)
            self.print(f"the code imports {modules} and declares no packages: {options}")

    def print_submission(self, name: str, _start: float, seconds: float | None) -> None:
        """Report a phase of the backend itself (a `PhaseReport`)."""
        if name == "pull" and seconds is None:
            self.print("pull  fetching the image")

    def print_phases(self, phases: list[Phase], now: float) -> None:
        for phase in phases:
            if phase.name in _HIDDEN_PHASES or phase.name in self._printed:
                continue
            if phase.seconds is not None:
                self._printed.add(phase.name)
                if phase.name in _ENGINE_PHASES and phase.seconds < _NOTICED_SECONDS:
                    continue
                self.print(f"{phase.name}  {phase_facts(phase)}")
            elif now - phase.started_at > 1:
                self._print_active(phase, now)

    def _print_active(self, phase: Phase, now: float) -> None:
        """Print what a phase is doing, again after some seconds and when it does something else."""
        text = phase.activity or "working"
        before, at = self._announced.get(phase.name, ("", 0.0))
        is_other = text.partition(" ")[0] != before.partition(" ")[0]
        if is_other or (text != before and now - at >= _ACTIVITY_SECONDS):
            self._announced[phase.name] = text, now
            self.print(f"{phase.name}  {text}")

    def print_event(self, event: Event) -> None:
        if event["event"] == "note":
            self.print(str(event.get("text")))

    def print_results(self, job: Job) -> None:
        """Report what the job produced, or why that is not on this machine."""
        if job.results_problem is not None:
            self.print(f"results not collected: {job.results_problem}; see: stoke show {job.id}")
        elif job.results_files:
            self.print(f"results: {results_text(job)} (stoke results {job.id})")

    def print_trouble(self, error: EngineError) -> None:
        if error.what in self._troubles:
            return
        self._troubles.add(error.what)
        if isinstance(error, UnsavedLogError):
            # Printed with --quiet too: this output may be the only copy of the log.
            self._end_line()
            print_unsaved_log(error)
        elif self._prints_troubles:
            if isinstance(error, WaitingError):
                self._print(f"waiting: {error.what}" + (f"; {error.hint}" if error.hint else ""))
            else:
                self._print(f"{error.what}; retrying")

    def print_end(self, job: Job) -> None:
        code = "" if job.exit_code is None else f" (exit {job.exit_code})"
        # The reason of a failed environment is printed as an error, with a hint.
        has_own_message = job.exit_code == EXIT_ENGINE or job.state is JobState.SUCCEEDED
        why = f": {job.reason}" if job.reason and not has_own_message else ""
        self.print(f"{job.state} in {human_seconds(job.seconds)}{code}{why} · job {job.id}")
        if job.held and job.held_until is not None:
            left = human_seconds(round(job.held_until - time.time()))
            self.print(f"held for {left}: stoke exec {job.id}; release it: stoke stop {job.id}")

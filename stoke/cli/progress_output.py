"""What `run` says on stderr while a job goes on: one line a phase, brief, nothing with --quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.cli.output import print_notice, print_unsaved
from stoke.errors import EXIT_ENGINE, EngineError, WaitingError
from stoke.history.job import Job, JobState, Phase, Prediction
from stoke.logs.fallback import UnsavedLogError
from stoke.text.units import human_age, human_bytes, human_seconds

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.cli.passthrough import Passthrough
    from stoke.remote.events import Event

# `run` is the job's own time, which the last line tells.
_UNTOLD = frozenset({"run"})
# Waiting for the engine is worth a line only when it is noticed.
_OF_ENGINE = frozenset({"queue", "start"})
_NOTICED_SECONDS = 0.5
# A lock's age is worth saying when it may no longer be what the index would answer.
_OLD_SECONDS = 60.0


def phase_facts(phase: Phase) -> str:
    """`0.41 s  miss  41 packages  6.6 MB`: what is known of a phase that is over."""
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
    """ "hit", "miss" or "partial 39 of 41"; "-" where it is not known."""
    if phase.outcome == "partial" and phase.packages:
        return f"partial {phase.cached} of {phase.packages}"
    return phase.outcome or "-"


def prediction_text(prediction: Prediction) -> str | None:
    """`python partial 39 of 41, system miss, about 3 s`; None where nothing is expected."""
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
    # What the named ones need besides is not known before they are resolved.
    return [f"{counts.cached} of {counts.packages}{' named' if counts.named else ''}"]


class ProgressPrinter:
    """Tells each thing once. All methods are for one thread.

    `troubles`: whether it tells of engines that do not answer; if not said, as of everything else.
    """

    def __init__(self, quiet: bool, troubles: bool | None = None) -> None:
        self._quiet = quiet
        self._tells_troubles = not quiet if troubles is None else troubles
        self._told: set[str] = set()
        self._announced: set[str] = set()
        self._troubles: set[str] = set()
        self._passthrough: Passthrough | None = None

    def beside(self, passthrough: Passthrough) -> None:
        """Lines of ours stay clear of unfinished lines of the job's from here on."""
        self._passthrough = passthrough

    def say(self, text: str) -> None:
        if not self._quiet:
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._end_line()
        print_notice(text)

    def _end_line(self) -> None:
        if self._passthrough is not None:
            self._passthrough.end_line()

    def expect(self, backend: Backend, prediction: Prediction) -> None:
        expected = prediction_text(prediction)
        if expected:
            self.say(f"on {backend.name}, expecting {expected}")

    def submitting(self, name: str, _start: float, seconds: float | None) -> None:
        """The backend's own phases, as they come (a `PhaseReport`)."""
        if name == "pull" and seconds is None:
            self.say("pull  fetching the image")

    def phases(self, phases: list[Phase], now: float) -> None:
        for phase in phases:
            if phase.name in _UNTOLD or phase.name in self._told:
                continue
            if phase.seconds is not None:
                self._told.add(phase.name)
                if phase.name in _OF_ENGINE and phase.seconds < _NOTICED_SECONDS:
                    continue
                self.say(f"{phase.name}  {phase_facts(phase)}")
            elif now - phase.started_at > 1 and phase.name not in self._announced:
                self._announced.add(phase.name)
                self.say(f"{phase.name}  working")

    def event(self, event: Event) -> None:
        if event["event"] == "note":
            self.say(str(event.get("text")))

    def trouble(self, error: EngineError) -> None:
        if error.what in self._troubles:
            return
        self._troubles.add(error.what)
        if isinstance(error, UnsavedLogError):
            # Whoever asked for quiet has to know as well: what is printed may be all there ever is.
            self._end_line()
            print_unsaved(error)
        elif self._tells_troubles:
            if isinstance(error, WaitingError):
                self._tell(f"waits: {error.what}" + (f"; {error.hint}" if error.hint else ""))
            else:
                self._tell(f"{error.what}; trying again")

    def end(self, job: Job) -> None:
        code = "" if job.exit_code is None else f" (exit {job.exit_code})"
        # Why an environment failed is told as an error, with how to fix it.
        told_apart = job.exit_code == EXIT_ENGINE or job.state is JobState.SUCCEEDED
        why = f": {job.reason}" if job.reason and not told_apart else ""
        self.say(f"{job.state} in {human_seconds(job.seconds)}{code}{why} · job {job.id}")

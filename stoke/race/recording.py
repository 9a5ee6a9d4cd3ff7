"""What a race came to: two runs as events with times, the figures told from them, and their file.

A recording holds no code, no variable and no output. It replays without an engine: `Run.job` is the
run's record as it stood at any moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stoke.errors import EngineError, RequestError
from stoke.history.job import ENVIRONMENT_PHASES, PHASES, Job, JobState, Phase
from stoke.text.units import human_bytes, human_seconds

MOST_BYTES = 1024**2
WAITING_PHASES = ("queue", "schedule", "pull")
Seconds = Annotated[float, Field(ge=0, le=1e8, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Word = Annotated[str, Field(max_length=300)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PhaseBegan(_Model):
    """Times (`at`) are seconds since the run was submitted."""

    event: Literal["begin"] = "begin"
    at: Seconds
    phase: Word


class PhaseEnded(_Model):
    event: Literal["phase"] = "phase"
    at: Seconds
    phase: Word
    began: Seconds
    seconds: Seconds
    hit: bool | None = None
    packages: Count | None = None
    cached: Count | None = None
    bytes: Count | None = None


class Ended(_Model):
    event: Literal["end"] = "end"
    at: Seconds
    state: JobState
    exit_code: int | None = None
    reason: Annotated[str, Field(max_length=10_000)] | None = None


Event = Annotated[PhaseBegan | PhaseEnded | Ended, Field(discriminator="event")]


class Run(_Model):
    """One run of the request, from its submission to its end."""

    job: Word
    """Its id; that of a cold run is in no history."""
    scope: Word
    events: Annotated[list[Event], Field(max_length=200)]

    @property
    def seconds(self) -> float:
        return max((event.at for event in self.events), default=0.0)

    @property
    def ready(self) -> float | None:
        """Seconds until the code began, less what the job waited for a place and an image, which no
        cache of ours spares it. None where it never did."""
        waited = sum(
            one.seconds
            for one in self.events
            if isinstance(one, PhaseEnded) and one.phase in WAITING_PHASES
        )
        for one in self.events:
            if isinstance(one, PhaseBegan) and one.phase == "run":
                return max(0.0, one.at - waited)
        return None

    def at(self, moment: float | None = None) -> Job:
        """The job's record `moment` seconds after its submission, which is time 0; None: its end."""
        job = Job(self.job, "race", "", self.scope, JobState.STARTING, 0.0)
        phases: dict[str, Phase] = {}
        for one in self.events:
            if moment is not None and one.at > moment:
                continue
            if isinstance(one, Ended):
                job.state, job.finished_at = one.state, one.at
                job.exit_code, job.reason = one.exit_code, one.reason
            elif isinstance(one, PhaseBegan):
                phases.setdefault(one.phase, Phase(one.phase, one.at))
                if one.phase == "run":
                    job.state = job.state if job.state.finished else JobState.RUNNING
            else:
                phases[one.phase] = Phase(
                    one.phase, one.began, one.seconds, one.hit, one.packages, one.cached, one.bytes
                )
        places = {name: place for place, name in enumerate(PHASES)}
        job.phases = sorted(phases.values(), key=lambda one: places.get(one.name, len(places)))
        return job


def run_of(job: Job) -> Run:
    """A finished job as events."""
    events: list[PhaseBegan | PhaseEnded | Ended] = []
    for phase in job.phases:
        began = max(0.0, phase.started_at - job.submitted_at)
        events.append(PhaseBegan(at=began, phase=phase.name))
        if phase.seconds is not None:
            events.append(
                PhaseEnded(
                    at=began + phase.seconds, phase=phase.name, began=began, seconds=phase.seconds,
                    hit=phase.hit, packages=phase.packages, cached=phase.cached, bytes=phase.bytes,
                )
            )  # fmt: skip
    end = max([job.seconds or 0.0, *(event.at for event in events)])
    reason = None if job.reason is None else job.reason[:10_000]
    events.append(Ended(at=end, state=job.state, exit_code=job.exit_code, reason=reason))
    return Run(job=job.id, scope=job.scope, events=sorted(events, key=lambda one: one.at))


class Recording(_Model):
    """Two runs that came to a good end, and what was raced."""

    format: Literal["stoke race 1"] = "stoke race 1"
    name: Word
    backend: Word
    scope: Word
    """The request's own; the cold run had one of its own, or no cache."""
    packages: Annotated[list[Word], Field(max_length=1000)]
    raced_at: Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
    """Epoch seconds."""
    cold: Run
    warm: Run
    warmed: Seconds | None = None
    """What it took to warm the scope, where it was not warm; it counts for neither run."""
    notes: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=50)] = []

    @property
    def ratio(self) -> float | None:
        """How many times sooner the code began, warm."""
        cold, warm = self.cold.ready, self.warm.ready
        return None if cold is None or not warm else cold / warm

    @property
    def saved_seconds(self) -> float | None:
        """Less than 0 where the warm run was the slower one."""
        cold, warm = self.cold.ready, self.warm.ready
        return None if cold is None or warm is None else cold - warm

    @property
    def saved_bytes(self) -> int | None:
        """Not downloaded; None where the backend cannot count."""
        cold, warm = self.cold.at().received_bytes, self.warm.at().received_bytes
        return None if cold is None or warm is None else max(0, cold - warm)

    @property
    def result(self) -> str:
        """`16 x sooner: the code began after 0.39 s instead of 6.2 s; saved 5.8 s and 54 MB`."""
        ratio, saved = self.ratio, self.saved_seconds
        if ratio is None or saved is None:
            return "one of the runs did not tell when its code began, so they cannot be compared"
        text = (
            f"{ratio:.{1 if ratio < 10 else 0}f} x sooner: the code began after "
            f"{human_seconds(self.warm.ready)} instead of {human_seconds(self.cold.ready)}"
        )
        if saved <= 0:
            return f"{text}; nothing saved"
        if self.saved_bytes is None:
            return f"{text}; saved {human_seconds(saved)} (this backend counts no bytes)"
        return f"{text}; saved {human_seconds(saved)} and {human_bytes(self.saved_bytes)}"


def missed(job: Job) -> list[str]:
    """The phases for which a cache was asked in vain."""
    return [one.name for one in job.phases if one.name in ENVIRONMENT_PHASES and one.hit is False]


def write_recording(recording: Recording, path: Path) -> None:
    """A file that is there already is replaced. `EngineError` where it cannot be written."""
    try:
        path.write_text(recording.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}") from error


def read_recording(path: Path) -> Recording:
    """`RequestError` where it is none."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(str(path), f"cannot be read: {error.strerror}") from None
    why = "it is too long"
    if len(text) <= MOST_BYTES:
        try:
            return Recording.model_validate_json(text)
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            why = f"{where}: {first['msg']}" if where else first["msg"]
    raise RequestError(
        str(path), f"is no recording of a race ({why})", "make one: stoke race --record FILE ..."
    )

"""The result of a race: two runs as events with times, the figures computed from them, and their file.

A recording holds no code, no variables and no output. It replays without an engine: `Run.at` returns
the run's record at any moment.
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
    """The job's id. The job of a cold run is in no history."""
    scope: Word
    events: Annotated[list[Event], Field(max_length=200)]

    @property
    def seconds(self) -> float:
        return max((event.at for event in self.events), default=0.0)

    @property
    def ready(self) -> float | None:
        """Seconds until the code began, minus the time that the job waited for a node and an image,
        which our caches do not change. None if the code never began."""
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
        """Return the job's record `moment` seconds after its submission, or at its end (None)."""
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
        order = {name: number for number, name in enumerate(PHASES)}
        job.phases = sorted(phases.values(), key=lambda one: order.get(one.name, len(order)))
        return job


def run_of(job: Job) -> Run:
    """Convert a finished job to events."""
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
    """Two successful runs, and the request that was raced."""

    format: Literal["stoke race 1"] = "stoke race 1"
    name: Word
    backend: Word
    scope: Word
    """The scope of the request. The cold run had an ephemeral scope, or no cache."""
    packages: Annotated[list[Word], Field(max_length=1000)]
    raced_at: Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
    """Epoch seconds."""
    cold: Run
    warm: Run
    warmed: Seconds | None = None
    """The seconds that warming the scope took, if that was needed; they count for neither run."""
    notes: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=50)] = []

    @property
    def ratio(self) -> float | None:
        """How many times faster the code started in the warm run."""
        cold, warm = self.cold.ready, self.warm.ready
        return None if cold is None or not warm else cold / warm

    @property
    def ratio_text(self) -> str | None:
        """`2.4x`, `16x`; None if the runs cannot be compared."""
        ratio = self.ratio
        return None if ratio is None else f"{ratio:.{1 if ratio < 10 else 0}f}x"

    @property
    def saved_seconds(self) -> float | None:
        """Seconds saved; below 0 if the warm run was slower."""
        cold, warm = self.cold.ready, self.warm.ready
        return None if cold is None or warm is None else cold - warm

    @property
    def saved_bytes(self) -> int | None:
        """Bytes that were not downloaded; None if the backend cannot count them."""
        cold, warm = self.cold.at().received_bytes, self.warm.at().received_bytes
        return None if cold is None or warm is None else max(0, cold - warm)

    @property
    def result(self) -> str:
        """`16x faster: code started after 0.39 s instead of 6.2 s; saved 5.8 s and 54 MiB`."""
        ratio, saved = self.ratio_text, self.saved_seconds
        if ratio is None or saved is None:
            return "a run did not report when its code began, so the runs cannot be compared"
        started = (
            f"code started after {human_seconds(self.warm.ready)} "
            f"instead of {human_seconds(self.cold.ready)}"
        )
        if saved <= 0:
            return f"not faster: {started}; nothing saved"
        text = f"{ratio} faster: {started}"
        if self.saved_bytes is None:
            return f"{text}; saved {human_seconds(saved)} (this backend counts no bytes)"
        return f"{text}; saved {human_seconds(saved)} and {human_bytes(self.saved_bytes)}"


def missed(job: Job) -> list[str]:
    """Return the phases that missed their cache."""
    return [one.name for one in job.phases if one.name in ENVIRONMENT_PHASES and one.hit is False]


def write_recording(recording: Recording, path: Path) -> None:
    """Write a recording to a file, replacing it. Raises `EngineError` if that fails."""
    try:
        path.write_text(recording.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}") from error


def read_recording(path: Path) -> Recording:
    """Read a recording. Raises `RequestError` if the file is not one."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(str(path), f"cannot be read: {error.strerror}") from None
    why = f"longer than {MOST_BYTES // 1024**2} MiB"
    if len(text) <= MOST_BYTES:
        try:
            return Recording.model_validate_json(text)
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            why = f"{where}: {first['msg']}" if where else first["msg"]
    raise RequestError(
        str(path), f"is not a recording of a race ({why})", "make one: stoke race --record FILE ..."
    )

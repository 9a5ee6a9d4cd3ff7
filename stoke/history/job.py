"""The record of a submitted job: its state and its phases.

These are plain dataclasses, so that `stoke jobs` lists a thousand of them without importing pydantic.
The request of a job is a `stoke.request.spec.JobSpec`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def finished(self) -> bool:
        return self in FINISHED


FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.LOST})

CODE, SHELL, SWEEP = "code", "shell", "sweep"
"""The kinds of jobs."""

# In their order. The backend reports the first four, the runner the others.
PHASES = (
    *("queue", "schedule", "pull", "start"),
    *("project", "lock", "system", "python", "build", "run", "results"),
)
# The phases that prepare packages, and that a cache can shorten.
ENVIRONMENT_PHASES = ("lock", "system", "python")
# All phases of the runner before the code.
PREPARING_PHASES = ("project", *ENVIRONMENT_PHASES, "build")


@dataclass(frozen=True)
class Phase:
    """One phase of one job. Times are in seconds (epoch for `started_at`), sizes in bytes.

    `seconds` is None while the phase is active; `hit` and the counts are None if unknown.
    """

    name: str
    started_at: float
    seconds: float | None = None
    hit: bool | None = None
    packages: int | None = None
    cached: int | None = None
    bytes: int | None = None
    key: str | None = None
    """The lockfile, environment or set of system packages on the cache volume that served it."""
    made_at: float | None = None
    """When the lockfile was resolved; only for the lock phase."""
    activity: str | None = None
    """What it is doing, while it is active, if that is known."""

    @property
    def outcome(self) -> str | None:
        return outcome(self.hit, self.cached)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "seconds": None if self.seconds is None else round(self.seconds, 6),
            "hit": self.hit,
            "packages": self.packages,
            "cached": self.cached,
            "bytes": self.bytes,
            "key": self.key,
        }


def outcome(hit: bool | None, cached: int | None) -> str | None:
    """Return "hit", "partial" (a miss with some packages in the cache), "miss", or None if unknown."""
    if hit is None or hit:
        return None if hit is None else "hit"
    return "partial" if cached else "miss"


@dataclass(frozen=True)
class Usage:
    """What the code of a job used until `at` (epoch seconds): cores on average, and bytes of memory."""

    at: float
    cores: float
    memory: int


@dataclass(frozen=True)
class Counts:
    """How many of the packages a partial hit finds in the cache."""

    cached: int
    packages: int
    named: bool
    """Whether `packages` counts those that the request names; otherwise those of the lockfile."""


@dataclass(frozen=True)
class Prediction:
    """The predicted outcome for each kind of package: "hit", "partial", "miss" or None.

    `seconds` is the time of lock, system and python together in earlier runs with this outcome.
    `counts` has an entry for each kind that is partial.
    """

    python: str | None = None
    system: str | None = None
    seconds: float | None = None
    counts: Mapping[str, Counts] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return JSON whose `counts` is {kind: {cached, packages, of}}, `of` is "lock" or "request"."""
        return {
            "python": self.python,
            "system": self.system,
            "seconds": self.seconds,
            "counts": {
                kind: {
                    "cached": one.cached,
                    "packages": one.packages,
                    "of": "request" if one.named else "lock",
                }
                for kind, one in self.counts.items()
            },
        }


@dataclass
class Job:
    """The record of a job in the history. Times are epoch seconds, sizes are bytes.

    `provisional` means that the end is reported but not final: the engine has not confirmed the
    runner's report, or the log is not completely read. `stale` means that the backend could not be
    asked whether the job still runs.
    """

    id: str
    name: str
    backend: str
    scope: str
    state: JobState
    submitted_at: float
    provisional: bool = False
    stale: bool = False
    exit_code: int | None = None
    reason: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    image: str | None = None
    request_hash: str | None = None
    python_hash: str | None = None
    system_hash: str | None = None
    predicted: Prediction = field(default_factory=Prediction)
    log_lines: int = 0
    log_bytes: int = 0
    log_gaps: int = 0
    stop_requested: bool = False
    results_files: int = 0
    results_bytes: int = 0
    results_at: float | None = None
    """When its results were collected; None before that."""
    results_problem: str | None = None
    """Why they could not be collected; only `stoke results` tries again then."""
    checkpoint: str | None = None
    """The name of its checkpoint (`stoke.delivery.checkpoints`)."""
    kind: str = CODE
    """"code", "shell" for one at a user's terminal, or "sweep" (`stoke.history.sweeps`)."""
    sweep: str | None = None
    """The sweep that it is a task of."""
    task: int | None = None
    """Its number there."""
    schedule: str | None = None
    """The schedule that it is a run of (`stoke.schedules`)."""
    held_until: float | None = None
    """When its engine ends a job whose code has failed and that was held for `stoke exec`."""
    damage: str | None = None
    """The damage of the record in the history. A damaged value reads as unknown, a damaged state as
    `LOST`."""
    phases: list[Phase] = field(default_factory=list)
    recent: tuple[Usage, ...] = ()
    """The newest figures of a job that runs; only in a listing of the screens, as `bar` is."""
    bar: str = ""
    """The progress bar that it draws now; of a sweep the strip of its tasks, of a task its values."""

    @property
    def held(self) -> bool:
        """Whether the job has failed and waits at its engine for `stoke exec`."""
        return self.provisional and self.held_until is not None and time.time() < self.held_until

    @property
    def seconds(self) -> float | None:
        """Seconds from submission to the end; None before the end, and if the clock was set back."""
        if self.finished_at is None or self.finished_at < self.submitted_at:
            return None
        return self.finished_at - self.submitted_at

    @property
    def environment_seconds(self) -> float | None:
        """Seconds of lock, system and python together; None before any of them has ended."""
        taken = [p.seconds for p in self.phases if p.name in ENVIRONMENT_PHASES]
        known = [seconds for seconds in taken if seconds is not None]
        return sum(known) if known else None

    @property
    def received_bytes(self) -> int | None:
        """Bytes downloaded for the environment; None if the backend cannot count them."""
        counts = [p.bytes for p in self.phases if p.name in ENVIRONMENT_PHASES]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None


def beyond_reason(note: str, reason: str | None) -> str:
    """Return the part of a note that does not repeat the job's reason, which is shown above it."""
    return note.removeprefix(reason).lstrip("\n") if reason else note


# RFC 4648's alphabet, lower case: no 0, 1, 8 or 9 to misread.
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_job_id(name: str) -> str:
    """Return an id such as `fit-model-7k2pqa`, which names the container, the Workflow and the pod.

    It is the name in RFC 1123 form, cut to 40 characters, and six random characters.
    """
    import secrets  # Takes 6 ms, which a listing does not need.

    stem = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "job"
    return f"{stem}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"

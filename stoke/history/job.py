"""What a job is once it has been submitted: states, phases and the record of one job.

Plain dataclasses: `stoke jobs` lists a thousand of these without loading pydantic. What a
person asks for is `stoke.request.spec.JobSpec`.
"""

from __future__ import annotations

import re
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

# In the order in which a job meets them. The first four are the backend's, the others the runner's.
PHASES = ("queue", "schedule", "pull", "start", "lock", "system", "python", "run", "results")
# What a cache can save; `run` is the job's own time.
ENVIRONMENT_PHASES = ("lock", "system", "python")


@dataclass(frozen=True)
class Phase:
    """One phase of one job. Times in seconds (epoch for `started_at`), sizes in bytes.

    `seconds` is None while the phase goes on; `hit` and the counts are None where unknown.
    """

    name: str
    started_at: float
    seconds: float | None = None
    hit: bool | None = None
    packages: int | None = None
    cached: int | None = None
    bytes: int | None = None
    key: str | None = None
    """What on the cache volume served it: a lock, an environment, a set of system packages."""
    made_at: float | None = None
    """When the lock was resolved; of the lock phase only."""

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
    """ "hit", "partial" (a miss for which some packages were there) or "miss"; None if not known."""
    if hit is None or hit:
        return None if hit is None else "hit"
    return "partial" if cached else "miss"


@dataclass(frozen=True)
class Counts:
    """How many of how many packages a partial hit finds."""

    cached: int
    packages: int
    named: bool
    """Of the packages that the request names; else of all that the lock holds."""


@dataclass(frozen=True)
class Prediction:
    """What is expected of the caches before a job runs: "hit", "partial", "miss" or None.

    `seconds` is what lock, system and python took together when it last went like that. `counts`
    has an entry for each kind that is partial.
    """

    python: str | None = None
    system: str | None = None
    seconds: float | None = None
    counts: Mapping[str, Counts] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """`counts`: {kind: {cached, packages, of}}, `of` being "lock" or "request"."""
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
    """The record of a job, as the history holds it. Times are epoch seconds, sizes bytes.

    `provisional` says that the runner reported the end and the engine has not confirmed it.
    `stale` says that the backend could not be asked whether the job still runs.
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
    damage: str | None = None
    """What is wrong with its record in the history. Damaged values read as unknown, a damaged state
    as `LOST`."""
    phases: list[Phase] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """From submission to the end; None while the job is not over, and where a clock that was set
        back leaves no duration."""
        if self.finished_at is None or self.finished_at < self.submitted_at:
            return None
        return self.finished_at - self.submitted_at

    @property
    def environment_seconds(self) -> float | None:
        """What lock, system and python took together; None before any of them ended."""
        taken = [p.seconds for p in self.phases if p.name in ENVIRONMENT_PHASES]
        known = [seconds for seconds in taken if seconds is not None]
        return sum(known) if known else None

    @property
    def received_bytes(self) -> int | None:
        """Bytes downloaded for the environment; None where the backend cannot count them."""
        counts = [p.bytes for p in self.phases if p.name in ENVIRONMENT_PHASES]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None


def beyond_reason(note: str, reason: str | None) -> str:
    """What a note says besides a job's reason, which is shown above it."""
    return note.removeprefix(reason).lstrip("\n") if reason else note


# RFC 4648's alphabet, lower case: no 0, 1, 8 or 9 to misread.
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_job_id(name: str) -> str:
    """`fit-model-7k2pqa`: the name cut to 40 characters and made RFC 1123, and six random characters.

    It names the container, the Workflow and the pod.
    """
    import secrets  # Costs 6 ms, and a listing makes no names.

    stem = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "job"
    return f"{stem}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"

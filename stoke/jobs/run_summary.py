"""What a run at a save says of its time, beside that of the run before."""

from __future__ import annotations

from stoke.history.job import Job, JobState
from stoke.text.units import human_seconds


def run_summary(number: int, job: Job | None, before: Job | None) -> str:
    """Return a line about a run; `job` is None if it never began, `before` if none ended before it."""
    parts = [f"run {number}"]
    if job is not None and ran_to_its_end(job):
        assert job.seconds is not None
        parts.append(human_seconds(job.seconds))
        if before is not None and before.seconds is not None:
            difference = job.seconds - before.seconds
            word = "slower" if difference > 0 else "faster"
            parts.append(f"{human_seconds(abs(difference))} {word} than the run before")
        if (temperature := _temperature(job)) is not None:
            parts.append(temperature)
    return " · ".join(parts)


def ran_to_its_end(job: Job) -> bool:
    """Whether the code ran to its own end, so that its time can be compared."""
    return job.state in (JobState.SUCCEEDED, JobState.FAILED) and job.seconds is not None


def _temperature(job: Job) -> str | None:
    """Return whether the caches had the environment: "warm" or "cold"; None for a job without one."""
    hits = [phase.hit for phase in job.phases if phase.name in ("python", "system")]
    known = [hit for hit in hits if hit is not None]
    return ("warm" if all(known) else "cold") if known else None

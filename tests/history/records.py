"""Job records for tests of the history."""

from __future__ import annotations

from typing import Any

from stoke.history.job import Job, JobState


def job(job_id: str = "fit-aaaaaa", submitted_at: float = 1000.0, **fields: Any) -> Job:
    made = Job(job_id, "fit", "local", "default", JobState.QUEUED, submitted_at)
    for name, value in fields.items():
        setattr(made, name, value)
    return made

"""Schedules whose runs their engine begins, and how such a run becomes a job of the history.

Only what the jobs of a schedule have in common is here; its times are in `stoke.schedules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stoke.history.job import Job, JobState
from stoke.history.rows import is_spec

if TYPE_CHECKING:
    import sqlite3

    from stoke.history.database import History


@dataclass(frozen=True)
class RunRecord:
    """What the jobs of a schedule have in common. `id` is the schedule's at its engine."""

    id: str
    schedule: str
    backend: str
    scope: str
    image: str | None
    request_hash: str
    python_hash: str | None
    system_hash: str | None
    checkpoint: str | None
    spec: str
    nonce: str


class EngineSchedules:
    """The schedules of one history that engines run."""

    def __init__(self, history: History) -> None:
        self._history = history

    def put(self, record: RunRecord) -> None:
        """Add a schedule, or replace its record."""
        self._history.query(
            "INSERT OR REPLACE INTO engine_schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id, record.schedule, record.backend, record.scope, record.image,
                record.request_hash, record.python_hash, record.system_hash, record.checkpoint,
                record.spec, record.nonce,
            ),
        )  # fmt: skip

    def remove(self, schedule_id: str) -> None:
        self._history.query("DELETE FROM engine_schedules WHERE id = ?", (schedule_id,))

    def get(self, schedule_id: str) -> RunRecord | None:
        rows = self._history.query("SELECT * FROM engine_schedules WHERE id = ?", (schedule_id,))
        return _record(rows[0]) if rows else None

    def named(self, schedule: str) -> list[RunRecord]:
        """Return the records of the schedules with this name, usually one."""
        rows = self._history.query("SELECT * FROM engine_schedules WHERE schedule = ?", (schedule,))
        return [record for record in map(_record, rows) if record is not None]

    def by_backend(self) -> dict[str, list[str]]:
        """Return the ids of the schedules of each backend that has any."""
        found: dict[str, list[str]] = {}
        for row in self._history.query("SELECT backend, id FROM engine_schedules ORDER BY id"):
            found.setdefault(str(row["backend"]), []).append(str(row["id"]))
        return found

    def add_run(self, record: RunRecord, job_id: str, begun_at: float) -> None:
        """Add the job of a run that the engine has begun; one that is already there does not change."""
        job = Job(
            id=job_id,
            name=record.schedule,
            backend=record.backend,
            scope=record.scope,
            state=JobState.STARTING,
            submitted_at=begun_at,
            image=record.image,
            request_hash=record.request_hash,
            python_hash=record.python_hash,
            system_hash=record.system_hash,
            checkpoint=record.checkpoint,
            schedule=record.schedule,
        )
        self._history.add(job, record.spec, record.nonce)

    def newest_run(self, schedule_id: str) -> Job | None:
        """Return the job of the run that began last."""
        begin = f"{schedule_id}-"
        rows = self._history.query(
            "SELECT id FROM jobs WHERE schedule IS NOT NULL AND substr(id, 1, ?) = ? "
            "ORDER BY submitted_at DESC LIMIT 1",
            (len(begin), begin),
        )
        return self._history.get(rows[0]["id"]) if rows else None


def _record(row: sqlite3.Row) -> RunRecord | None:
    """Return a record; None if it is damaged, and its runs are then found as those of others are."""
    values = dict(row)
    optional = ("image", "python_hash", "system_hash", "checkpoint")
    if not all(isinstance(values[name], str) or name in optional for name in values):
        return None
    if not is_spec(values["spec"]):
        return None
    known: dict[str, Any] = {
        name: one if isinstance(one, str) else None for name, one in values.items()
    }
    return RunRecord(**known)

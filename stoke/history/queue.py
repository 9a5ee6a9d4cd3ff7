"""The queue: submitted jobs that wait for their start, in the order in which they start."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from stoke.history.job import CODE

if TYPE_CHECKING:
    from stoke.history.database import History

MOST_PRIORITY = 1000
PAUSED = "the queue is paused; continue with: stoke queue resume"
"""Why the jobs of a paused queue wait."""


class Dependency(NamedTuple):
    """A job that has to end before another one starts."""

    job_id: str
    any_end: bool = False
    """Whether it may also fail; otherwise it has to succeed."""


@dataclass(frozen=True)
class Placement:
    """How a job is put into the queue."""

    priority: int = 0
    after: tuple[Dependency, ...] = ()


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits in the queue."""

    id: str
    backend: str
    scope: str
    priority: int
    after: tuple[Dependency, ...]
    kind: str = CODE
    sweep: str | None = None
    """The sweep that it is a task of."""
    starts_at: float | None = None
    """It waits until then (epoch seconds)."""


# Within a priority, the jobs that were submitted first start first.
_ORDER = "ORDER BY queue.priority DESC, queue.place, jobs.submitted_at, jobs.id"


class JobQueue:
    """The queue of one history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add(self, job_id: str, placement: Placement, starts_at: float | None = None) -> None:
        """Put a job behind all others of its priority. It waits until `starts_at` (epoch seconds)."""
        after = json.dumps([[one.job_id, one.any_end] for one in placement.after])
        self._history.query(
            "INSERT OR IGNORE INTO queue (job_id, place, priority, after, starts_at) "
            "VALUES (?, (SELECT coalesce(max(place), 0) + 1 FROM queue), ?, ?, ?)",
            (job_id, placement.priority, after, starts_at),
        )

    def add_beside(self, job_id: str, other: str) -> None:
        """Put a job at the place of another one that waits."""
        self._history.query(
            "INSERT OR IGNORE INTO queue (job_id, place, priority) "
            "SELECT ?, place, priority FROM queue WHERE job_id = ?",
            (job_id, other),
        )

    def remove(self, job_id: str) -> None:
        self._history.query("DELETE FROM queue WHERE job_id = ?", (job_id,))

    def has(self, job_id: str) -> bool:
        return bool(self._history.query("SELECT 1 FROM queue WHERE job_id = ?", (job_id,)))

    def count(self) -> int:
        return int(self._history.query("SELECT COUNT(*) AS number FROM queue")[0]["number"])

    def ids(self) -> set[str]:
        return {str(row["job_id"]) for row in self._history.query("SELECT job_id FROM queue")}

    def waiting(self, backend: str | None = None) -> list[QueuedJob]:
        """Return the waiting jobs of one backend, or of all, in the order of their start."""
        rows = self._history.query(
            "SELECT jobs.id, jobs.backend, jobs.scope, job_kind, sweep, queue.priority, "  # noqa: S608
            "queue.after, queue.starts_at "
            "FROM queue JOIN jobs ON jobs.id = queue.job_id "
            f"WHERE ?1 IS NULL OR jobs.backend = ?1 {_ORDER}",
            (backend,),
        )
        return [
            QueuedJob(
                str(row["id"]), str(row["backend"]), str(row["scope"]), _priority(row["priority"]),
                tuple(_dependencies(row["after"])), row["job_kind"] or CODE, row["sweep"],
                _time(row["starts_at"]),
            )
            for row in rows
        ]  # fmt: skip

    def set_priority(self, job_id: str, priority: int) -> None:
        self._history.query("UPDATE queue SET priority = ? WHERE job_id = ?", (priority, job_id))

    def move(self, job: QueuedJob, place: int) -> None:
        """Give a job a place (1 is the next to start) among the waiting jobs of its backend.

        It takes the priority of the job that had that place.
        """
        others = [one for one in self.waiting(job.backend) if one.id != job.id]
        at = min(max(1, place) - 1, len(others))
        if not others:
            return
        before = others[at - 1] if at else None
        behind = others[at] if at < len(others) else None
        near = behind or before
        assert near is not None
        places = self._places()
        low = places[before.id] if before and before.priority == near.priority else None
        high = places[behind.id] if behind and behind.priority == near.priority else None
        if low is None:
            assert high is not None
            new = high - 1.0
        else:
            new = low + 1.0 if high is None else (low + high) / 2
        self._history.query(
            "UPDATE queue SET priority = ?, place = ? WHERE job_id = ?",
            (near.priority, new, job.id),
        )

    def _places(self) -> dict[str, float]:
        rows = self._history.query("SELECT job_id, place FROM queue")
        return {str(row["job_id"]): float(row["place"]) for row in rows}

    def pause(self, backends: Iterable[str]) -> None:
        """Start no waiting job of these backends until `resume`."""
        self._history.query_many(
            "INSERT OR IGNORE INTO paused_queues VALUES (?)", [(one,) for one in backends]
        )

    def resume(self, backends: Iterable[str]) -> None:
        self._history.query_many(
            "DELETE FROM paused_queues WHERE backend = ?", [(one,) for one in backends]
        )

    def has_work(self) -> bool:
        """Return whether the scheduler has something to do.

        A job waits that is not in a paused queue, a task of a sweep runs, or the end of a job has to be
        seen because it may run again or tells of it.
        """
        return bool(
            self._history.query(
                "SELECT 1 FROM queue JOIN jobs ON jobs.id = queue.job_id "
                "WHERE jobs.backend NOT IN (SELECT backend FROM paused_queues) "
                "OR EXISTS (SELECT 1 FROM jobs AS one WHERE one.sweep = jobs.id "
                "AND (one.state IN ('starting', 'running') OR one.provisional)) "
                "UNION ALL SELECT 1 FROM attempts WHERE next IS NULL "
                "AND job_id NOT IN (SELECT job_id FROM queue) "
                "UNION ALL SELECT 1 FROM notifications WHERE sent_at IS NULL "
                "AND job_id NOT IN (SELECT job_id FROM queue) LIMIT 1"
            )
        )

    def has_sequel(self, job_id: str) -> bool:
        """Return whether anything comes after the end of a job: another attempt, or word of its end."""
        return bool(
            self._history.query(
                "SELECT 1 FROM attempts WHERE job_id = ?1 AND next IS NOT '' "
                "UNION ALL SELECT 1 FROM notifications WHERE job_id = ?1 AND sent_at IS NULL",
                (job_id,),
            )
        )

    def paused(self) -> set[str]:
        rows = self._history.query("SELECT backend FROM paused_queues")
        return {str(row["backend"]) for row in rows}


def _priority(stored: Any) -> int:
    return stored if isinstance(stored, int) else 0


def _time(stored: Any) -> float | None:
    return float(stored) if isinstance(stored, int | float) else None


def _dependencies(stored: Any) -> list[Dependency]:
    try:
        listed = json.loads(stored)
        return [Dependency(str(job_id), bool(any_end)) for job_id, any_end in listed]
    except (TypeError, ValueError):
        return []

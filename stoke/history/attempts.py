"""The attempts of jobs that are run again: each is a job of its own, linked to the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

    from stoke.history.database import History

NONE = ""
"""In place of the next attempt's id: there is none."""


class Attempt(NamedTuple):
    """One attempt of a job with retries."""

    job_id: str
    first: str
    """The id of the first attempt."""
    number: int
    """From 1 on."""
    cause: str | None = None
    """A `stoke.backend.api.Cause`, if the engine reports one for its end."""
    next: str | None = None
    """The id of the next attempt, `NONE`, or None while that is not decided."""
    why: str | None = None
    """Why there is a next attempt, as a sentence."""


class Attempts:
    """The attempts in one history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add(self, job_id: str, first: str, number: int) -> None:
        self._history.query(
            "INSERT OR IGNORE INTO attempts (job_id, first, number) VALUES (?, ?, ?)",
            (job_id, first, number),
        )

    def of(self, job_id: str) -> Attempt | None:
        """Return the record of a job with retries, None for any other job."""
        rows = self._history.query("SELECT * FROM attempts WHERE job_id = ?", (job_id,))
        return _attempt(rows[0]) if rows else None

    def all_of(self, job_id: str) -> list[Attempt]:
        """Return all attempts of a job, of which `job_id` is one, in their order."""
        rows = self._history.query(
            "SELECT * FROM attempts WHERE first = (SELECT first FROM attempts WHERE job_id = ?) "
            "ORDER BY number",
            (job_id,),
        )
        return [_attempt(row) for row in rows]

    def latest(self, job_id: str) -> str:
        """Return the id of a job's newest attempt; that of a job without retries is its own."""
        attempts = self.all_of(job_id)
        return attempts[-1].job_id if attempts else job_id

    def undecided(self) -> list[str]:
        """Return the jobs of which it is not decided yet whether they are run again."""
        rows = self._history.query("SELECT job_id FROM attempts WHERE next IS NULL ORDER BY job_id")
        return [str(row["job_id"]) for row in rows]

    def set_cause(self, job_id: str, cause: str) -> None:
        """Record why a job ended, if it has retries."""
        self._history.query("UPDATE attempts SET cause = ? WHERE job_id = ?", (cause, job_id))

    def decide(self, job_id: str, next_id: str, why: str | None = None) -> bool:
        """Record the next attempt of a job, or `NONE`. Return False if that was decided before."""
        return bool(
            self._history.query(
                "UPDATE attempts SET next = ?, why = ? WHERE job_id = ? AND next IS NULL "
                "RETURNING job_id",
                (next_id, why, job_id),
            )
        )


def _attempt(row: sqlite3.Row) -> Attempt:
    texts = (row["cause"], row["next"], row["why"])
    number = row["number"] if isinstance(row["number"], int) else 1
    return Attempt(
        str(row["job_id"]),
        str(row["first"]),
        number,
        *(text if isinstance(text, str) else None for text in texts),
    )

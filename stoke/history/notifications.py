"""Which jobs tell of their end, and which have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoke.history.database import History


class Notifications:
    """The notifications of one history: one for each job that has any."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add(self, job_id: str) -> None:
        """Have a job tell of its end."""
        self._history.query("INSERT OR IGNORE INTO notifications (job_id) VALUES (?)", (job_id,))

    def pass_on(self, job_id: str, attempt: str) -> None:
        """Have the next attempt of a job tell of its end instead of the job."""
        self._history.query(
            "UPDATE notifications SET job_id = ? WHERE job_id = ? AND sent_at IS NULL",
            (attempt, job_id),
        )

    def is_pending(self, job_id: str) -> bool:
        return bool(
            self._history.query(
                "SELECT 1 FROM notifications WHERE job_id = ? AND sent_at IS NULL", (job_id,)
            )
        )

    def pending(self) -> list[str]:
        """Return the jobs that have not told of their end."""
        rows = self._history.query("SELECT job_id FROM notifications WHERE sent_at IS NULL")
        return [str(row["job_id"]) for row in rows]

    def set_sent(self, job_id: str) -> None:
        """Record that a job has told of its end, or that this has failed for good."""
        self._history.query(
            "UPDATE notifications SET sent_at = ? WHERE job_id = ?", (time.time(), job_id)
        )

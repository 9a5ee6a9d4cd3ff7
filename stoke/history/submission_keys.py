"""Idempotency keys of submissions over HTTP: the request that came with each, and its job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stoke.history.database import History

KEPT_SECONDS = 7 * 86_400.0


class KnownSubmission(NamedTuple):
    digest: str
    """Of the request that came with the key first."""
    job_id: str


class SubmissionKeys:
    def __init__(self, history: History) -> None:
        self._history = history

    def find(self, token: str, key: str) -> KnownSubmission | None:
        rows = self._history.query(
            "SELECT digest, job_id FROM submission_keys WHERE token = ? AND key = ?", (token, key)
        )
        return KnownSubmission(str(rows[0]["digest"]), str(rows[0]["job_id"])) if rows else None

    def add(self, token: str, key: str, digest: str, job_id: str) -> None:
        """Add a key. Raises `EngineError` if another process has added it in the meantime."""
        self._history.query(
            "INSERT INTO submission_keys VALUES (?, ?, ?, ?, ?)",
            (token, key, digest, job_id, time.time()),
        )

    def forget_old(self) -> None:
        self._history.query(
            "DELETE FROM submission_keys WHERE made_at < ?", (time.time() - KEPT_SECONDS,)
        )

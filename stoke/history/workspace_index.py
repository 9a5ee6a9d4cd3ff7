"""Workspaces in the history: when jobs used them last, and their last measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoke.history.rows import NUMBER, TIME, is_sound

if TYPE_CHECKING:
    from stoke.history.database import History


@dataclass(frozen=True)
class WorkspaceRecord:
    """Times are epoch seconds; None for what was never recorded."""

    used_at: float | None
    measured_at: float | None
    bytes: int | None
    files: int | None


class WorkspaceIndex:
    """The records of all workspaces that this machine's jobs have used."""

    def __init__(self, history: History) -> None:
        self._history = history

    def record_use(self, backend: str, name: str, used_at: float) -> None:
        self._history.query(
            "INSERT INTO workspaces (backend, name, used_at) VALUES (?, ?, ?) "
            "ON CONFLICT (backend, name) DO UPDATE SET used_at = excluded.used_at",
            (backend, name, used_at),
        )

    def record_size(
        self, backend: str, name: str, measured_at: float, size: int, files: int
    ) -> None:
        self._history.query(
            "INSERT INTO workspaces (backend, name, measured_at, bytes, files) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT (backend, name) DO UPDATE SET "
            "measured_at = excluded.measured_at, bytes = excluded.bytes, files = excluded.files",
            (backend, name, measured_at, size, files),
        )

    def forget(self, backend: str, name: str) -> None:
        self._history.query(
            "DELETE FROM workspaces WHERE backend = ? AND name = ?", (backend, name)
        )

    def records(self, backend: str) -> dict[str, WorkspaceRecord]:
        """Return the records of a backend's workspaces by name."""
        rows = self._history.query("SELECT * FROM workspaces WHERE backend = ?", (backend,))
        return {
            row["name"]: WorkspaceRecord(
                *(
                    row[column] if is_sound(row[column], kind) else None
                    for column, kind in (
                        ("used_at", TIME),
                        ("measured_at", TIME),
                        ("bytes", NUMBER),
                        ("files", NUMBER),
                    )
                )
            )
            for row in rows
            if isinstance(row["name"], str)
        }

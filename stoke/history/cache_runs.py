"""What the jobs in the history did with their caches: runs of cached phases, and packages named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from stoke.history.database import History
from stoke.history.rows import LATEST


@dataclass(frozen=True)
class PackageUse:
    """How many jobs named a package and got it."""

    name: str
    kind: str
    uses: int


class CacheRun(NamedTuple):
    """One complete phase that a cache served. A failed phase has no package count and is left out."""

    backend: str
    scope: str
    kind: str
    submitted_at: float
    request: str | None
    predicted: str | None
    hit: int
    seconds: float
    cached: int | None
    bytes: int | None

    @property
    def found(self) -> int:
        return self.cached or 0


# Damaged rows are left out.
_SOUND = " AND ".join(
    [f"typeof({column}) = 'text'" for column in ("jobs.backend", "jobs.scope")]
    + [
        f"typeof({column}) IN ('text', 'null')"
        for column in (
            "request_hash", "python_hash", "system_hash", "predicted_python", "predicted_system",
        )
    ]
    + [f"typeof({column}) IN ('integer', 'null')" for column in ("cached", "phases.bytes")]
    + ["typeof(phases.hit) = 'integer'"]
    + [
        f"typeof({column}) IN ('real', 'integer') AND abs({column}) <= {LATEST}"
        for column in ("phases.seconds", "jobs.submitted_at")
    ]
)  # fmt: skip


def cache_runs(history: History, backend: str | None, scope: str | None) -> Iterator[CacheRun]:
    """Yield the runs in the order in which their jobs were submitted."""
    rows = history.query(
        "SELECT jobs.backend, jobs.scope, phases.name, jobs.submitted_at, "  # noqa: S608
        "coalesce(iif(phases.name = 'python', python_hash, system_hash), request_hash), "
        "iif(phases.name = 'python', predicted_python, predicted_system), "
        "phases.hit, phases.seconds, phases.cached, phases.bytes "
        "FROM jobs JOIN phases ON phases.job_id = jobs.id "
        "WHERE phases.name IN ('python', 'system') AND jobs.use_cache AND phases.hit IS NOT NULL "
        "AND phases.seconds IS NOT NULL AND phases.packages IS NOT NULL "
        f"AND {_SOUND} "
        "AND (?1 IS NULL OR jobs.backend = ?1) AND (?2 IS NULL OR jobs.scope = ?2) "
        "ORDER BY jobs.submitted_at",
        (backend, scope),
    )
    return map(CacheRun._make, rows)


def package_uses(
    history: History, since: float | None, backend: str | None, scope: str | None
) -> tuple[PackageUse, ...]:
    """Return the packages that jobs named since `since` and got, most used first."""
    rows = history.query(
        "SELECT asked.name, kind, COUNT(*) FROM jobs JOIN asked_packages AS asked USING (request_hash) "
        "WHERE submitted_at >= coalesce(?3, 0) "
        "AND (?1 IS NULL OR jobs.backend = ?1) AND (?2 IS NULL OR jobs.scope = ?2) "
        "AND EXISTS (SELECT 1 FROM phases WHERE phases.job_id = jobs.id "
        "AND phases.name = asked.kind AND phases.packages IS NOT NULL) "
        "AND typeof(asked.name) = 'text' AND typeof(kind) = 'text' "
        "GROUP BY asked.name, kind ORDER BY COUNT(*) DESC, asked.name, kind",
        (backend, scope, since),
    )
    return tuple(PackageUse(*row) for row in rows)

"""What the caches did for the jobs in the history: hits, seconds, bytes, packages, predictions.

Told from finished phases of jobs that used a cache, in one pass over the history; no backend is asked.
Unknown is None, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stoke.history.database import LATEST, CacheSize, History
from stoke.history.job import outcome

Key = tuple[str, str, str]
"""(backend, scope, kind); kind is "python" or "system"."""


@dataclass(frozen=True)
class CacheFigures:
    """One cache's record. Seconds are those of the phase that the cache serves.

    What a job saved is what the measured cold run of the same request took, less what it took itself:
    the latest run before it that found the least in the cache. A job before which nobody measured a
    colder one counts for nothing.
    """

    backend: str
    scope: str
    kind: str
    jobs: int
    hits: int
    hit_rate: float | None
    cold_seconds: float | None
    """The median of the misses."""
    warm_seconds: float | None
    """The median of the hits."""
    saved_seconds: float | None
    saved_bytes: int | None


@dataclass(frozen=True)
class Point:
    """The jobs in one stretch of time, which begins at `at` (epoch seconds)."""

    at: float
    jobs: int
    hits: int


@dataclass(frozen=True)
class PackageUse:
    """How many jobs named a package."""

    name: str
    kind: str
    uses: int


@dataclass(frozen=True)
class PredictionFigures:
    """Predictions against what happened, one for each kind of packages of each job.

    Right is one that said hit where it was one, or not where it was none. `exact` counts those that
    told a partial hit from a miss as well.
    """

    judged: int
    right: int
    rate: float | None
    exact: int = 0


@dataclass(frozen=True)
class Metrics:
    """All figures since a time (epoch seconds), or of the whole history."""

    since: float | None
    figures: tuple[CacheFigures, ...]
    over_time: Mapping[Key, tuple[Point, ...]]
    """Stretches of equal length up to now, the same ones for every cache; some hold no job."""
    sizes: tuple[CacheSize, ...]
    packages: tuple[PackageUse, ...]
    """The most used first."""
    prediction: PredictionFigures


def read_metrics(
    history: History,
    *,
    since: float | None = None,
    backend: str | None = None,
    scope: str | None = None,
    buckets: int = 24,
) -> Metrics:
    """The figures of jobs that were submitted from `since` on, in one place or all of them.

    A cold run that jobs are measured against may be older than `since`.
    """
    now = time.time()
    places: dict[Key, _Place] = {}
    judged = right = exact = 0
    for run in _runs(history, backend, scope):
        place = places.setdefault((run.backend, run.scope, run.kind), _Place())
        counted = since is None or run.submitted_at >= since
        place.add(run, counted)
        if counted and run.predicted is not None:
            judged += 1
            right += (run.predicted == "hit") == run.hit
            exact += run.predicted == outcome(bool(run.hit), run.cached)
    places = {key: place for key, place in sorted(places.items()) if place.times}
    first = since
    if first is None:
        first = min((place.times[0][0] for place in places.values()), default=now)
    return Metrics(
        since=since,
        figures=tuple(place.figures(key) for key, place in places.items()),
        over_time={key: _points(place.times, first, now, buckets) for key, place in places.items()},
        sizes=tuple(
            size
            for size in history.cache_sizes(since)
            if backend in (None, size.backend) and scope in (None, size.scope)
        ),
        packages=_package_uses(history, since, backend, scope),
        prediction=PredictionFigures(judged, right, right / judged if judged else None, exact),
    )


def median(values: Sequence[float]) -> float | None:
    """The middle one, or the mean of the two in the middle. (`statistics` takes 10 ms to import.)"""
    if not values:
        return None
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


class _Run(NamedTuple):
    """A phase that a cache served, whole: one that failed has no package count."""

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


# Damaged rows count nowhere.
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


def _runs(history: History, backend: str | None, scope: str | None) -> Iterator[_Run]:
    """In the order in which the jobs were submitted."""
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
    return map(_Run._make, rows)


def _package_uses(
    history: History, since: float | None, backend: str | None, scope: str | None
) -> tuple[PackageUse, ...]:
    rows = history.query(
        "SELECT asked.name, kind, COUNT(*) FROM jobs JOIN asked_packages AS asked USING (request_hash) "
        "WHERE submitted_at >= coalesce(?3, 0) "
        "AND (?1 IS NULL OR jobs.backend = ?1) AND (?2 IS NULL OR jobs.scope = ?2) "
        "AND typeof(asked.name) = 'text' AND typeof(kind) = 'text' "
        "GROUP BY asked.name, kind ORDER BY COUNT(*) DESC, asked.name, kind",
        (backend, scope, since),
    )
    return tuple(PackageUse(*row) for row in rows)


@dataclass
class _Place:
    """What is added up for one cache, its jobs in the order in which they were submitted."""

    times: list[tuple[float, bool]] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    saved_seconds: float | None = None
    saved_bytes: int | None = None
    coldest: dict[str | None, _Run] = field(default_factory=dict)

    def add(self, run: _Run, counted: bool) -> None:
        reference = self.coldest.get(run.request)
        if not run.hit and (reference is None or run.found <= reference.found):
            self.coldest[run.request] = run
            reference = None
        if not counted:
            return
        self.times.append((run.submitted_at, run.hit > 0))
        (self.warm if run.hit else self.cold).append(run.seconds)
        if reference is None:
            return
        self.saved_seconds = (self.saved_seconds or 0) + max(0, reference.seconds - run.seconds)
        if reference.bytes is not None and run.bytes is not None:
            self.saved_bytes = (self.saved_bytes or 0) + max(0, reference.bytes - run.bytes)

    def figures(self, key: Key) -> CacheFigures:
        jobs, hits = len(self.times), len(self.warm)
        return CacheFigures(
            *key,
            jobs=jobs,
            hits=hits,
            hit_rate=hits / jobs if jobs else None,
            cold_seconds=_rounded(median(self.cold)),
            warm_seconds=_rounded(median(self.warm)),
            saved_seconds=_rounded(self.saved_seconds),
            saved_bytes=self.saved_bytes,
        )


def _rounded(seconds: float | None) -> float | None:
    """To what the runner measures, a microsecond."""
    return None if seconds is None else round(seconds, 6)


def _points(
    times: Sequence[tuple[float, bool]], first: float, now: float, buckets: int
) -> tuple[Point, ...]:
    length = max(now - first, 1.0) / buckets
    jobs, hits = [0] * buckets, [0] * buckets
    for at, hit in times:
        # A job of this moment, or of a clock that was ahead, belongs to the last.
        number = min(int((at - first) / length), buckets - 1)
        jobs[number] += 1
        hits[number] += hit
    return tuple(Point(first + n * length, jobs[n], hits[n]) for n in range(buckets))

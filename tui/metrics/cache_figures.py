"""Figures of cache volumes from the history: hit rates and sizes over time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoke.backend.api import Volume
from stoke.cache.metrics import CacheFigures, Metrics, Point, read_metrics
from stoke.history.database import CacheSize, History
from tui import format as fmt

Curve = list[tuple[float, float]]
"""(epoch seconds, value), oldest first."""


@dataclass(frozen=True)
class CacheHistory:
    """`sizes` are all measurements since `metrics.since`."""

    metrics: Metrics
    sizes: Sequence[CacheSize]
    jobs_today: int = 0

    @property
    def savings(self) -> tuple[str, str, str]:
        """Return saved time, saved bytes and hit rate of all caches together, as text."""
        figures = self.metrics.figures
        seconds = [one.saved_seconds for one in figures if one.saved_seconds is not None]
        data = [one.saved_bytes for one in figures if one.saved_bytes is not None]
        jobs = sum(one.jobs for one in figures)
        return (
            fmt.duration(sum(seconds) if seconds else None),
            fmt.size(sum(data) if data else None),
            fmt.share(sum(one.hits for one in figures) / jobs if jobs else None),
        )

    @property
    def interval(self) -> float | None:
        """Seconds of an interval of the hit rates."""
        for points in self.metrics.over_time.values():
            if len(points) > 1:
                return points[1].at - points[0].at
        return None

    def figures(self, volume: Volume) -> CacheFigures | None:
        wanted = (volume.backend, volume.scope, volume.kind)
        for one in self.metrics.figures:
            if (one.backend, one.scope, one.kind) == wanted:
                return one
        return None

    def hit_rates(self, volume: Volume) -> Curve:
        key = (volume.backend, volume.scope, volume.kind)
        return hit_rates([self.metrics.over_time.get(key, ())])

    def sizes_of(self, volume: Volume) -> Curve:
        wanted = (volume.backend, volume.node, volume.scope, volume.kind)
        return [
            (one.measured_at, one.bytes)
            for one in self.sizes
            if (one.backend, one.node, one.scope, one.kind) == wanted
        ]


def read_cache_history(
    history: History,
    *,
    since: float | None = None,
    backend: str | None = None,
    scope: str | None = None,
    buckets: int = 24,
    now: float,
) -> CacheHistory:
    """Read the history since a time in epoch seconds, or all; of one backend and scope, or all.

    `now` is the time of the program's clock.
    """
    metrics = read_metrics(
        history, since=since, backend=backend, scope=scope, buckets=buckets, now=now
    )
    # Without a time, the metrics hold only the last measurement of each volume.
    sizes = [
        size
        for size in history.cache_sizes(since or 0.0)
        if backend in (None, size.backend) and scope in (None, size.scope)
    ]
    midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
    ((today,),) = history.query(
        "SELECT COUNT(*) FROM jobs WHERE submitted_at >= ?1 "
        "AND (?2 IS NULL OR backend = ?2) AND (?3 IS NULL OR scope = ?3)",
        (midnight, backend, scope),
    )
    return CacheHistory(metrics, sizes, today)


def hit_rates(many: Iterable[Sequence[Point]]) -> Curve:
    """Return the hit rate of several caches together, for each bucket of time with jobs.

    All caches have the same buckets.
    """
    jobs: dict[float, int] = {}
    hits: dict[float, int] = {}
    for points in many:
        for point in points:
            jobs[point.at] = jobs.get(point.at, 0) + point.jobs
            hits[point.at] = hits.get(point.at, 0) + point.hits
    return [(at, hits[at] / jobs[at]) for at in sorted(jobs) if jobs[at]]


def total_sizes(sizes: Sequence[CacheSize]) -> list[tuple[float, int]]:
    """Return the total size of several volumes at each time at which one of them was measured."""
    held: dict[tuple[str, str | None, str, str], int] = {}
    curve: dict[float, int] = {}
    for one in sizes:
        held[one.backend, one.node, one.scope, one.kind] = one.bytes
        curve[one.measured_at] = sum(held.values())
    return list(curve.items())

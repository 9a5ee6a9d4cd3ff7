"""What the history tells of cache volumes: figures, hit rates and sizes over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoke.backend.api import Volume
from stoke.cache.metrics import CacheFigures, Metrics, Point, read_metrics
from stoke.history.database import CacheSize, History

Curve = list[tuple[float, float]]
"""(epoch seconds, value), the oldest first."""


@dataclass(frozen=True)
class Records:
    """Read together, shown together. `sizes` are all measurements since `metrics.since`."""

    metrics: Metrics
    sizes: Sequence[CacheSize]

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


def read_records(
    history: History,
    *,
    since: float | None = None,
    backend: str | None = None,
    scope: str | None = None,
    buckets: int = 24,
) -> Records:
    """From `since` on (epoch seconds; None: everything), of one backend and scope or of all."""
    metrics = read_metrics(history, since=since, backend=backend, scope=scope, buckets=buckets)
    # Asked for here: without a time, the metrics hold each volume's last measurement only.
    sizes = [
        size
        for size in history.cache_sizes(since or 0.0)
        if backend in (None, size.backend) and scope in (None, size.scope)
    ]
    return Records(metrics, sizes)


def hit_rates(many: Iterable[Sequence[Point]]) -> Curve:
    """The share of hits in each stretch of time in which there were jobs, of several caches
    together: their stretches are the same ones."""
    jobs: dict[float, int] = {}
    hits: dict[float, int] = {}
    for points in many:
        for point in points:
            jobs[point.at] = jobs.get(point.at, 0) + point.jobs
            hits[point.at] = hits.get(point.at, 0) + point.hits
    return [(at, hits[at] / jobs[at]) for at in sorted(jobs) if jobs[at]]


def total_sizes(sizes: Sequence[CacheSize]) -> list[tuple[float, int]]:
    """What several volumes held together, at each time at which one of them was measured."""
    held: dict[tuple[str, str | None, str, str], int] = {}
    curve = []
    for one in sizes:
        held[one.backend, one.node, one.scope, one.kind] = one.bytes
        curve.append((one.measured_at, sum(held.values())))
    return curve

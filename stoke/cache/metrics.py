"""Compute what the caches did for the jobs in the history: hits, seconds, bytes, packages, predictions.

The figures come from finished phases of jobs that used a cache, in one pass over the history; no
backend is asked. Unknown is None, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stoke.cache.median import median
from stoke.history.cache_runs import CacheRun, PackageUse, cache_runs, package_uses
from stoke.history.database import CacheSize, History
from stoke.history.job import outcome

Key = tuple[str, str, str]
"""(backend, scope, kind); kind is "python" or "system"."""


@dataclass(frozen=True)
class CacheFigures:
    """The figures of one cache. Seconds are those of the phase that the cache serves.

    A job saves the seconds and bytes of the cold run of its request, minus its own. The cold run is the
    latest earlier run that found the least in the cache. A job without a colder earlier run saves
    nothing.
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
    """The jobs in one interval, which begins at `at` (epoch seconds)."""

    at: float
    jobs: int
    hits: int


@dataclass(frozen=True)
class PredictionFigures:
    """How many predictions were right, one prediction for each kind of package of each job.

    A prediction is right if it predicted a hit and there was one, or predicted none and there was none.
    `exact` counts the predictions that also told a partial hit from a miss.
    """

    judged: int
    right: int
    rate: float | None
    exact: int = 0


@dataclass(frozen=True)
class Metrics:
    """All figures since a time (epoch seconds), or of the whole history if that is None."""

    since: float | None
    figures: tuple[CacheFigures, ...]
    over_time: Mapping[Key, tuple[Point, ...]]
    """Intervals of equal length up to now, the same for every cache; some have no job."""
    sizes: tuple[CacheSize, ...]
    packages: tuple[PackageUse, ...]
    """Most used first."""
    prediction: PredictionFigures


def read_metrics(
    history: History,
    *,
    since: float | None = None,
    backend: str | None = None,
    scope: str | None = None,
    buckets: int = 24,
    now: float | None = None,
) -> Metrics:
    """Return the figures of the jobs submitted since `since`, of one backend and scope or of all.

    The cold run that a job is compared with may be older than `since`. `now` is where the intervals
    end, by default the time of the clock.
    """
    now = time.time() if now is None else now
    places: dict[Key, _Totals] = {}
    judged = right = exact = 0
    for run in cache_runs(history, backend, scope):
        place = places.setdefault((run.backend, run.scope, run.kind), _Totals())
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
        packages=package_uses(history, since, backend, scope),
        prediction=PredictionFigures(judged, right, right / judged if judged else None, exact),
    )


@dataclass
class _Totals:
    """The sums for one cache. Its runs are added in the order in which their jobs were submitted."""

    times: list[tuple[float, bool]] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    saved_seconds: float | None = None
    saved_bytes: int | None = None
    coldest: dict[str | None, CacheRun] = field(default_factory=dict)

    def add(self, run: CacheRun, counted: bool) -> None:
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
    """Round to a microsecond, the precision that the runner measures with."""
    return None if seconds is None else round(seconds, 6)


def _points(
    times: Sequence[tuple[float, bool]], first: float, now: float, buckets: int
) -> tuple[Point, ...]:
    length = max(now - first, 1.0) / buckets
    jobs, hits = [0] * buckets, [0] * buckets
    for at, hit in times:
        # A job of this moment, or of a clock that is ahead, belongs to the last interval.
        number = min(int((at - first) / length), buckets - 1)
        jobs[number] += 1
        hits[number] += hit
    return tuple(Point(first + n * length, jobs[n], hits[n]) for n in range(buckets))

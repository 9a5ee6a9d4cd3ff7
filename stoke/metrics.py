"""A stand-in with the shapes of the figures; it knows none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stoke.history import CacheSize, History


@dataclass(frozen=True)
class CacheFigures:
    backend: str
    scope: str
    kind: str
    jobs: int
    hits: int
    hit_rate: float | None
    cold_seconds: float | None
    warm_seconds: float | None
    saved_seconds: float | None
    saved_bytes: int | None


@dataclass(frozen=True)
class Point:
    at: float
    jobs: int
    hits: int


@dataclass(frozen=True)
class PackageUse:
    name: str
    kind: str
    uses: int


@dataclass(frozen=True)
class PredictionFigures:
    judged: int
    right: int
    rate: float | None


@dataclass(frozen=True)
class Metrics:
    since: float | None
    figures: tuple[CacheFigures, ...]
    over_time: Mapping[tuple[str, str, str], tuple[Point, ...]]
    sizes: tuple[CacheSize, ...]
    packages: tuple[PackageUse, ...]
    prediction: PredictionFigures


def read_metrics(
    history: History,  # noqa: ARG001
    *,
    since: float | None = None,
    backend: str | None = None,  # noqa: ARG001
    scope: str | None = None,  # noqa: ARG001
    buckets: int = 24,  # noqa: ARG001
) -> Metrics:
    return Metrics(since, (), {}, (), (), PredictionFigures(0, 0, None))

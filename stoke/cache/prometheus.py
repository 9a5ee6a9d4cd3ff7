"""The figures of the caches in Prometheus' text format, for node_exporter's textfile collector.

Names and labels are an interface, because dashboards refer to them. Every metric is a gauge, and no
name ends in `_total`: the figures come from the history, and `stoke rm` makes them fall. An unknown
figure has no sample.

The prometheus_client package would add 140 modules and 60 ms to the command, for the few lines that
write this text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stoke.cache.metrics import Metrics
from stoke.text.sanitize import clean

MOST_PACKAGES = 50
"""Packages that get a series of their own, the most used first."""

Sample = tuple[Mapping[str, str], float | None]


def exposition(metrics: Metrics) -> str:
    """Return the whole text. The samples of a metric follow one another, as the format requires."""
    return "".join(line + "\n" for family in _families(metrics) for line in lines(*family))


def _families(metrics: Metrics) -> Iterator[tuple[str, str, list[Sample]]]:
    """Yield (name, help, samples)."""
    caches = [
        ({"backend": one.backend, "scope": one.scope, "kind": one.kind}, one)
        for one in metrics.figures
    ]
    volumes = [
        (
            {
                "backend": one.backend,
                "node": one.node or "",
                "scope": one.scope,
                "kind": one.kind,
            },
            one,
        )
        for one in metrics.sizes
    ]
    packages: list[Sample] = [
        ({"package": one.name, "kind": one.kind}, one.uses)
        for one in metrics.packages[:MOST_PACKAGES]
    ]
    told = metrics.prediction
    yield (
        "stoke_cache_jobs",
        "Jobs that looked for packages in the cache.",
        [(labels, one.jobs) for labels, one in caches],
    )
    yield (
        "stoke_cache_hits",
        "Jobs that found all of them there, ready to use.",
        [(labels, one.hits) for labels, one in caches],
    )
    yield (
        "stoke_cache_saved_seconds",
        "Seconds not spent, against the measured cold run of the same request.",
        [(labels, one.saved_seconds) for labels, one in caches],
    )
    yield (
        "stoke_cache_saved_bytes",
        "Bytes not received, against the measured cold run of the same request.",
        [(labels, one.saved_bytes) for labels, one in caches],
    )
    yield (
        "stoke_cache_cold_seconds",
        "Median seconds of the phase where it was no hit.",
        [(labels, one.cold_seconds) for labels, one in caches],
    )
    yield (
        "stoke_cache_warm_seconds",
        "Median seconds of the phase where it was a hit.",
        [(labels, one.warm_seconds) for labels, one in caches],
    )
    yield (
        "stoke_cache_size_bytes",
        "What the volume held when it was last measured.",
        [(labels, one.bytes) for labels, one in volumes],
    )
    yield (
        "stoke_cache_environments",
        "Environments it held then.",
        [(labels, one.entries) for labels, one in volumes],
    )
    yield (
        "stoke_cache_measured_timestamp_seconds",
        "When that was.",
        [(labels, one.measured_at) for labels, one in volumes],
    )
    yield "stoke_package_jobs", "Jobs that named the package.", packages
    yield (
        "stoke_predictions",
        "Predictions of hit or no hit that were judged.",
        [({}, told.judged)],
    )
    yield (
        "stoke_predictions_right",
        "Those of them that were right.",
        [({}, told.right)],
    )


def lines(name: str, about: str, samples: Iterable[Sample], kind: str = "gauge") -> Iterator[str]:
    """Yield the lines of one metric, without their ends; none if no value is known."""
    known = [(labels, value) for labels, value in samples if value is not None]
    if not known:
        return
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in known:
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}"


def _escaped(text: str) -> str:
    return clean(text).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

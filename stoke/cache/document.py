"""A cache volume as JSON, as the commands and the HTTP API print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.text.times import rfc3339

if TYPE_CHECKING:
    from stoke.backend.api import Volume
    from stoke.cache.metrics import CacheFigures, Key, Metrics

    Figures = dict[Key, CacheFigures]


def figures_by_cache(metrics: Metrics) -> Figures:
    return {(one.backend, one.scope, one.kind): one for one in metrics.figures}


def volume_document(volume: Volume, figures: Figures) -> dict[str, object]:
    saved = figures.get((volume.backend, volume.scope, volume.kind))
    return {
        "backend": volume.backend,
        "node": volume.node,
        "scope": volume.scope,
        "kind": volume.kind,
        "name": volume.name,
        "bytes": volume.bytes,
        "measured_at": rfc3339(volume.measured_at),
        "entries": volume.entries,
        "hit_rate": saved.hit_rate if saved else None,
        "saved_seconds": saved.saved_seconds if saved else None,
        "saved_bytes": saved.saved_bytes if saved else None,
        "in_use_by": list(volume.in_use_by),
    }

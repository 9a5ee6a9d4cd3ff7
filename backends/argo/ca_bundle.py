"""The CA bundle of jobs in ConfigMaps that they share, instead of a copy in every job.

It stays in the job where the user may not create and change ConfigMaps, and where it is short.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from backends.argo.pack_chunks import Chunk, chunks_of_bytes
from backends.argo.resources import KubernetesResources
from stoke.backend.api import Delivery
from stoke.config.model import ArgoConfig
from stoke.delivery.ca_bundle import take_out

SHARED_FROM = 8 * 1024
"""Bytes after compression: a company's few authorities are shorter, and fit into the workflow."""
MOST_OWNERS = 100
"""Jobs that own one ConfigMap. Each adds some 150 bytes to every response about it, for as long as its
workflow is kept."""
SERIES_SECONDS = 600
"""How long jobs share another copy once the first has that many owners."""


def share_ca_bundle(
    delivery: Delivery, argo: ArgoConfig, resources: KubernetesResources
) -> tuple[Delivery, tuple[Chunk, ...]]:
    """Return the delivery without its CA bundle, and this in chunks; or the delivery as it is."""
    if not delivery.spec.index.ca_bundle or argo.by_template:
        return delivery, ()  # A template has no volume for it.
    payload, text = take_out(delivery.payload)
    chunks = chunks_of_bytes(text)
    if sum(len(chunk.data) for chunk in chunks) < SHARED_FROM:
        return delivery, ()
    placed = _placed(chunks, resources)
    return (replace(delivery, payload=payload), placed) if placed else (delivery, ())


def _placed(chunks: Sequence[Chunk], resources: KubernetesResources) -> tuple[Chunk, ...]:
    """Return the chunks under the names that they are to have; none if the user lacks a right."""
    placed = []
    for chunk in chunks:
        owners = resources.count_owners(chunk.name)
        if owners is None:
            return ()
        series = f"-{int(time.time() // SERIES_SECONDS)}" if owners >= MOST_OWNERS else ""
        placed.append(replace(chunk, series=series))
    return tuple(placed)

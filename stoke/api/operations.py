"""All operations of the server."""

from __future__ import annotations

from stoke.api import caches, logs, results, service, tasks

OPERATIONS = (
    *service.OPERATIONS,
    *tasks.OPERATIONS,
    *logs.OPERATIONS,
    *results.OPERATIONS,
    *caches.OPERATIONS,
)

"""Read the fields of Workflows that the stand-in decides by: identity, mutexes, times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from tests.cluster.api import Object
from tests.cluster.argo_pod import PREFIX

# What a workflow may say beside its reference where it has to have one.
REFERENCING = {
    *("arguments", "entrypoint", "shutdown", "suspend", "activeDeadlineSeconds", "priority"),
    *("ttlStrategy", "podGC", "volumeClaimGC", "archiveLogs", "workflowMetadata"),
    *("workflowTemplateRef", "metrics", "artifactGC"),
}
OVER = ("Succeeded", "Failed", "Error")
Key = tuple[str, str]
"""Namespace, name."""


def synchronization_of(template: Object) -> Object:
    """Where a template asks for a mutex; as its workflow's, of which it is the only pod."""
    return {"synchronization": template["synchronization"]} if "synchronization" in template else {}


def object_key(found: Object) -> Key:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def object_uid(found: Object) -> str:
    return str(found["metadata"]["uid"])


def resource_version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])


def without_empty(status: Any) -> Any:
    """A message that is empty is not there at all, also where there was one."""
    if not isinstance(status, dict):
        return status
    return {
        field: None if field == "message" and not value else without_empty(value)
        for field, value in status.items()
    }


def is_completed(workflow: Object) -> bool:
    labels = workflow["metadata"].get("labels") or {}
    return labels.get(f"{PREFIX}completed") == "true"


def mutexes_of(workflow: Object, which: str) -> list[str]:
    mutex = ((workflow.get("status") or {}).get("synchronization") or {}).get("mutex") or {}
    return [one["mutex"] for one in mutex.get(which) or []]


def held_mutexes(workflow: Object) -> list[str]:
    return mutexes_of(workflow, "holding")


def waiting_mutexes(workflow: Object) -> list[str]:
    return mutexes_of(workflow, "waiting")


def is_older(one: Object, other: Object) -> bool:
    return (one["metadata"]["creationTimestamp"], resource_version(one)) < (
        other["metadata"]["creationTimestamp"],
        resource_version(other),
    )


def duration_seconds(duration: str | None, default: float) -> float:
    """Of "90s", "5m", "1h30m" or "90"."""
    if not duration:
        return default
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)([hms]?)", duration))


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()

"""Names and labels of our containers and volumes.

Labels hold no user text: job ids and scope names have been validated.
"""

from __future__ import annotations

from typing import Any

from backends.common.names import JOB, KIND, MANAGED, NONCE, SCOPE, TYPE, WORKSPACE_NAME

SHARED = "stoke.shared"


def job_labels(job_id: str, scope: str, nonce: str) -> dict[str, str]:
    return {MANAGED: "true", KIND: "job", JOB: job_id, SCOPE: scope, NONCE: nonce}


def housekeeping_labels(scope: str) -> dict[str, str]:
    return {MANAGED: "true", KIND: "housekeeping", SCOPE: scope}


def volume_name(scope: str, kind: str) -> str:
    return f"stoke-{scope}-{kind}"


def volume_labels(scope: str, kind: str) -> dict[str, str]:
    """Return a volume's labels. `stoke.shared` warns that jobs of a scope can change each other's
    packages."""
    return {MANAGED: "true", SCOPE: scope, KIND: kind, SHARED: "true"}


def workspace_volume(name: str) -> str:
    """Return the name of a workspace's volume. No cache volume has it: scopes hold no dot."""
    return f"stoke-workspace.{name}"


def workspace_labels(name: str, scope: str) -> dict[str, str]:
    """Return the labels of a workspace's volume; the scope is that of the job that made it."""
    return {MANAGED: "true", TYPE: "workspace", WORKSPACE_NAME: name, SCOPE: scope}


def has_labels(thing: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether a container's or volume's record has all labels in `wanted`."""
    labels = thing.get("Labels") or {}
    return all(labels.get(name) == value for name, value in wanted.items())

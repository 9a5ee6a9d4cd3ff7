"""What our containers and volumes are called, and the labels they are found by.

Labels never hold text that a person wrote: a job's id and a scope's name have been checked.
"""

from __future__ import annotations

from typing import Any

MANAGED = "stoke.managed"
JOB = "stoke.job"
SCOPE = "stoke.scope"
KIND = "stoke.kind"
NONCE = "stoke.nonce"
SHARED = "stoke.shared"


def job_labels(job_id: str, scope: str, nonce: str) -> dict[str, str]:
    return {MANAGED: "true", KIND: "job", JOB: job_id, SCOPE: scope, NONCE: nonce}


def housekeeping_labels(scope: str) -> dict[str, str]:
    return {MANAGED: "true", KIND: "housekeeping", SCOPE: scope}


def volume_name(scope: str, kind: str) -> str:
    return f"stoke-{scope}-{kind}"


def volume_labels(scope: str, kind: str) -> dict[str, str]:
    """`stoke.shared` says what the scope means: its jobs can change each other's packages."""
    return {MANAGED: "true", SCOPE: scope, KIND: kind, SHARED: "true"}


def has_labels(thing: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether the engine's record of a container or volume carries all of `wanted`."""
    labels = thing.get("Labels") or {}
    return all(labels.get(name) == value for name, value in wanted.items())

"""What our workflows and caches are called, and the labels they are found by.

Labels never hold text that a person wrote: a job's id and a scope's name have been checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MANAGED = "stoke.managed"
JOB = "stoke.job"
SCOPE = "stoke.scope"
KIND = "stoke.kind"
NONCE = "stoke.nonce"
CACHES = "stoke.cache.volumes"
"""The kinds of cache that a job uses, joined by a dot; absent where it uses none."""
REQUEST = "stoke.request"
"""What a job's environment is made for: the beginning of its request's hash."""
READS = "stoke.reads"
"""On a job that only reads its cache, because somebody has filled it with what the job needs."""
WAITS = "stoke.waits"
"""On a workflow whose delivery may not be whole yet: its pod cannot start before it is."""
CARRIES = "stoke.carries"
"""The kind of the object beside a job's workflow that holds its code, "secret" or "configmap"."""
ONCE = "stoke.once"
"""On a job whose code must not start a second time."""
RELEASED = "stoke.released"
"""On a job whose log and end are saved where it was submitted: others need not list it."""
STOPPED = "stoke.stopped"
GAVE_UP = "stoke.gave-up"
"""An annotation: why a job that could not start was ended, and behind a newline how to fix it."""

WORKFLOW = "workflows.argoproj.io/workflow"
PHASE = "workflows.argoproj.io/phase"
COMPLETED = "workflows.argoproj.io/completed"

OURS = f"{MANAGED}=true"
JOBS = f"{OURS},{KIND}=job,!{RELEASED}"
"""The jobs that somebody may still have to look after."""
UNFINISHED_JOBS = f"{JOBS},{COMPLETED}!=true"


def job_labels(
    job_id: str, scope: str, nonce: str, caches: tuple[str, ...], request: str
) -> dict[str, str]:
    labels = {MANAGED: "true", KIND: "job", JOB: job_id, SCOPE: scope, NONCE: nonce}
    return labels | ({CACHES: ".".join(caches), REQUEST: request} if caches else {})


def request_label(whole_hash: str) -> str:
    return whole_hash[:32]


def housekeeping_labels(scope: str) -> dict[str, str]:
    return {MANAGED: "true", KIND: "housekeeping", SCOPE: scope}


def cache_labels(scope: str, kind: str) -> dict[str, str]:
    return {MANAGED: "true", SCOPE: scope, KIND: kind}


def claim_name(scope: str, kind: str) -> str:
    return f"stoke-{scope}-{kind}"


def register_name(scope: str) -> str:
    """The ConfigMap that knows on which nodes a scope has caches."""
    return f"stoke-{scope}-nodes"


def labels_of(thing: Mapping[str, Any]) -> dict[str, str]:
    return thing["metadata"].get("labels") or {}


def has_labels(thing: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    labels = labels_of(thing)
    return all(labels.get(name) == value for name, value in wanted.items())

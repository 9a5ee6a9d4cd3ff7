"""Names and labels of our workflows and caches.

Labels hold no user text: job ids and scope names have been validated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from backends.common.names import JOB, KIND, MANAGED, NONCE, SCOPE, TYPE, WORKSPACE_NAME

CACHES = "stoke.cache.volumes"
"""The kinds of cache that a job uses, joined by a dot; absent if it uses none."""
REQUEST = "stoke.request"
"""The beginning of the job's request hash, which identifies its environment."""
READS_CACHE_ONLY = "stoke.reads"
"""On a job that mounts its cache read-only, because another job has put its environment there."""
AWAITS_BUNDLE = "stoke.waits"
"""On a workflow whose bundle object may not exist yet. Its pod cannot start without it."""
BUNDLE_KIND = "stoke.carries"
"""The kind of the object that holds the job's bundle, "secret" or "configmap"."""
PACK_CHUNK = "stoke.pack"
"""On a ConfigMap with a part of a project's files."""
AT_MOST_ONCE = "stoke.once"
"""On a job whose code must not start a second time."""
RELEASED = "stoke.released"
"""On a job whose log and result are saved on the submitting machine; others need not list it."""
STOPPED = "stoke.stopped"
GAVE_UP = "stoke.gave-up"
"""An annotation: why a job that could not start was stopped, and on the next line the hint."""

WARM_NODES = "stoke.warm-nodes"
"""An annotation: the nodes that had the job's environment when it was submitted."""

WORKFLOW = "workflows.argoproj.io/workflow"
PHASE = "workflows.argoproj.io/phase"
COMPLETED = "workflows.argoproj.io/completed"

SWEEP_KIND = "sweep"
"""The value of `KIND` on a workflow of many tasks."""
TASK = "stoke.task"
"""On the pod of a sweep's task: its number."""
OURS = f"{MANAGED}=true"
JOBS = f"{OURS},{KIND}=job,!{RELEASED}"
"""Jobs whose log or result may not be saved yet."""
UNFINISHED_JOBS = f"{OURS},{KIND} in (job,{SWEEP_KIND}),!{RELEASED},{COMPLETED}!=true"
"""Jobs and sweeps that use the caches of their scope."""


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


CLAIM_PREFIX = "stoke-"


def claim_name(scope: str, kind: str) -> str:
    return f"{CLAIM_PREFIX}{scope}-{kind}"


def workspace_object(name: str) -> str:
    """Return the name of a workspace's claim or ConfigMap, which takes lower-case letters only.

    No cache has it: scopes hold no dot.
    """
    slug = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:40].strip("-")
    mark = "" if slug == name else "." + hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{CLAIM_PREFIX}workspace.{slug}{mark}"


def workspace_labels(name: str, scope: str) -> dict[str, str]:
    """Return the labels of a workspace; the scope is that of the job that made it."""
    return {MANAGED: "true", TYPE: "workspace", WORKSPACE_NAME: name, SCOPE: scope}


def register_name(scope: str) -> str:
    """Return the name of the ConfigMap that lists the nodes with caches of a scope."""
    return f"stoke-{scope}-nodes"


def labels_of(thing: Mapping[str, Any]) -> dict[str, str]:
    return thing.get("metadata", {}).get("labels") or {}


def has_labels(thing: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    labels = labels_of(thing)
    return all(labels.get(name) == value for name, value in wanted.items())

"""Notes on jobs that run on a node without their environment, although another node has it.

Nodes that have it are only preferred, and Kubernetes reports nowhere why it chose another. So the hint
comes from a look at the first of them.
"""

from __future__ import annotations

from typing import Any

from backends.argo.job_locations import JobLocation
from backends.argo.names import REQUEST, WARM_NODES, labels_of
from backends.argo.status import epoch
from backends.common.names import SCOPE
from stoke.errors import EngineError

Object = dict[str, Any]
Note = tuple[str, str | None]


class ColdStarts:
    """The notes of all jobs of a backend."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Note, ...]] = {}

    def notes(
        self, job_id: str, workflow: Object, pod: Object, at: JobLocation
    ) -> tuple[Note, ...]:
        chosen = pod.get("spec", {}).get("nodeName")
        if not chosen:
            return ()
        if job_id not in self._known:
            self._known[job_id] = _notes(workflow, chosen, at)
        return self._known[job_id]

    def forget(self, job_id: str) -> None:
        self._known.pop(job_id, None)


def _notes(workflow: Object, chosen: str, at: JobLocation) -> tuple[Note, ...]:
    metadata, labels = workflow["metadata"], labels_of(workflow)
    nodes = (metadata.get("annotations") or {}).get(WARM_NODES, "").split()
    if not nodes or chosen in nodes:
        return ()
    used = at.volumes.last_use(labels.get(SCOPE, ""), labels.get(REQUEST, ""))
    created = epoch(metadata.get("creationTimestamp"))
    if chosen in used and (created is None or used[chosen] < created):
        return ()  # More nodes have it than are preferred.
    others = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    text = f"the cluster chose {chosen}, and the environment is on {nodes[0]}{others}"
    return ((text, _hint(nodes[0], at)),)


def _hint(node: str, at: JobLocation) -> str:
    try:
        found = at.cluster.request("GET", f"/api/v1/nodes/{node}")
    except EngineError:  # Few users may read nodes.
        found = {}
    conditions = found.get("status", {}).get("conditions") or ()
    if found.get("spec", {}).get("unschedulable"):
        return f"{node} is cordoned: kubectl uncordon {node}"
    if any(one["type"] == "Ready" and one["status"] != "True" for one in conditions):
        return f"{node} is not ready: kubectl describe node {node}"
    return f"see its taints and free resources: kubectl describe node {node}"

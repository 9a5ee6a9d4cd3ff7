"""The tasks of a sweep in the status of its Workflow; pure functions over the API's objects."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from backends.argo.names import COMPLETED, PHASE, labels_of
from backends.argo.shapes import NODES
from backends.argo.status import Object, is_over
from backends.argo.task_names import node_id, number_in, number_of, workflow_of
from stoke.files.shapes import checked
from stoke.files.untrusted import parse_json

MOST_NODES = 64 * 1024**2
"""Bytes of unpacked nodes. Argo packs those of a workflow larger than 1 MiB."""
OVER = ("Succeeded", "Failed", "Error", "Skipped", "Omitted")
PREVENTED = "workflow shutdown with strategy"
_GZIP = 31


def nodes_of(workflow: Object) -> Mapping[str, Any]:
    """Return the nodes of a workflow, also of one whose nodes Argo has packed.

    A cluster that stores them in a database has none here, so nothing is known of its tasks but their
    pods.
    """
    status = workflow.get("status") or {}
    nodes: Mapping[str, Any] = status.get("nodes") or {}
    packed = status.get("compressedNodes")
    if nodes or not packed:
        return nodes
    try:
        unpacked = zlib.decompressobj(_GZIP).decompress(base64.b64decode(packed), MOST_NODES)
        return checked(parse_json(unpacked), NODES)  # type: ignore[no-any-return]
    except (ValueError, zlib.error):
        return {}


def started_tasks(workflow: Object) -> int:
    """Return how many tasks Argo has started. It starts them in their order."""
    sweep_id = workflow["metadata"]["name"]
    numbers = (
        number_in(node.get("name", ""), sweep_id)
        for node in nodes_of(workflow).values()
        if node.get("type") == "Pod" and not _was_prevented(node)
    )
    return max((number for number in numbers if number is not None), default=0)


def _was_prevented(node: Mapping[str, Any]) -> bool:
    """Whether Argo created no pod because the workflow was being stopped: it then makes a failed node
    of each task that is left (workflow/controller/workflowpod.go)."""
    stopped = node.get("message", "").startswith(PREVENTED)
    return node.get("phase") == "Failed" and stopped and not node.get("hostNodeName")


def as_job(workflow: Object, job_id: str, pod: Object | None = None) -> dict[str, Any]:
    """Return a task as the workflow that it would be on its own.

    So the state of a task is found as that of a job is. `workflow` may be reduced to its metadata where
    there is a pod.
    """
    number = number_of(job_id)
    assert number is not None
    node = nodes_of(workflow).get(node_id(workflow_of(job_id), number)) or {}
    if not node and is_over(workflow):
        node = {"phase": "Failed", "message": "the sweep ended before Argo started this task"}
    over = node.get("phase") in OVER
    labels = {**labels_of(workflow), COMPLETED: "true" if over else "false"}
    labels[PHASE] = node.get("phase") or "Running"
    created = node.get("startedAt") or workflow["metadata"].get("creationTimestamp")
    if pod is not None:
        created = pod["metadata"].get("creationTimestamp")
    status = {"phase": labels[PHASE], "nodes": {job_id: node} if node else {}}
    status |= {name: node[name] for name in ("message", "startedAt", "finishedAt") if name in node}
    about = {**workflow["metadata"], "name": job_id, "labels": labels, "creationTimestamp": created}
    return {**workflow, "metadata": about, "status": status}

"""The shape of the API's objects: each field that is read, and its type.

A broken API server, or a proxy before it, may answer anything. Objects are checked where they arrive,
with `stoke.files.shapes`, so no other module has to: a field is absent or has its type.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from stoke.files.shapes import EACH, Shape, is_exit_code, is_time


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and is_time(datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError, OSError):
        return False


_TEXTS = {EACH: str}
_METADATA = {
    "name": str,
    "uid": str,
    "resourceVersion": str,
    "creationTimestamp": _is_time,
    "labels": _TEXTS,
    "annotations": _TEXTS,
    "continue": str,
}
_TERMINATED = {
    "exitCode!": is_exit_code,
    "reason": str,
    "message": str,
    "startedAt": _is_time,
    "finishedAt": _is_time,
}
_CONTAINER_STATUS = {
    "name!": str,
    "image": str,
    "state": {
        "running": {"startedAt": _is_time},
        "waiting": {"reason": str, "message": str},
        "terminated": _TERMINATED,
    },
}
_CONDITION = {
    "type!": str,
    "status": str,  # Argo's condition SpecWarning has none.
    "reason": str,
    "message": str,
    "lastTransitionTime": _is_time,
}
NODES: Shape = {
    EACH: {
        "name": str,
        "type": str,
        "phase": str,
        "message": str,
        "hostNodeName": str,
        "startedAt": _is_time,
        "finishedAt": _is_time,
        "outputs": {"exitCode": str},
    }
}
"""The nodes of a workflow."""
_STATUS = {
    # Of pods and workflows.
    "phase": str,
    "reason": str,
    "message": str,
    "finishedAt": _is_time,
    "conditions": [_CONDITION],
    "initContainerStatuses": [_CONTAINER_STATUS],
    "containerStatuses": [_CONTAINER_STATUS],
    "nodes": NODES,
    "compressedNodes": str,
    # Of the cluster's nodes, and of access reviews.
    "allocatable": _TEXTS,
    "allowed": bool,
}
_SPEC = {
    "nodeName": str,
    "containers": [{"name!": str, "resources": {"limits": _TEXTS}}],
}
OBJECT: dict[str, Any] = {"metadata": _METADATA, "spec": _SPEC, "status": _STATUS, "data": _TEXTS}
"""An object of any kind that is read."""
NAMED: Shape = {**OBJECT, "metadata!": {**_METADATA, "name!": str}}
IDENTIFIED: Shape = {**OBJECT, "metadata!": {**_METADATA, "name!": str, "uid!": str}}
_EVENT = {
    "message": str,
    "reason": str,
    "involvedObject": {"uid": str, "fieldPath": str},
    "lastTimestamp": _is_time,
    "eventTime": _is_time,
}
ANSWER: Shape = {
    **OBJECT,
    "items": [{**OBJECT, **_EVENT, "metadata!": {**_METADATA, "name!": str}}],
    # The cluster's version, its resources, and a Table.
    "gitVersion": str,
    "resources": [{"name!": str}],
    "columnDefinitions": [{"name!": str}],
    "rows": [{"cells!": [], "object": OBJECT}],
}
"""An object, or a list of them, or one of the answers that are neither."""
LIST: Shape = {
    "metadata!": {**_METADATA, "resourceVersion!": str},
    "items": [IDENTIFIED],
}
EVENT: Shape = {"type!": str, "object!": {}}
"""A line of a watch."""
BOOKMARK: Shape = {"metadata!": _METADATA}

"""What the API's objects report: single facts of a pod or a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from backends.argo.names import COMPLETED, PHASE, STOPPED, labels_of

MAIN = "main"
Object = Mapping[str, Any]


def epoch(text: str | None) -> float | None:
    """Return a time of the API, which has whole seconds, as epoch seconds."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def is_over(workflow: Object) -> bool:
    labels = labels_of(workflow)
    return labels.get(COMPLETED) == "true" or labels.get(PHASE) in ("Succeeded", "Failed", "Error")


def was_stopped(workflow: Object) -> bool:
    return STOPPED in labels_of(workflow)


def container(pod: Object) -> Mapping[str, Any] | None:
    """Return the status of the container that runs the job."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((one for one in statuses if one["name"] == MAIN), None)


def terminated(pod: Object) -> Mapping[str, Any] | None:
    status = container(pod)
    ended: Mapping[str, Any] | None = (status or {}).get("state", {}).get("terminated")
    return ended


def has_started(pod: Object) -> bool:
    status = container(pod)
    state = (status or {}).get("state", {})
    return "running" in state or "terminated" in state


def has_ended(pod: Object) -> bool:
    """Whether the pod has ended, with or without having started."""
    return terminated(pod) is not None or pod.get("status", {}).get("phase") in (
        "Failed",
        "Succeeded",
    )


def waiting_containers(pod: Object) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return the waiting containers, each with its waiting state."""
    status = pod.get("status", {})
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = [(one, (one.get("state") or {}).get("waiting")) for one in every]
    return [(one, waiting) for one, waiting in states if waiting]


def one_line(text: object) -> str:
    return " ".join(str(text or "").split())[:500]


def scheduled_at(pod: Object, status: str = "True") -> float | None:
    """Return since when (epoch seconds) the pod has a node; with "False", since when no node accepts
    it."""
    return next(
        (
            epoch(condition.get("lastTransitionTime"))
            for condition in pod.get("status", {}).get("conditions") or ()
            if condition["type"] == "PodScheduled" and condition.get("status") == status
        ),
        None,
    )

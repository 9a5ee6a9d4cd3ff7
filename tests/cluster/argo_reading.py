"""The stand-in's reading of a pod: what it says of the job in it."""

from __future__ import annotations

from tests.cluster.api import Object
from tests.cluster.workflow_fields import timestamp


def pending_reason(pod: Object) -> str:
    """Why it has not begun."""
    status = pod["status"]
    for container in status.get("containerStatuses", []):
        if waiting := container["state"].get("waiting"):
            return _joined(waiting.get("reason", ""), waiting.get("message", ""))
    for condition in status.get("conditions", []):
        if condition.get("reason") == "Unschedulable":
            return _joined("Unschedulable", condition.get("message", ""))
    return ""


def _joined(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason


def outcome(pod: Object) -> tuple[str, str]:
    """Phase and message of the node of a pod that is over."""
    status = pod["status"]
    if status["phase"] == "Succeeded":
        return "Succeeded", ""
    if status.get("message"):
        return "Failed", status["message"]
    order = {"main": 1, "wait": 2}
    containers = sorted(
        status.get("containerStatuses", []), key=lambda one: order.get(one["name"], 3)
    )
    for container in [*status.get("initContainerStatuses", []), *containers]:
        if waiting := container["state"].get("waiting"):
            reason = f"{waiting.get('reason', '')}: {waiting.get('message', '')}"
            return (
                "Error",
                f"Pod failed before {container['name']} container starts due to {reason}",
            )
        ended = container["state"].get("terminated")
        if ended and ended["exitCode"]:
            message = (
                f"{container['name']}: {ended.get('reason', '')} (exit code {ended['exitCode']})"
            )
            if ended.get("message"):
                message += f": {ended['message']}"
            return ("Failed" if container["name"] == "main" else "Error"), message
    return "Failed", "pod failed for unknown reason"


def ended_at(pod: Object) -> str:
    """When the last of its containers ended; "" where none of them says."""
    ends = [
        container["state"]["terminated"].get("finishedAt") or ""
        for container in pod["status"].get("containerStatuses", [])
        if "terminated" in container["state"]
    ]
    return max(ends, default="")


def exit_code(pod: Object) -> int | None:
    """Of the job."""
    for container in pod["status"].get("containerStatuses", []):
        ended = container["state"].get("terminated")
        if container["name"] == "main" and ended:
            return int(ended["exitCode"])
    return None


def end_of(pod: Object) -> Object:
    """The fields of the node of a pod that is over."""
    phase, message = outcome(pod)
    fields: Object = {
        "phase": phase,
        "message": message,
        "finishedAt": ended_at(pod) or timestamp(),
        "progress": "1/1" if pod["status"]["phase"] == "Succeeded" else "0/1",
    }
    code = exit_code(pod)
    return fields if code is None else {**fields, "outputs": {"exitCode": str(code)}}

"""Why a job waits, was not started or has failed, the hint that fixes it, and the cause of its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.argo.bundle import BEGAN, CHANGED, MISSING_SECRETS
from backends.argo.names import AT_MOST_ONCE, CLAIM_PREFIX, GAVE_UP, labels_of
from backends.argo.single_start import EXIT as NOT_STARTED
from backends.argo.single_start import NOT_SURE, STARTED_BEFORE
from backends.argo.status import (
    MAIN,
    Object,
    one_line,
    scheduled_at,
    waiting_containers,
    was_stopped,
)
from stoke.backend.api import Cause

# The containers that Argo adds to a pod.
ARGO_CONTAINERS = frozenset({"init", "wait", "supervisor"})
# The exit code of Argo's emissary if it cannot start the command.
COULD_NOT_START = 64


@dataclass(frozen=True)
class Diagnosis:
    """Why a job waits or failed, if it does, and the hint that fixes it."""

    text: str | None = None
    hint: str | None = None
    cause: Cause | None = None
    """Why the job ended, if that is not the fault of its code."""


NO_DIAGNOSIS = Diagnosis()
RUN_AGAIN = "run it again: stoke rerun"
"""`state_of` appends the job's name."""


NOT_NOTICED = Diagnosis(
    "no Argo controller has processed its workflow",
    "check that a controller runs and watches this namespace: "
    "kubectl get pods -A -l app=workflow-controller",
)


RAN_TWICE = Diagnosis(
    "the code has run twice: the cluster lost its first pod, and Argo started it again in another",
    "if a second run does harm, set argo.at_most_once = true",
)
SECOND_RUN_PREVENTED = Diagnosis(
    "the cluster lost the job's pod, and argo.at_most_once kept the code from running a second time",
    RUN_AGAIN,
    Cause.POD_DELETED,
)


def why_given_up(workflow: Object) -> Diagnosis | None:
    """Return the reason with which a client stopped a job that could not start, if one did."""
    noted = (workflow["metadata"].get("annotations") or {}).get(GAVE_UP)
    if noted is None:
        return None
    text, _, hint = noted.partition("\n")
    pulls = text.startswith(CANNOT_PULL) and not any(reason in text for reason in _NEVER_PULLED)
    return Diagnosis(text, hint or None, Cause.IMAGE_PULL if pulls else None)


def why_silent(pod: Object) -> Diagnosis:
    """Diagnose a node that the cluster has lost contact with.

    In that case the pod is not ready although all of its containers were ready when last reported.
    """
    conditions = pod.get("status", {}).get("conditions") or ()
    status = {one["type"]: one.get("status") for one in conditions}
    if (status.get("Ready"), status.get("ContainersReady")) != ("False", "True"):
        return NO_DIAGNOSIS
    node = pod.get("spec", {}).get("nodeName", "?")
    if pod["metadata"].get("deletionTimestamp"):
        comes = "the cluster has given the job up; it ends when the node is back or is removed"
        hint = f"{comes}: kubectl delete node {node}"
    else:
        comes = "it may come back; if not, the cluster gives the job up after some minutes"
        hint = f"{comes}; check the node: kubectl describe node {node}"
    return Diagnosis(f"the cluster has lost contact with its node {node}", hint)


_NO_IMAGE = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"),
    "InvalidImageName",
)
_NEVER_PULLED = ("InvalidImageName", "ErrImageNeverPull", "not found", "denied", "unauthorized")
CANNOT_PULL = "the node cannot pull the image"
# Taints that the cluster sets itself: node not ready, unreachable, or short of a resource.
_NODE_TROUBLE = "node.kubernetes.io/"
_NO_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def gives_up_at(
    pod: Object, start_timeout: float, node_timeout: float | None = None
) -> float | None:
    """Return the time (epoch seconds) after which a pod that cannot start is given up, or None.

    A pod without a node may start later (another job ends, a node is added), so it is given up only
    after `node_timeout` seconds, if that is set. A pod that fails to start on its node reserves
    resources there, so it is given up after `start_timeout`, and at once if its image has no valid
    name.
    """
    scheduled = scheduled_at(pod)
    if scheduled is None and node_timeout is not None:
        refused = scheduled_at(pod, "False")
        return None if refused is None else refused + node_timeout
    reasons = {waiting.get("reason") for _, waiting in waiting_containers(pod)}
    if scheduled is None or reasons.isdisjoint((*_NO_IMAGE, *_NO_CONTAINER)):
        return None
    return scheduled if "InvalidImageName" in reasons else scheduled + start_timeout


def why_waiting(pod: Object) -> Diagnosis:
    """Diagnose what keeps a pod from starting, if anything does."""
    status = pod.get("status", {})
    for one, waiting in waiting_containers(pod):
        why = waiting.get("reason", "")
        said = one_line(waiting.get("message"))
        if why in _NO_IMAGE:
            return _no_image(one, f"{why}: {said}" if said else why)
        if why in _NO_CONTAINER:
            hint = None
            if "secret" in said:
                hint = (
                    "create the secret, or refer to an existing one: --secret NAME=secret:NAME/KEY"
                )
            elif "subPath" in said:
                hint = (
                    "a job of this scope has replaced a folder that all jobs of the scope mount; stop "
                    "its jobs and make the cache anew: stoke cache clear -b argo --scope SCOPE"
                )
            elif "runAsNonRoot" in said:
                hint = "this cluster forbids root: set argo.restricted = true"
            name = one.get("name", MAIN)
            return Diagnosis(f"the container {name} cannot be created: {said or why}", hint)
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("status") == "False":
            said = one_line(condition.get("message")) or condition.get("reason", "")
            # Drops the scheduler's report that preemption does not help.
            said = said.partition(" preemption: ")[0]
            return Diagnosis(f"no node accepts it: {said}", _hint_unschedulable(said))
    return NO_DIAGNOSIS


def _no_image(container: Mapping[str, Any], why: str) -> Diagnosis:
    name, image = container.get("name", MAIN), container.get("image", "?")
    if name in ARGO_CONTAINERS:
        return Diagnosis(
            f"{CANNOT_PULL} {image} of Argo's own container {name}: {why}",
            "Argo's configuration chooses that image, not the job: ask Argo's administrator to make it "
            "available to the nodes, or to name a copy of it (executor.image)",
        )
    return Diagnosis(
        f"{CANNOT_PULL} {image}: {why}",
        "name one that the cluster can pull: --image IMAGE; for a private registry set "
        "argo.image_pull_secrets",
    )


def _hint_unschedulable(said: str) -> str | None:
    if "Insufficient" in said:
        return "ask for less: --cpu, --memory; or wait for free resources"
    if claim := re.search(r'persistentvolumeclaim "([^"]*)" not found', said):
        if claim[1].startswith(CLAIM_PREFIX):
            return "create the claims: stoke setup argo --apply"
        return "create that claim, or name one that exists: kubectl get pvc"
    taints = re.findall(r"taint\S* \{([^:=}]*)", said)
    if any(not one.startswith(_NODE_TROUBLE) for one in taints):
        return "tolerate the nodes' taints: set argo.tolerations"
    if taints or "were unschedulable" in said:
        return "check which nodes are not ready or cordoned: kubectl get nodes"
    if "affinity" in said or "selector" in said:
        return "compare argo.node_selector with the nodes' labels: kubectl get nodes --show-labels"
    return None


def why_not_started(workflow: Object, ended: Object) -> Diagnosis | None:
    """Return why `argo.at_most_once` ended the pod before the runner began, if it did.

    The job's code can write a termination message too, so it counts only for a job with that
    setting.
    """
    said = one_line(ended.get("message"))
    if AT_MOST_ONCE not in labels_of(workflow) or ended["exitCode"] != NOT_STARTED:
        return None
    if said.startswith(STARTED_BEFORE.strip()):
        return SECOND_RUN_PREVENTED
    if said.startswith(NOT_SURE.strip()):
        return Diagnosis(
            f"not started because of argo.at_most_once: {said.removeprefix(NOT_SURE)}",
            "let the service account create and patch task results and reach the API server: "
            "stoke setup argo --apply; or set argo.at_most_once = false",
        )
    return None


def is_incomplete(ended: Mapping[str, Any]) -> bool:
    """Whether the container ended before the runner began, because it lacked a secret or got a changed
    ConfigMap."""
    return str(ended.get("message") or "").startswith((MISSING_SECRETS, CHANGED))


def _more_memory(pod: Object) -> str:
    """Return a hint to double the memory limit. Without a limit, the node ran out of memory."""
    containers = pod.get("spec", {}).get("containers", ())
    main: Object = next((one for one in containers if one["name"] == MAIN), {})
    limit = main.get("resources", {}).get("limits", {}).get("memory", "")
    found = re.fullmatch(r"(\d+)([KMG]i)?", limit)
    if found is None:
        return "request the memory that it needs: --memory SIZE"
    size = int(found[1]) * 1024 ** ("KMG".index(found[2][0]) + 1 if found[2] else 0)
    return f"raise the limit: --memory {-(-2 * size // 1024**2)}m"


def why_ended(workflow: Object, pod: Object, ended: Mapping[str, Any]) -> Diagnosis:
    code, why = ended["exitCode"], ended.get("reason", "")
    said = one_line(ended.get("message")).removeprefix(BEGAN)
    if code == 0 or was_stopped(workflow):
        return NO_DIAGNOSIS
    if why == "OOMKilled":
        return Diagnosis("out of memory", _more_memory(pod))
    if pod.get("status", {}).get("reason"):
        return why_pod_failed(pod)
    not_once = why_not_started(workflow, ended)
    if not_once is not None:
        return not_once
    if is_incomplete(ended) and said.startswith(CHANGED):
        name = said.removeprefix(CHANGED)
        return Diagnosis(
            f"its ConfigMap {name} was changed by another program",
            f"delete it: kubectl delete configmap {name}; then {RUN_AGAIN}",
        )
    if is_incomplete(ended):
        names = said.removeprefix(MISSING_SECRETS)
        return Diagnosis(
            f"its WorkflowTemplate provides no secret for {names}",
            "update the template with the same argo.template_secrets: stoke setup argo",
        )
    if code == COULD_NOT_START and "python3" in said:
        return Diagnosis(
            "the image has no python3", "name one with Python 3.9 or later: --image IMAGE"
        )
    if code == COULD_NOT_START and said:
        return Diagnosis(f"Argo could not start it: {said}")
    if why == "ContainerStatusUnknown":
        return Diagnosis("the node was lost while it ran", RUN_AGAIN, Cause.NODE_LOST)
    return _why_deleted(pod)


# The reasons of the pod condition DisruptionTarget.
_DISRUPTIONS = {
    "PreemptionByScheduler": ("a pod of higher priority took its place", Cause.PREEMPTED),
    "DeletionByTaintManager": (
        "its node was lost, or got a taint that it does not tolerate",
        Cause.NODE_LOST,
    ),
    "EvictionByEvictionAPI": ("its node is being drained", Cause.EVICTED),
    "DeletionByPodGC": ("its node was deleted", Cause.NODE_LOST),
    "TerminationByKubelet": ("its node is short of resources or shuts down", Cause.EVICTED),
}


# Resources that a node lacks, by the kubelet's message.
_EVICTIONS = (
    ("memory", "request the memory that it needs: --memory"),
    (
        "storage|disk|inodes|emptydir",
        "free disk space there: stoke cache ls, then stoke cache prune",
    ),
)


def _why_deleted(pod: Object) -> Diagnosis:
    """Diagnose why a pod was deleted other than by stoke."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition.get("status") == "True":
            reason = condition.get("reason", "")
            why, cause = _DISRUPTIONS.get(reason, (reason, Cause.EVICTED))
            return Diagnosis(f"evicted: {why}", RUN_AGAIN, cause)
    if pod["metadata"].get("deletionTimestamp"):
        return Diagnosis("its pod was deleted while it ran", RUN_AGAIN, Cause.POD_DELETED)
    return NO_DIAGNOSIS


def why_pod_failed(pod: Object) -> Diagnosis:
    status = pod.get("status", {})
    why, said = status.get("reason", ""), one_line(status.get("message"))
    if why == "Evicted":
        hints = (hint for what, hint in _EVICTIONS if re.search(what, said, re.IGNORECASE))
        # A pod beyond its own limits is evicted too: "Usage of EmptyDir volume ... exceeds the limit".
        cause = None if "limit" in said else Cause.EVICTED
        return Diagnosis(f"evicted by its node: {said}", next(hints, RUN_AGAIN), cause)
    if why == "DeadlineExceeded":
        return Diagnosis("the pod's deadline passed", "raise the limit: --timeout")
    if why in ("NodeLost", "NodeShutdown", "Terminated", "Preempting", "Shutdown"):
        cause = Cause.PREEMPTED if why == "Preempting" else Cause.NODE_LOST
        return Diagnosis(f"the node was lost while it ran ({why}): {said}", RUN_AGAIN, cause)
    if why or said:
        return Diagnosis(": ".join(part for part in (why, said) if part))
    for one in status.get("initContainerStatuses") or ():
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return Diagnosis(
                f"Argo's container {one['name']} failed: "
                f"{one_line(ended.get('message')) or ended.get('reason', '')}",
                f"see its log: kubectl logs {pod['metadata']['name']} -c {one['name']}",
            )
    return NO_DIAGNOSIS

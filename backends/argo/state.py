"""The state of a job, derived from its pod and workflow; pure functions over the API's objects.

The container's status comes first: Argo writes the workflow's phase about six seconds later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from backends.argo.bundle import MISSING_SECRETS
from backends.argo.names import (
    AT_MOST_ONCE,
    AWAITS_BUNDLE,
    COMPLETED,
    GAVE_UP,
    PHASE,
    STOPPED,
    labels_of,
)
from backends.argo.single_start import EXIT as NOT_STARTED
from backends.argo.single_start import NOT_SURE, STARTED_BEFORE
from stoke.backend.api import EngineState, EngineStatus

MAIN = "main"
# The containers that Argo adds to a pod.
ARGO_CONTAINERS = frozenset({"init", "wait", "supervisor"})
Object = Mapping[str, Any]
Phases = tuple[tuple[str, float, float | None], ...]
# The exit code of Argo's emissary if it cannot start the command.
COULD_NOT_START = 64
# Argo's controller was measured to take 0.1 s.
NOTICE_SECONDS = 15.0


@dataclass(frozen=True)
class Diagnosis:
    """Why a job waits or failed, if it does, and the hint that fixes it."""

    text: str | None = None
    hint: str | None = None


NO_DIAGNOSIS = Diagnosis()
_AGAIN = "run it again: stoke rerun"
"""`state_of` appends the job's name."""


def epoch(text: str | None) -> float | None:
    """Return a time of the API, which has whole seconds, as epoch seconds."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def state_of(workflow: Object, pod: Object | None, phases: Phases = ()) -> EngineState:
    """Return a job's state. With a pod, `workflow` may be reduced to its metadata."""
    state = _state_of(workflow, pod, phases)
    if state.hint is None or not state.hint.endswith(_AGAIN):
        return state
    return replace(state, hint=f"{state.hint} {workflow['metadata']['name']}")


def _state_of(workflow: Object, pod: Object | None, phases: Phases) -> EngineState:
    if pod is None or not has_started(pod):
        gave_up = why_given_up(workflow)
        if gave_up is not None:
            return EngineState(
                EngineStatus.EXITED, None, gave_up.text, hint=gave_up.hint, phases=phases
            )
        if AWAITS_BUNDLE in labels_of(workflow):
            return EngineState(EngineStatus.CREATED)
    if pod is not None:
        return _state_of_pod(workflow, pod, phases)
    if is_over(workflow):
        return _state_without_pod(workflow, phases)
    waits = why_no_pod(workflow)
    return EngineState(EngineStatus.RUNNING, reason=waits.text, hint=waits.hint, phases=phases)


def unnoticed_at(workflow: Object) -> float | None:
    """Return the time (epoch seconds) from which a workflow counts as ignored by every controller.

    None if a controller has seen it: the controller labels each workflow with a phase at once, also
    one that has to wait.
    """
    created = epoch(workflow["metadata"].get("creationTimestamp"))
    if PHASE in labels_of(workflow) or created is None:
        return None
    return created + NOTICE_SECONDS


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
    _AGAIN,
)


def is_over(workflow: Object) -> bool:
    labels = labels_of(workflow)
    return labels.get(COMPLETED) == "true" or labels.get(PHASE) in ("Succeeded", "Failed", "Error")


def was_stopped(workflow: Object) -> bool:
    return STOPPED in labels_of(workflow)


def why_given_up(workflow: Object) -> Diagnosis | None:
    """Return the reason with which a client stopped a job that could not start, if one did."""
    noted = (workflow["metadata"].get("annotations") or {}).get(GAVE_UP)
    if noted is None:
        return None
    text, _, hint = noted.partition("\n")
    return Diagnosis(text, hint or None)


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


def _state_of_pod(workflow: Object, pod: Object, phases: Phases) -> EngineState:
    ended = terminated(pod)
    status = pod.get("status", {})
    if ended is not None:
        reason = _why_ended(workflow, pod, ended)
        return EngineState(
            EngineStatus.EXITED,
            None
            if _lacks_secret(ended) or _why_not_started(workflow, ended)
            else ended["exitCode"],
            reason.text,
            epoch(ended.get("startedAt")),
            epoch(ended.get("finishedAt")),
            reason.hint,
            phases,
        )
    if status.get("phase") in ("Failed", "Succeeded"):
        reason = NO_DIAGNOSIS if was_stopped(workflow) else _why_pod_failed(pod)
        return EngineState(EngineStatus.EXITED, None, reason.text, hint=reason.hint, phases=phases)
    if has_started(pod):
        started = epoch((container(pod) or {})["state"]["running"].get("startedAt"))
        lost = _why_silent(pod)
        return EngineState(EngineStatus.RUNNING, None, lost.text, started, None, lost.hint, phases)
    waits = why_waiting(pod)
    return EngineState(EngineStatus.RUNNING, reason=waits.text, hint=waits.hint, phases=phases)


def _why_silent(pod: Object) -> Diagnosis:
    """Diagnose a node that the cluster has lost contact with.

    In that case the pod is not ready although all of its containers were ready when last reported.
    """
    conditions = pod.get("status", {}).get("conditions") or ()
    status = {one["type"]: one["status"] for one in conditions}
    if (status.get("Ready"), status.get("ContainersReady")) != ("False", "True"):
        return NO_DIAGNOSIS
    node = pod["spec"].get("nodeName", "?")
    if pod["metadata"].get("deletionTimestamp"):
        comes = "the cluster has given the job up; it ends when the node is back or is removed"
        hint = f"{comes}: kubectl delete node {node}"
    else:
        comes = "it may come back; if not, the cluster gives the job up after some minutes"
        hint = f"{comes}; check the node: kubectl describe node {node}"
    return Diagnosis(f"the cluster has lost contact with its node {node}", hint)


def _state_without_pod(workflow: Object, phases: Phases) -> EngineState:
    """Return the state of a job whose pod was never created or was deleted, from Argo's notes."""
    status = workflow.get("status") or {}
    finished = epoch(status.get("finishedAt"))
    code = None
    for node in (status.get("nodes") or {}).values():
        noted = (node.get("outputs") or {}).get("exitCode")
        if noted is not None and str(noted).isdecimal():
            code = int(noted)
    phase = status.get("phase") or labels_of(workflow).get(PHASE)
    reason = NO_DIAGNOSIS
    if phase == "Succeeded":
        code = 0
    else:
        code = code or None
        if not was_stopped(workflow):
            reason = why_no_pod(workflow)
            if reason.text is None:
                reason = Diagnosis(f"the workflow ended as {phase}, and its pod was deleted")
    # A workflow whose pod never had a node has printed nothing.
    nodes = (status.get("nodes") or {}).values()
    log_gone = phase == "Succeeded" or any(node.get("hostNodeName") for node in nodes)
    return EngineState(
        EngineStatus.EXITED,
        code,
        reason.text,
        None,
        finished,
        reason.hint,
        phases,
        log_gone=log_gone,
    )


# ---------------------------------------------------------------------------- reasons

_NO_IMAGE = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"),
    "InvalidImageName",
)
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
    scheduled = _scheduled(pod)
    if scheduled is None and node_timeout is not None:
        refused = _scheduled(pod, "False")
        return None if refused is None else refused + node_timeout
    reasons = {waiting.get("reason") for _, waiting in _waiting(pod)}
    if scheduled is None or reasons.isdisjoint((*_NO_IMAGE, *_NO_CONTAINER)):
        return None
    return scheduled if "InvalidImageName" in reasons else scheduled + start_timeout


def _waiting(pod: Object) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return the waiting containers, each with its waiting state."""
    status = pod.get("status", {})
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = [(one, (one.get("state") or {}).get("waiting")) for one in every]
    return [(one, waiting) for one, waiting in states if waiting]


def why_waiting(pod: Object) -> Diagnosis:
    """Diagnose what keeps a pod from starting, if anything does."""
    status = pod.get("status", {})
    for one, waiting in _waiting(pod):
        why = waiting.get("reason", "")
        said = _one_line(waiting.get("message"))
        if why in _NO_IMAGE:
            return _no_image(one, f"{why}: {said}" if said else why)
        if why in _NO_CONTAINER:
            hint = None
            if "secret" in said:
                hint = (
                    "create the secret, or refer to an existing one: --secret NAME=secret:NAME/KEY"
                )
            elif "runAsNonRoot" in said:
                hint = "this cluster forbids root: set argo.restricted = true"
            name = one.get("name", MAIN)
            return Diagnosis(f"the container {name} cannot be created: {said or why}", hint)
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = _one_line(condition.get("message")) or condition.get("reason", "")
            # Drops the scheduler's report that preemption does not help.
            said = said.partition(" preemption: ")[0]
            return Diagnosis(f"no node accepts it: {said}", _hint_unschedulable(said))
    return NO_DIAGNOSIS


def _no_image(container: Mapping[str, Any], why: str) -> Diagnosis:
    name, image = container.get("name", MAIN), container.get("image", "?")
    if name in ARGO_CONTAINERS:
        return Diagnosis(
            f"the node cannot pull the image {image} of Argo's own container {name}: {why}",
            "Argo's configuration chooses that image, not the job: ask Argo's administrator to make it "
            "available to the nodes, or to name a copy of it (executor.image)",
        )
    return Diagnosis(
        f"the node cannot pull the image {image}: {why}",
        "name one that the cluster can pull: --image IMAGE; for a private registry set "
        "argo.image_pull_secrets",
    )


def _hint_unschedulable(said: str) -> str | None:
    if "Insufficient" in said:
        return "ask for less: --cpu, --memory; or wait for free resources"
    if "persistentvolumeclaim" in said:
        return "create the claims: stoke setup argo --apply"
    taints = re.findall(r"taint\S* \{([^:=}]*)", said)
    if any(not one.startswith(_NODE_TROUBLE) for one in taints):
        return "tolerate the nodes' taints: set argo.tolerations"
    if taints or "were unschedulable" in said:
        return "check which nodes are not ready or cordoned: kubectl get nodes"
    if "affinity" in said or "selector" in said:
        return "compare argo.node_selector with the nodes' labels: kubectl get nodes --show-labels"
    return None


def _why_not_started(workflow: Object, ended: Object) -> Diagnosis | None:
    """Return why `argo.at_most_once` ended the pod before the runner began, if it did.

    The job's code can write a termination message too, so it counts only for a job with that
    setting.
    """
    said = _one_line(ended.get("message"))
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


def _lacks_secret(ended: Mapping[str, Any]) -> bool:
    """Whether the container ended before the runner began because the cluster did not give it a
    secret."""
    return str(ended.get("message") or "").startswith(MISSING_SECRETS)


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


def _why_ended(workflow: Object, pod: Object, ended: Mapping[str, Any]) -> Diagnosis:
    code, why = ended["exitCode"], ended.get("reason", "")
    said = _one_line(ended.get("message"))
    if code == 0 or was_stopped(workflow):
        return NO_DIAGNOSIS
    if why == "OOMKilled":
        return Diagnosis("out of memory", _more_memory(pod))
    if pod.get("status", {}).get("reason"):
        return _why_pod_failed(pod)
    not_once = _why_not_started(workflow, ended)
    if not_once is not None:
        return not_once
    if _lacks_secret(ended):
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
        return Diagnosis("the node was lost while it ran", _AGAIN)
    return _why_deleted(pod)


# The reasons of the pod condition DisruptionTarget.
_DISRUPTIONS = {
    "PreemptionByScheduler": "a pod of higher priority took its place",
    "DeletionByTaintManager": "its node was lost, or got a taint that it does not tolerate",
    "EvictionByEvictionAPI": "its node is being drained",
    "DeletionByPodGC": "its node was deleted",
    "TerminationByKubelet": "its node is short of resources or shuts down",
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
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            why = _DISRUPTIONS.get(condition.get("reason", ""), condition.get("reason", ""))
            return Diagnosis(f"evicted: {why}", _AGAIN)
    if pod["metadata"].get("deletionTimestamp"):
        return Diagnosis("its pod was deleted while it ran", _AGAIN)
    return NO_DIAGNOSIS


def _why_pod_failed(pod: Object) -> Diagnosis:
    status = pod.get("status", {})
    why, said = status.get("reason", ""), _one_line(status.get("message"))
    if why == "Evicted":
        hints = (hint for what, hint in _EVICTIONS if re.search(what, said, re.IGNORECASE))
        return Diagnosis(f"evicted by its node: {said}", next(hints, _AGAIN))
    if why == "DeadlineExceeded":
        return Diagnosis("the pod's deadline passed", "raise the limit: --timeout")
    if why in ("NodeLost", "NodeShutdown", "Terminated", "Preempting", "Shutdown"):
        return Diagnosis(f"the node was lost while it ran ({why}): {said}", _AGAIN)
    if why or said:
        return Diagnosis(": ".join(part for part in (why, said) if part))
    for one in status.get("initContainerStatuses") or ():
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return Diagnosis(
                f"Argo's container {one['name']} failed: "
                f"{_one_line(ended.get('message')) or ended.get('reason', '')}",
                f"see its log: kubectl logs {pod['metadata']['name']} -c {one['name']}",
            )
    return NO_DIAGNOSIS


_LIMIT_RANGE = re.compile(
    r"(?P<end>maximum|minimum) (?P<what>\S+) usage per \w+ is (?P<most>[\w.]+)"
    r"(?:, but \w+ is|\. +No)"
)
_OPTIONS = {"cpu": "--cpu", "memory": "--memory"}
_ARGO_RESOURCES_HINT = (
    "Argo's own containers need resources: ask Argo's administrator to set executor.resources in its "
    "configuration, or make a LimitRange with defaults in this namespace"
)


def _hint_limit_range(text: str) -> str | None:
    """Return a hint for a LimitRange that forbids what a container asks for."""
    found = _LIMIT_RANGE.search(text)
    if found is None or found["what"] not in _OPTIONS:
        return None
    option, most = _OPTIONS[found["what"]], found["most"]
    if ". " in found[0]:
        return f"set {option}; if that is set already, {_ARGO_RESOURCES_HINT}"
    if found["end"] == "maximum":
        return f"ask for at most {most}: {option}"
    return f"ask for at least {most}: {option}"


def _hint_unspecified(text: str) -> str | None:
    """Return a hint for a quota that requires resources, and names the containers that set none."""
    if not re.search(r"must specify (limits|requests)", text):
        return None
    lists = re.findall(r"(?:limits|requests)\.\w+(?: for: ([\w,.-]+))?", text)
    names = {name for one in lists for name in one.strip(",.").split(",") if name}
    job = "set the job's resources: --cpu 1 --memory 1g"
    if names.isdisjoint(ARGO_CONTAINERS):
        return job
    return f"{job}; and {_ARGO_RESOURCES_HINT}" if MAIN in names else _ARGO_RESOURCES_HINT


_BY_MESSAGE = (
    (r"exceeded quota", "wait for other jobs to end, or ask for less: --cpu, --memory"),
    (
        r"violates PodSecurity.*hostPath",
        "hostPath volumes are forbidden: set argo.cache to claim or none",
    ),
    (r"violates PodSecurity", "this namespace forbids root: set argo.restricted = true"),
    (
        r"serviceaccount .* not found",
        "create it: stoke setup argo --apply; or name another: argo.service_account",
    ),
    (r"persistentvolumeclaim .* not found", "create it: stoke setup argo --apply"),
    (
        r"workflowtaskresults",
        "grant the service account the right that Argo's containers need: "
        "stoke setup argo --apply",
    ),
    (r"pod deleted", f"its pod was deleted; {_AGAIN}"),
    (
        r"must use workflowTemplateRef",
        "this cluster runs only workflows that refer to a template: set argo.by_template = true, then "
        "create the templates: stoke setup argo --apply",
    ),
    (
        r"workflowtemplates.* not found|no template named|template .* (not found|undefined)",
        "create the templates of this scope: stoke setup argo --scope SCOPE --apply",
    ),
    (r"admission webhook", "a policy of the cluster forbids it; ask its administrator"),
)  # fmt: skip


def why_no_pod(workflow: Object) -> Diagnosis:
    """Diagnose why a workflow has no pod, from Argo's messages, which contain the cluster's
    refusals."""
    status = workflow.get("status") or {}
    said = [status.get("message"), *(
        node.get("message") for node in (status.get("nodes") or {}).values()
    )]  # fmt: skip
    text = next((_one_line(one) for one in said if one), "")
    return diagnose(text) if text else NO_DIAGNOSIS


def diagnose(text: str) -> Diagnosis:
    """Return a message of the cluster with the hint that fixes it, if one is known."""
    own = _hint_limit_range(text) or _hint_unspecified(text)
    if own is not None:
        return Diagnosis(text, own)
    for pattern, hint in _BY_MESSAGE:
        if re.search(pattern, text, re.IGNORECASE):
            return Diagnosis(text, hint)
    return Diagnosis(text)


def _one_line(text: object) -> str:
    return " ".join(str(text or "").split())[:500]


# ---------------------------------------------------------------------------- timeline

_GO_DURATION = re.compile(r" in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(ms|s))")


class StartTimeline:
    """The times at which a job reached each step on its way to its container.

    The API has whole seconds. The time of a change that was observed live is more precise.
    """

    def __init__(self, submitted: float | None = None) -> None:
        self._submitted = submitted
        self._at: dict[str, float] = {}
        self._unseen: set[str] = set()
        self._pull: tuple[float, float] | None = None

    def record(self, pod: Object | None, now: float) -> None:
        """Record the pod's current state; `pod` is None before it exists."""
        for name, at in _boundaries(pod).items():
            if at is None:
                self._unseen.add(name)
            elif name not in self._at:
                self._at[name] = now if name in self._unseen else at

    def record_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take the duration of the image pull from the pod's events, the only place that has it."""
        for event in events:
            took = _GO_DURATION.search(event.get("message", ""))
            of_main = "{main}" in (event.get("involvedObject") or {}).get("fieldPath", "")
            if event.get("reason") != "Pulled" or not of_main or not took:
                continue
            hours, minutes, seconds, unit = took.groups()
            scale = 0.001 if unit == "ms" else 1
            length = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds) * scale
            ended = epoch(event.get("lastTimestamp") or event.get("eventTime"))
            if ended is not None:
                self._pull = (ended - length, length)

    def phases(self, created: float | None) -> Phases:
        """Return the phases. `created` is the workflow's creation time, for a job submitted
        elsewhere."""
        at = self._at
        began = self._submitted or created
        if began is None:
            return ()
        found: list[tuple[str, float, float | None]] = []
        for name, until in (("queue", "pod"), ("schedule", "scheduled"), ("start", "started")):
            if name == "start" and self._pull is not None:
                start, length = self._pull
                found.append(("pull", max(start, began), length))
                began = max(began, start + length)
            end = at.get(until)
            found.append((name, began, None if end is None else max(0.0, end - began)))
            if end is None:
                break
            began = max(began, end)
        return tuple(found)


def _boundaries(pod: Object | None) -> dict[str, float | None]:
    if pod is None:
        return {"pod": None, "scheduled": None, "started": None}
    state = (container(pod) or {}).get("state", {})
    main = state.get("running") or state.get("terminated") or {}
    return {
        "pod": epoch(pod["metadata"].get("creationTimestamp")),
        "scheduled": _scheduled(pod),
        "started": epoch(main.get("startedAt")),
    }


def _scheduled(pod: Object, status: str = "True") -> float | None:
    """Return since when (epoch seconds) the pod has a node; with "False", since when no node accepts
    it."""
    return next(
        (
            epoch(condition.get("lastTransitionTime"))
            for condition in pod.get("status", {}).get("conditions") or ()
            if condition["type"] == "PodScheduled" and condition["status"] == status
        ),
        None,
    )

"""How a job stands, told from its pod and its workflow; pure functions over the API's objects.

The container's status is the early truth: Argo writes the workflow's phase some six seconds later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from backends.argo.bundle import NOT_GIVEN
from backends.argo.names import COMPLETED, GAVE_UP, ONCE, PHASE, STOPPED, WAITS, labels_of
from backends.argo.single_start import EXIT as NOT_STARTED
from backends.argo.single_start import NOT_SURE, STARTED_BEFORE
from stoke.backend.api import EngineState

MAIN = "main"
# What Argo puts beside a job's container.
ARGOS_OWN = frozenset({"init", "wait", "supervisor"})
Object = Mapping[str, Any]
Phases = tuple[tuple[str, float, float | None], ...]
# The emissary ends so when it could not start the command.
COULD_NOT_START = 64
# Argo's controller was measured to need 0.1 s.
NOTICE_SECONDS = 15.0


@dataclass(frozen=True)
class Reason:
    """Why a job waits or came to nothing, if it does, and how to fix it."""

    text: str | None = None
    hint: str | None = None


NOTHING = Reason()
_AGAIN = "run it again: stoke rerun"
"""`state_of` adds the name of the job."""


def epoch(text: str | None) -> float | None:
    """A time of the API's as epoch seconds. It has whole seconds only."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def state_of(workflow: Object, pod: Object | None, phases: Phases = ()) -> EngineState:
    """`workflow` may be its metadata alone while there is a pod."""
    state = _state_of(workflow, pod, phases)
    if state.hint is None or not state.hint.endswith(_AGAIN):
        return state
    return replace(state, hint=f"{state.hint} {workflow['metadata']['name']}")


def _state_of(workflow: Object, pod: Object | None, phases: Phases) -> EngineState:
    if pod is None or not has_started(pod):
        gave_up = why_given_up(workflow)
        if gave_up is not None:
            return EngineState("exited", None, gave_up.text, hint=gave_up.hint, phases=phases)
        if WAITS in labels_of(workflow):
            return EngineState("created")
    if pod is not None:
        return _state_of_pod(workflow, pod, phases)
    if is_over(workflow):
        return _state_without_pod(workflow, phases)
    waits = why_no_pod(workflow)
    return EngineState("running", reason=waits.text, hint=waits.hint, phases=phases)


def overlooked_at(workflow: Object) -> float | None:
    """When (epoch seconds) it is time to say that no controller has taken notice of a workflow; None
    where one has: it gives a phase at once, also to one that has to wait."""
    created = epoch(workflow["metadata"].get("creationTimestamp"))
    if PHASE in labels_of(workflow) or created is None:
        return None
    return created + NOTICE_SECONDS


OVERLOOKED = Reason(
    "no Argo controller has taken notice of it",
    "is one running, and does it look at this namespace? "
    "kubectl get pods -A -l app=workflow-controller",
)


RAN_TWICE = Reason(
    "the code has run twice: the cluster lost its first pod, and Argo started it again in another",
    "where a second run does harm, set argo.at_most_once = true",
)
KEPT_FROM_RUNNING_TWICE = Reason(
    "the cluster lost the job's pod, and argo.at_most_once kept the code from running a second time",
    _AGAIN,
)


def is_over(workflow: Object) -> bool:
    labels = labels_of(workflow)
    return labels.get(COMPLETED) == "true" or labels.get(PHASE) in ("Succeeded", "Failed", "Error")


def was_stopped(workflow: Object) -> bool:
    return STOPPED in labels_of(workflow)


def why_given_up(workflow: Object) -> Reason | None:
    """What a client noted that ended a job because it could not start; None where nobody did."""
    noted = (workflow["metadata"].get("annotations") or {}).get(GAVE_UP)
    if noted is None:
        return None
    text, _, hint = noted.partition("\n")
    return Reason(text, hint or None)


def container(pod: Object) -> Mapping[str, Any] | None:
    """The status of the container that runs the job."""
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
    """Also when it never started, and never will."""
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
            "exited",
            None if _lacks_a_secret(ended) or _why_not_once(workflow, ended) else ended["exitCode"],
            reason.text,
            epoch(ended.get("startedAt")),
            epoch(ended.get("finishedAt")),
            reason.hint,
            phases,
        )
    if status.get("phase") in ("Failed", "Succeeded"):
        reason = NOTHING if was_stopped(workflow) else _why_pod_failed(pod)
        return EngineState("exited", None, reason.text, hint=reason.hint, phases=phases)
    if has_started(pod):
        started = epoch((container(pod) or {})["state"]["running"].get("startedAt"))
        lost = _why_silent(pod)
        return EngineState("running", None, lost.text, started, None, lost.hint, phases)
    waits = why_waiting(pod)
    return EngineState("running", reason=waits.text, hint=waits.hint, phases=phases)


def _why_silent(pod: Object) -> Reason:
    """A pod whose containers were all well when its node was last heard of is only not ready because
    the cluster hears nothing of that node."""
    conditions = pod.get("status", {}).get("conditions") or ()
    status = {one["type"]: one["status"] for one in conditions}
    if (status.get("Ready"), status.get("ContainersReady")) != ("False", "True"):
        return NOTHING
    node = pod["spec"].get("nodeName", "?")
    if pod["metadata"].get("deletionTimestamp"):
        comes = "the cluster has given the job up; it ends when the node is back or taken away"
        hint = f"{comes}: kubectl delete node {node}"
    else:
        comes = "it may come back, and is else given up by the cluster after some minutes"
        hint = f"{comes}; look at it: kubectl describe node {node}"
    return Reason(f"the cluster hears nothing of its node {node}", hint)


def _state_without_pod(workflow: Object, phases: Phases) -> EngineState:
    """Its pod was never made, or has gone: what Argo noted of it is all there is."""
    status = workflow.get("status") or {}
    finished = epoch(status.get("finishedAt"))
    code = None
    for node in (status.get("nodes") or {}).values():
        noted = (node.get("outputs") or {}).get("exitCode")
        if noted is not None and str(noted).isdecimal():
            code = int(noted)
    phase = status.get("phase") or labels_of(workflow).get(PHASE)
    reason = NOTHING
    if phase == "Succeeded":
        code = 0
    else:
        code = code or None
        if not was_stopped(workflow):
            reason = why_no_pod(workflow)
            if reason.text is None:
                reason = Reason(f"the workflow ended as {phase}, and its pod has gone")
    # One that never had a node printed nothing.
    nodes = (status.get("nodes") or {}).values()
    log_gone = phase == "Succeeded" or any(node.get("hostNodeName") for node in nodes)
    return EngineState(
        "exited", code, reason.text, None, finished, reason.hint, phases, log_gone=log_gone
    )


# ---------------------------------------------------------------------------- reasons

_NO_IMAGE = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"),
    "InvalidImageName",
)
# Taints that the cluster itself puts on a node: not ready, not reached, short of something.
_NODE_TROUBLE = "node.kubernetes.io/"
_NO_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def gives_up_at(
    pod: Object, start_timeout: float, node_timeout: float | None = None
) -> float | None:
    """When (epoch seconds) a pod that cannot start is no longer waited for; None while it may yet.

    A pod without a node may (somebody's job ends, or a node is added), for `node_timeout` seconds if
    that is given. On its node it cannot, and keeps what it asks for from others; a name that is no
    image's never will.
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
    """The containers that wait, with what is said of that."""
    status = pod.get("status", {})
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = [(one, (one.get("state") or {}).get("waiting")) for one in every]
    return [(one, waiting) for one, waiting in states if waiting]


def why_waiting(pod: Object) -> Reason:
    """What keeps a pod from starting, if something does."""
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
                    "make the secret, or refer to one that is there: --secret NAME=secret:NAME/KEY"
                )
            elif "runAsNonRoot" in said:
                hint = "this cluster gives jobs no root: set argo.restricted = true"
            name = one.get("name", MAIN)
            return Reason(f"the container {name} cannot be made: {said or why}", hint)
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = _one_line(condition.get("message")) or condition.get("reason", "")
            said = said.partition(" preemption: ")[0]  # It ends nobody's pod for this one.
            return Reason(f"no node takes it: {said}", _hint_unschedulable(said))
    return NOTHING


def _no_image(container: Mapping[str, Any], why: str) -> Reason:
    name, image = container.get("name", MAIN), container.get("image", "?")
    if name in ARGOS_OWN:
        return Reason(
            f"the node cannot get the image {image} of Argo's own container {name}: {why}",
            "Argo's configuration chooses that image, not the job: ask Argo's administrator to make it "
            "available to the nodes, or to name a copy of it (executor.image)",
        )
    return Reason(
        f"the node cannot get the image {image}: {why}",
        "name one that the cluster can pull: --image IMAGE; for a private registry set "
        "argo.image_pull_secrets",
    )


def _hint_unschedulable(said: str) -> str | None:
    if "Insufficient" in said:
        return "ask for less: --cpu, --memory; or wait for room"
    if "persistentvolumeclaim" in said:
        return "make the claims: stoke setup argo --apply"
    taints = re.findall(r"taint\S* \{([^:=}]*)", said)
    if any(not one.startswith(_NODE_TROUBLE) for one in taints):
        return "name what the nodes demand: argo.tolerations"
    if taints or "were unschedulable" in said:
        return "see which nodes are in trouble or closed to new pods: kubectl get nodes"
    if "affinity" in said or "selector" in said:
        return "look at argo.node_selector; the nodes' labels: kubectl get nodes --show-labels"
    return None


def _why_not_once(workflow: Object, ended: Object) -> Reason | None:
    """Why `argo.at_most_once` ended the pod before the runner began; None where it did not. The job's
    code can write a last message too, so it counts only where one can come from us."""
    said = _one_line(ended.get("message"))
    if ONCE not in labels_of(workflow) or ended["exitCode"] != NOT_STARTED:
        return None
    if said.startswith(STARTED_BEFORE.strip()):
        return KEPT_FROM_RUNNING_TWICE
    if said.startswith(NOT_SURE.strip()):
        return Reason(
            f"argo.at_most_once: it was not started, because {said.removeprefix(NOT_SURE)}",
            "let the service account create and patch task results and reach the API server: "
            "stoke setup argo --apply; or set argo.at_most_once = false",
        )
    return None


def _lacks_a_secret(ended: Mapping[str, Any]) -> bool:
    """Whether it ended before the runner began, for want of what it asks the cluster for."""
    return str(ended.get("message") or "").startswith(NOT_GIVEN)


def _more_memory(pod: Object) -> str:
    """Twice what it was limited to; without a limit, its node ran out."""
    containers = pod.get("spec", {}).get("containers", ())
    main: Object = next((one for one in containers if one["name"] == MAIN), {})
    limit = main.get("resources", {}).get("limits", {}).get("memory", "")
    found = re.fullmatch(r"(\d+)([KMG]i)?", limit)
    if found is None:
        return "say what it needs, so that it is given room: --memory SIZE"
    size = int(found[1]) * 1024 ** ("KMG".index(found[2][0]) + 1 if found[2] else 0)
    return f"give it more: --memory {-(-2 * size // 1024**2)}m"


def _why_ended(workflow: Object, pod: Object, ended: Mapping[str, Any]) -> Reason:
    code, why = ended["exitCode"], ended.get("reason", "")
    said = _one_line(ended.get("message"))
    if code == 0 or was_stopped(workflow):
        return NOTHING
    if why == "OOMKilled":
        return Reason("out of memory", _more_memory(pod))
    if pod.get("status", {}).get("reason"):
        return _why_pod_failed(pod)
    not_once = _why_not_once(workflow, ended)
    if not_once is not None:
        return not_once
    if _lacks_a_secret(ended):
        names = said.removeprefix(NOT_GIVEN)
        return Reason(
            f"its WorkflowTemplate gives it no secret for {names}",
            "have the template made anew, with the same argo.template_secrets: stoke setup argo",
        )
    if code == COULD_NOT_START and "python3" in said:
        return Reason(
            "the image has no python3", "name one with Python 3.9 or later: --image IMAGE"
        )
    if code == COULD_NOT_START and said:
        return Reason(f"Argo could not start it: {said}")
    if why == "ContainerStatusUnknown":
        return Reason("the node was lost while it ran", _AGAIN)
    return _why_deleted(pod)


# What the cluster itself says when it takes a pod away, by its condition's reason.
_DISRUPTIONS = {
    "PreemptionByScheduler": "the cluster gave its room to a more important pod",
    "DeletionByTaintManager": "its node was lost, or does not want it any more",
    "EvictionByEvictionAPI": "its node is being emptied",
    "DeletionByPodGC": "its node has gone",
    "TerminationByKubelet": "its node ended it, to save itself or to shut down",
}


# What its node had too little of, as the kubelet's message says it.
_EVICTIONS = (
    ("memory", "say what it needs, so that it is given room: --memory"),
    ("storage|disk|inodes|emptydir", "make room on it: stoke cache ls, then stoke cache prune"),
)


def _why_deleted(pod: Object) -> Reason:
    """Who took a pod away that we did not end."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            why = _DISRUPTIONS.get(condition.get("reason", ""), condition.get("reason", ""))
            return Reason(f"evicted: {why}", _AGAIN)
    if pod["metadata"].get("deletionTimestamp"):
        return Reason("somebody deleted its pod while it ran", _AGAIN)
    return NOTHING


def _why_pod_failed(pod: Object) -> Reason:
    status = pod.get("status", {})
    why, said = status.get("reason", ""), _one_line(status.get("message"))
    if why == "Evicted":
        hints = (hint for what, hint in _EVICTIONS if re.search(what, said, re.IGNORECASE))
        return Reason(f"evicted by its node: {said}", next(hints, _AGAIN))
    if why == "DeadlineExceeded":
        return Reason(
            "the cluster's deadline for it passed", "give it longer: --timeout; or take less time"
        )
    if why in ("NodeLost", "NodeShutdown", "Terminated", "Preempting", "Shutdown"):
        return Reason(f"the node was lost while it ran ({why}): {said}", _AGAIN)
    if why or said:
        return Reason(": ".join(part for part in (why, said) if part))
    for one in status.get("initContainerStatuses") or ():
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return Reason(
                f"Argo's container {one['name']} failed: "
                f"{_one_line(ended.get('message')) or ended.get('reason', '')}",
                f"see its log: kubectl logs {pod['metadata']['name']} -c {one['name']}",
            )
    return NOTHING


_LIMIT_RANGE = re.compile(
    r"(?P<end>maximum|minimum) (?P<what>\S+) usage per \w+ is (?P<most>[\w.]+)"
    r"(?:, but \w+ is|\. +No)"
)
_OPTIONS = {"cpu": "--cpu", "memory": "--memory"}
_ARGOS_RESOURCES = (
    "Argo's own containers need resources: ask Argo's administrator to set executor.resources in its "
    "configuration, or make a LimitRange with defaults in this namespace"
)


def _hint_limit_range(text: str) -> str | None:
    """A LimitRange that forbids what a container asks for."""
    found = _LIMIT_RANGE.search(text)
    if found is None or found["what"] not in _OPTIONS:
        return None
    option, most = _OPTIONS[found["what"]], found["most"]
    if ". " in found[0]:
        return f"say what it needs, {option}; if that is said, {_ARGOS_RESOURCES}"
    if found["end"] == "maximum":
        return f"ask for at most {most}: {option}"
    return f"ask for at least {most}: {option}"


def _hint_unspecified(text: str) -> str | None:
    """A quota that wants containers to say what they need, and names those that do not."""
    if not re.search(r"must specify (limits|requests)", text):
        return None
    lists = re.findall(r"(?:limits|requests)\.\w+(?: for: ([\w,.-]+))?", text)
    names = {name for one in lists for name in one.strip(",.").split(",") if name}
    job = "say what it needs: --cpu 1 --memory 1g"
    if names.isdisjoint(ARGOS_OWN):
        return job
    return f"{job}; and {_ARGOS_RESOURCES}" if MAIN in names else _ARGOS_RESOURCES


_BY_MESSAGE = (
    (r"exceeded quota", "wait for others to end, or ask for less: --cpu, --memory"),
    (
        r"violates PodSecurity.*hostPath",
        "keep caches elsewhere: set argo.cache to claim, or none",
    ),
    (r"violates PodSecurity", "this namespace gives jobs no root: set argo.restricted = true"),
    (
        r"serviceaccount .* not found",
        "make it: stoke setup argo --apply; or name another: argo.service_account",
    ),
    (r"persistentvolumeclaim .* not found", "make it: stoke setup argo --apply"),
    (
        r"workflowtaskresults",
        "the service account lacks the right that Argo's part of the pod needs: "
        "stoke setup argo --apply",
    ),
    (r"pod deleted", f"somebody deleted its pod; {_AGAIN}"),
    (
        r"must use workflowTemplateRef",
        "this cluster runs workflows by reference only: set argo.by_template = true, and have the "
        "templates made: stoke setup argo --apply",
    ),
    (
        r"workflowtemplates.* not found|no template named|template .* (not found|undefined)",
        "make the templates of this scope: stoke setup argo --scope SCOPE --apply",
    ),
    (r"admission webhook", "the cluster's own rules forbid it; ask who runs it"),
)  # fmt: skip


def why_no_pod(workflow: Object) -> Reason:
    """What Argo noted on a workflow, which is where the cluster's refusals end up."""
    status = workflow.get("status") or {}
    said = [status.get("message"), *(
        node.get("message") for node in (status.get("nodes") or {}).values()
    )]  # fmt: skip
    text = next((_one_line(one) for one in said if one), "")
    return explained(text) if text else NOTHING


def explained(text: str) -> Reason:
    """The cluster's words, with how to fix them where that is known."""
    own = _hint_limit_range(text) or _hint_unspecified(text)
    if own is not None:
        return Reason(text, own)
    for pattern, hint in _BY_MESSAGE:
        if re.search(pattern, text, re.IGNORECASE):
            return Reason(text, hint)
    return Reason(text)


def _one_line(text: object) -> str:
    return " ".join(str(text or "").split())[:500]


# ---------------------------------------------------------------------------- moments

_GO_DURATION = re.compile(r" in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(ms|s))")


class Moments:
    """When a job came how far on its way to its container, as well as we know it.

    The API has whole seconds. What was seen to happen while somebody watched is known better.
    """

    def __init__(self, submitted: float | None = None) -> None:
        self._submitted = submitted
        self._at: dict[str, float] = {}
        self._unseen: set[str] = set()
        self._pull: tuple[float, float] | None = None

    def see(self, pod: Object | None, now: float) -> None:
        """Takes note of how it stands now; `pod` is None before there is one."""
        for name, at in _boundaries(pod).items():
            if at is None:
                self._unseen.add(name)
            elif name not in self._at:
                self._at[name] = now if name in self._unseen else at

    def see_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """The cluster's events about the pod: only they know how long it took to get the image."""
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
        """`created` is the workflow's own time, for a job that somebody else submitted."""
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
    """Since when (epoch seconds) it has a node; with "False" since when none takes it."""
    return next(
        (
            epoch(condition.get("lastTransitionTime"))
            for condition in pod.get("status", {}).get("conditions") or ()
            if condition["type"] == "PodScheduled" and condition["status"] == status
        ),
        None,
    )

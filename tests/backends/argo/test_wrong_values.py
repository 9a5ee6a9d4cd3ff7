"""An API server that answers with wrong values: every one of them is an error of ours, or ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.argo import ArgoBackend
from backends.argo.cluster import ApiError, Cluster
from backends.argo.diagnosis import gives_up_at
from backends.argo.log_stream import JobLog
from backends.argo.mounts import cache_folder
from backends.argo.names import (
    AWAITS_BUNDLE,
    cache_labels,
    claim_name,
    job_labels,
    register_name,
    workspace_labels,
    workspace_object,
)
from backends.argo.pods import JobPods
from backends.argo.refusals import why_never
from backends.argo.shapes import ANSWER, IDENTIFIED
from backends.argo.start_timeline import StartTimeline
from backends.argo.state import state_of, unnoticed_at
from backends.argo.status import is_over
from backends.argo.watch import Watch
from stoke.backend.api import EngineState, FoundJob, Volume
from stoke.config.model import ArgoConfig, Config
from stoke.errors import EngineError, StokeError
from stoke.files.shapes import ShapeError, checked, is_exit_code, is_time
from tests.backends.argo.deliveries import delivery
from tests.backends.argo.scripted_server import (
    CHUNKED,
    LAST,
    Piece,
    Request,
    ScriptedServer,
    chunk,
    json_answer,
    stamp,
    status,
)
from tests.malice import bounded, spoiled, wrong_values

JOB = "job-aaaaaa"
TIME = "2026-11-21T10:00:00Z"
LABELS = job_labels(JOB, "default", "0" * 16, ("python",), "1" * 32)


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uid": "u1", "resourceVersion": "7", "creationTimestamp": TIME, **more}


def waiting(name: str) -> dict[str, Any]:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    return {"name": name, "image": "team/image:1", "state": state}


ENDED = {
    "exitCode": 137,
    "reason": "OOMKilled",
    "message": "m",
    "startedAt": TIME,
    "finishedAt": TIME,
}
CONDITIONS = [
    {"type": "PodScheduled", "status": "True", "lastTransitionTime": TIME},
    {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
    {"type": "Ready", "status": "False", "message": "0/3 nodes are available"},
    {"type": "ContainersReady", "status": "True"},
]
SPEC = {
    "nodeName": "n1",
    "containers": [{"name": "main", "resources": {"limits": {"memory": "1Gi"}}}],
}


def pod(main: dict[str, Any], **more: Any) -> dict[str, Any]:
    state = {
        "phase": "Running",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": CONDITIONS,
        "initContainerStatuses": [{"name": "init", "state": {"terminated": {"exitCode": 1}}}],
        "containerStatuses": [waiting("wait"), {"name": "main", "image": "i", "state": main}],
    }
    about = named(JOB, labels={"workflows.argoproj.io/workflow": JOB}, deletionTimestamp=TIME)
    return {"metadata": about, "spec": SPEC, "status": {**state, **more}}


PODS = {
    "ended": pod({"terminated": ENDED}),
    "failed": pod({}, phase="Failed"),
    "running": pod({"running": {"startedAt": TIME}}),
    "waiting": pod({"waiting": {"reason": "CreateContainerError", "message": "secret"}}),
}
QUOTA = "exceeded quota: team, requested: limits.cpu=4, used: limits.cpu=0, limited: limits.cpu=2"
WORKFLOW = {
    "metadata": named(
        JOB,
        labels={**LABELS, "workflows.argoproj.io/phase": "Failed"},
        annotations={"stoke.gave-up": "given up\nhint"},
    ),
    "spec": {"templates": [{"container": {"env": [{"name": "STOKE_SPEC", "value": "e30="}]}}]},
    "status": {
        "phase": "Failed",
        "message": QUOTA,
        "finishedAt": TIME,
        "nodes": {"n": {"message": "m", "hostNodeName": "n1", "outputs": {"exitCode": "3"}}},
    },
}
WAITING_WORKFLOW = {"metadata": named(JOB, labels=LABELS), "spec": {}, "status": {"message": QUOTA}}
EVENTS: dict[str, Any] = {
    "metadata": {"resourceVersion": "7"},
    "items": [
        {
            "metadata": named("e"),
            "reason": reason,
            "message": 'Successfully pulled image "x" in 1m2.5s',
            "involvedObject": {"uid": "u0", "fieldPath": "spec.containers{main}"},
            "lastTimestamp": TIME,
        }
        for reason in ("Pulled", "Started")
    ],
}
TABLE = {
    "kind": "Table",
    "metadata": {"resourceVersion": "7"},
    "columnDefinitions": [{"name": "Name"}, {"name": "Node"}],
    "rows": [{"cells": ["n1", "n1"], "object": {"metadata": PODS["running"]["metadata"]}}],
}


def listed(*items: object) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "7", "continue": ""}, "items": [*items]}


def reduced(one: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": one["metadata"]}


WHERE = cache_folder(ArgoConfig(), "team-a", "", "").rstrip("/")
ENTRY = {"where": WHERE, "kinds": ["python"], "requests": {"1" * 16: 1.0}}
REGISTER = {
    "metadata": named(register_name("default"), labels=cache_labels("default", "nodes")),
    "data": {"n1": json.dumps(ENTRY)},
}
WORKSPACE = {
    "metadata": named(workspace_object("w"), labels=workspace_labels("w", "default")),
    "data": {"node": "n1"},
}
CLAIM_NAME = claim_name("default", "python")
CLAIM = {"metadata": named(CLAIM_NAME, labels=cache_labels("default", "python"))}
NODES = listed({"metadata": named("n1"), "status": {"allocatable": {"nvidia.com/gpu": "1"}}})
SOUND: dict[str, Any] = {
    "/version": {"gitVersion": "v1.30.0"},
    "/v1alpha1": {"resources": [{"name": "workflows"}, {"name": "workflowtaskresults"}]},
    "/namespaces/team-a": {"metadata": named("team-a", labels={})},
    "accessreviews": {"metadata": {}, "status": {"allowed": True}},
    f"/workflows/{JOB}": WORKFLOW,
    "/workflows": listed(reduced(WORKFLOW)),
    "POST /workflows": {"metadata": named(JOB, labels={AWAITS_BUNDLE: "true"})},
    f"/pods/{JOB}": PODS["ended"],
    "/pods": TABLE,
    "/nodes": NODES,
    "/events": EVENTS,
    f"/configmaps/{register_name('default')}": REGISTER,
    f"/configmaps/{workspace_object('w')}": WORKSPACE,
    "/configmaps": listed(REGISTER, WORKSPACE),
    f"/persistentvolumeclaims/{CLAIM_NAME}": CLAIM,
    "/persistentvolumeclaims": listed(CLAIM),
}
VOLUME = Volume("argo", "default", "python", CLAIM_NAME)
CALLS: dict[str, Callable[[ArgoBackend], object]] = {
    "inspect": lambda backend: backend.inspect(JOB),
    "jobs": lambda backend: [
        one for one in backend.jobs() if isinstance(one.read_spec(), bytes | None)
    ],
    "volumes": lambda backend: backend.volumes(),
    "workspaces": lambda backend: backend.workspaces(),
    "check": lambda backend: backend.check(),
    "submit": lambda backend: backend.submit(delivery("pass", workspace="w"), lambda *_: None),
    "stop": lambda backend: backend.stop(JOB, 1),
    "remove": lambda backend: backend.remove(JOB),
    "release": lambda backend: backend.release(JOB),
    "log": lambda backend: list(backend.logs(JOB, 0, follow=False)),
    "enter": lambda backend: backend.enter(JOB),
    "results": lambda backend: backend.forget_results(JOB),
    "clear": lambda backend: backend.housekeep(VOLUME, {"do": "clear"}, lambda _: None),
}


@pytest.fixture
def cluster(server: ScriptedServer, tmp_path: Path) -> Cluster:
    return Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(tmp_path))


def pod_of_log(request: Request) -> list[Piece]:
    return [CHUNKED, chunk(stamp(1795255200 * 10**9) + b"hello\n"), LAST]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_wrong_value_anywhere_is_no_crash(
    server: ScriptedServer, tmp_path: Path, data: st.DataObject
) -> None:
    answers = {**SOUND, f"/pods/{JOB}": data.draw(st.sampled_from([*PODS.values()]))}
    if data.draw(st.booleans()):
        answers[f"/workflows/{JOB}"] = WAITING_WORKFLOW
    called = data.draw(st.sampled_from([*CALLS]))
    name = data.draw(st.sampled_from([*answers]))
    answers[name] = data.draw(spoiled(answers[name]))
    server.answers = {
        "/log": [pod_of_log],
        "/workflows": [
            lambda request: json_answer(
                answers["POST /workflows" if request.method == "POST" else "/workflows"]
            )
        ],
        **{end: [json_answer(answer)] for end, answer in answers.items() if end != "/workflows"},
    }
    cache = data.draw(st.sampled_from(["hostpath", "claim", "shared-claim"]))
    argo = ArgoConfig(kubeconfig=server.kubeconfig(tmp_path), cache=cache)  # type: ignore[arg-type]
    backend = ArgoBackend(Config(argo=argo))
    try:
        result = CALLS[called](backend)
    except StokeError:
        return
    finally:
        backend.close()
    if isinstance(result, EngineState):
        check_state(result)
    if called == "jobs":
        for one in result:  # type: ignore[attr-defined]
            assert isinstance(one, FoundJob) and is_time(one.submitted_at)
            assert isinstance(one.nonce, str | None)


def check_state(state: EngineState) -> None:
    assert state.exit_code is None or is_exit_code(state.exit_code)
    for text in (state.reason, state.hint):
        assert isinstance(text, str | None)
    for at in (state.started_at, state.finished_at):
        assert at is None or is_time(at)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_what_passes_the_check_can_be_read(data: st.DataObject) -> None:
    """Without a server, so that many more values are tried."""
    one = data.draw(st.sampled_from([*PODS.values()]))
    workflow = data.draw(st.sampled_from([WORKFLOW, WAITING_WORKFLOW]))
    events = EVENTS
    which = data.draw(st.sampled_from(["pod", "workflow", "events"]))
    try:
        if which == "pod":
            one = checked(data.draw(spoiled(one)), IDENTIFIED)
        elif which == "workflow":
            workflow = checked(data.draw(spoiled(workflow)), IDENTIFIED)
        else:
            events = checked(data.draw(spoiled(events)), ANSWER)
    except ShapeError:
        return
    timeline = StartTimeline()
    timeline.record(one, 1.0)
    timeline.record_events(events.get("items", ()))
    phases = timeline.phases(1.0)
    check_state(state_of(workflow, one, phases))
    check_state(state_of(workflow, None, phases))
    gives_up_at(one, 60)
    unnoticed_at(workflow)
    why_never(workflow)
    is_over(workflow)
    pods = JobPods(JOB)
    pods.record_pod(one)
    pods._take_events(events.get("items", []))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_wrong_event_of_a_watch_is_skipped_or_ends_it(
    cluster: Cluster, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]))
    failure = {"code": 410, "message": "too old", "reason": "Expired"}
    event = {"type": kind, "object": failure if kind == "ERROR" else PODS["ended"]}
    watch = Watch(cluster, "/pods")
    try:
        found = watch._event(json.dumps(data.draw(spoiled(event))).encode())
    except ApiError as error:
        assert isinstance(error.status, int) and isinstance(error.reason, str)
        return
    for change in found:
        check_state(state_of(WORKFLOW, change.object))
    assert isinstance(watch._version, str)


@pytest.mark.parametrize("code", [float("inf"), 1e308, [], "410", 10**400])
def test_a_watch_that_fails_with_no_valid_code_is_an_error(cluster: Cluster, code: object) -> None:
    line = json.dumps({"type": "ERROR", "object": {"code": code, "message": "m" * 10**6}})
    with pytest.raises(ApiError) as raised:
        Watch(cluster, "/pods")._event(line.encode())
    assert raised.value.status == 500 and len(raised.value.what) < 6_000


def test_a_fault_in_the_thread_of_a_watch_reaches_its_reader(
    server: ScriptedServer, cluster: Cluster
) -> None:
    """The reader would wait for the thread for ever otherwise."""
    server.answers = {
        "/pods": [json_answer(listed(PODS["waiting"]))],
        "/workflows": [json_answer(listed(reduced(WAITING_WORKFLOW)))],
    }

    def broken(pod: object) -> None:
        raise ZeroDivisionError

    log = JobLog(cluster, JOB, 0, True, broken, lambda: None, 60)
    with pytest.raises(ZeroDivisionError), bounded(seconds=60):
        list(log)


def test_pages_without_end_are_an_error(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.argo.resources.MOST_PAGES", 5)
    page = listed(reduced(WORKFLOW))
    page["metadata"]["continue"] = "more"
    server.answers = {"/workflows": [json_answer(page)]}
    backend = ArgoBackend(Config(argo=ArgoConfig(kubeconfig=server.kubeconfig(tmp_path))))
    with pytest.raises(EngineError, match="more than 5 pages"):
        backend.jobs()


def test_a_workspace_that_exists_and_does_not_is_an_error(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers = {
        f"/{workspace_object('w')}": [status(404, "NotFound", "not found")],
        "/configmaps": [status(409, "AlreadyExists", "already exists")],
    }
    backend = ArgoBackend(Config(argo=ArgoConfig(kubeconfig=server.kubeconfig(tmp_path))))
    with pytest.raises(EngineError, match="already exists"):
        backend._workspaces().ensure("w", "default")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_wrong_line_of_results_is_no_crash(
    cluster: Cluster, tmp_path: Path, data: st.DataObject
) -> None:
    from backends.argo.results import PodResults

    lines: list[object] = [
        {"begin": {"total": 2, "fingerprint": "f"}},
        {"data": "eJxLTAYAASUAwg==", "at": 0},
        {"error": "no", "hint": "h"},
        {"result": {"offset": 2}},
    ]
    lines.pop(data.draw(st.sampled_from([1, 2])))
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = data.draw(st.one_of(spoiled(lines[number]), wrong_values))
    results = PodResults(cluster, Config(), "image", JOB, VOLUME)
    results._forget()
    try:
        results._append((json.dumps(one).encode() for one in lines), 0, lambda _: None)
    except EngineError as error:
        assert isinstance(error.what, str) and isinstance(error.hint, str | None)
    assert results._size() <= 2


def test_results_are_no_longer_than_announced(cluster: Cluster) -> None:
    from backends.argo.results import PodResults

    results = PodResults(cluster, Config(), "image", JOB, VOLUME)
    lines = [b'{"begin": {"total": 1}}', b'{"data": "eJxLTAYAASUAwg==", "at": 0}']
    with pytest.raises(EngineError, match="damaged"):
        results._append(lines, 0, lambda _: None)
    assert results._size() == 0

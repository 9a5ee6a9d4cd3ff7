"""A task's state from the status of its sweep's Workflow, whose pods may be gone."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from backends.argo.names import COMPLETED, PHASE
from backends.argo.state import state_of
from backends.argo.task_names import node_id, node_name
from backends.argo.task_status import as_job, nodes_of, started_tasks
from stoke.backend.api import Cause, EngineStatus

SWEEP = "fit-7k2pqa"


def node(number: int, phase: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": node_id(SWEEP, number), "name": node_name(SWEEP, number), "type": "Pod",
        "phase": phase, "startedAt": "2026-12-01T00:00:05Z", **fields,
    }  # fmt: skip


def workflow(
    *nodes: dict[str, Any], phase: str = "Running", packed: bool = False
) -> dict[str, Any]:
    group = {"id": "group", "name": f"{SWEEP}[0]", "type": "StepGroup", "phase": "Running"}
    listed = {one["id"]: one for one in (*nodes, group)}
    status: dict[str, Any] = {"phase": phase, "nodes": listed}
    if packed:
        text = gzip.compress(json.dumps(listed).encode())
        status = {"phase": phase, "compressedNodes": base64.b64encode(text).decode()}
    labels = {PHASE: phase, COMPLETED: "false" if phase == "Running" else "true"}
    about = {"name": SWEEP, "labels": labels, "creationTimestamp": "2026-12-01T00:00:00Z"}
    return {"metadata": about, "status": status}


def test_the_node_tells_the_end_of_a_task_whose_pod_is_gone() -> None:
    failed = node(
        3, "Failed", message="main: Error (exit code 7)", outputs={"exitCode": "7"},
        finishedAt="2026-12-01T00:01:00Z", hostNodeName="node-1",
    )  # fmt: skip
    for packed in (False, True):
        whole = workflow(node(1, "Running"), node(2, "Succeeded"), failed, packed=packed)
        assert started_tasks(whole) == 3
        state = state_of(as_job(whole, f"{SWEEP}-3"), None)
        assert (state.status, state.exit_code, state.log_gone) == (EngineStatus.EXITED, 7, True)
        assert state.reason == "main: Error (exit code 7)"
        assert state_of(as_job(whole, f"{SWEEP}-2"), None).exit_code == 0
        assert state_of(as_job(whole, f"{SWEEP}-1"), None).status is EngineStatus.RUNNING


def test_a_deleted_pod_is_a_cause_of_its_own() -> None:
    whole = workflow(node(1, "Error", message="pod deleted", hostNodeName="node-1"))
    state = state_of(as_job(whole, f"{SWEEP}-1"), None)
    assert (state.exit_code, state.cause) == (None, Cause.POD_DELETED)
    assert state.hint is not None and state.hint.endswith(f"stoke rerun {SWEEP}-1")


def test_a_task_that_was_never_started_has_ended_with_its_sweep() -> None:
    running = as_job(workflow(node(1, "Running")), f"{SWEEP}-2")
    assert state_of(running, None).status is EngineStatus.RUNNING
    over = state_of(as_job(workflow(phase="Failed"), f"{SWEEP}-2"), None)
    assert (over.status, over.exit_code) == (EngineStatus.EXITED, None)
    assert over.reason == "the sweep ended before Argo started this task"


def test_damaged_nodes_are_no_nodes() -> None:
    texts = ["", "not base64", base64.b64encode(b"not gzip").decode()]
    damaged: tuple[object, ...] = ([], {"odd": []}, {"odd": {"name": 1}})
    for nodes in damaged:
        texts.append(base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode())
    for packed in texts:
        assert nodes_of({"status": {"compressedNodes": packed}}) == {}
    assert nodes_of({}) == {}


def test_a_task_whose_pod_the_end_of_the_sweep_prevented_was_not_started() -> None:
    message = "workflow shutdown with strategy: Terminate"
    ended = node(
        1, "Failed", message="workflow shutdown with strategy:  Terminate", hostNodeName="n"
    )
    left = [node(number, "Failed", message=message) for number in (2, 3)]
    assert started_tasks(workflow(ended, *left, phase="Failed")) == 1

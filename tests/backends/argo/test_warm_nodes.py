"""Notes on jobs that run without the cache of a node that has their environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.argo.cluster import resource_path
from backends.argo.job_locations import JobLocation
from backends.argo.names import REQUEST, WARM_NODES, cache_labels, register_name
from backends.argo.warm_nodes import ColdStarts
from stoke.config.model import ArgoConfig
from tests.backends.argo.scripted_server import Answer, ScriptedServer, forbidden, json_answer

KEY = "0123456789abcdef"
CREATED = 1_763_719_200.0  # 2025-11-21T10:00:00Z


@pytest.fixture
def at(server: ScriptedServer, tmp_path: Path) -> Iterator[JobLocation]:
    location = JobLocation(None, None, server.kubeconfig(tmp_path), ArgoConfig())
    yield location
    location.cluster.close()


def workflow(*nodes: str) -> dict[str, Any]:
    return {
        "metadata": {
            "creationTimestamp": "2025-11-21T10:00:00Z",
            "labels": {"stoke.scope": "team", REQUEST: KEY * 2},
            "annotations": {WARM_NODES: " ".join(nodes)} if nodes else {},
        }
    }


def register_of(**used: float) -> Answer:
    """The record of when the environment was used on each node."""
    folder = "/var/lib/stoke/namespaces/team-a"
    data = {
        node: json.dumps({"where": folder, "kinds": ["python"], "requests": {KEY: at}})
        for node, at in used.items()
    }
    about = {"name": register_name("team"), "labels": cache_labels("team", "nodes")}
    return json_answer({"metadata": about, "data": data})


def notes(server: ScriptedServer, at: JobLocation, node: Answer, *nodes: str, **used: float) -> Any:
    """The notes on a job that prefers `nodes` and runs on node-a."""
    path = resource_path("v1", "team-a", "configmaps", register_name("team"))
    server.answers = {path: [register_of(**used)], "/nodes/node-b": [node]}
    return ColdStarts().notes("job", workflow(*nodes), {"spec": {"nodeName": "node-a"}}, at)


@pytest.mark.parametrize(
    ("node", "hint"),
    [
        (
            json_answer({"spec": {"unschedulable": True}}),
            "node-b is cordoned: kubectl uncordon node-b",
        ),
        (
            json_answer({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            "node-b is not ready: kubectl describe node node-b",
        ),
        (json_answer({}), "see its taints and free resources: kubectl describe node node-b"),
        (
            forbidden("get", "nodes"),
            "see its taints and free resources: kubectl describe node node-b",
        ),
    ],
    ids=["cordoned", "not ready", "full", "no right"],
)
def test_the_hint_is_about_the_node_with_the_environment(
    server: ScriptedServer, at: JobLocation, node: Answer, hint: str
) -> None:
    text = "the cluster chose node-a, and the environment is on node-b and 1 more"
    assert notes(server, at, node, "node-b", "node-c") == ((text, hint),)


@pytest.mark.parametrize(
    ("nodes", "used"),
    [((), {}), (("node-b", "node-a"), {}), (("node-b",), {"node-a": CREATED - 60})],
    ids=["no node has it", "on one of them", "on one beyond the preferred"],
)
def test_there_is_no_note_on_a_job_that_could_be_no_warmer(
    server: ScriptedServer, at: JobLocation, nodes: tuple[str, ...], used: dict[str, float]
) -> None:
    assert notes(server, at, json_answer({}), *nodes, **used) == ()


def test_the_record_of_the_job_itself_does_not_count(
    server: ScriptedServer, at: JobLocation
) -> None:
    assert notes(server, at, json_answer({}), "node-b", **{"node-a": CREATED + 60}) != ()


def test_each_job_is_looked_into_once(server: ScriptedServer, at: JobLocation) -> None:
    cold, pod = ColdStarts(), {"spec": {"nodeName": "node-a"}}
    first = cold.notes("job", workflow("node-b"), pod, at)
    asked = len(server.requests)
    assert cold.notes("job", workflow("node-b"), pod, at) == first != ()
    assert len(server.requests) == asked
    assert cold.notes("other", workflow("node-b"), {"spec": {}}, at) == ()

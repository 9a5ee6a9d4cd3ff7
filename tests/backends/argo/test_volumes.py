"""The caches that are listed, as far as one may ask."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backends.argo.cluster import Cluster
from backends.argo.names import cache_labels, register_name
from backends.argo.volumes import ArgoVolumes
from stoke.config.model import ArgoConfig
from tests.backends.argo.scripted_server import Answer, forbidden, json_answer, scripted_server

FOLDER = "/var/lib/stoke/namespaces/team-a"


def register_of(folders: dict[str, str | None]) -> dict[str, Any]:
    """A register where each node has a cache below a folder; None: as older programs noted it."""
    data = {}
    for node, folder in folders.items():
        noted: dict[str, Any] = {"kinds": ["python"], "requests": {"r": 1.0}}
        data[node] = json.dumps(noted if folder is None else {"where": folder, **noted})
    labels = cache_labels("team", "nodes")
    return {"metadata": {"name": register_name("team"), "labels": labels}, "data": data}


def nodes_answer(*names: str) -> Answer:
    columns = [{"name": "Name"}, {"name": "Status"}]
    rows = [{"cells": [name, "Ready"]} for name in names]
    return json_answer({"columnDefinitions": columns, "rows": rows})


@pytest.mark.parametrize(
    ("nodes", "listed"),
    [
        (nodes_answer("node-b", "node-c"), ["node-b"]),
        (forbidden("list", "nodes"), ["node-a", "node-b"]),
        (nodes_answer(), ["node-a", "node-b"]),
    ],
    ids=["one is gone", "no right", "no answer"],
)
def test_without_the_right_to_list_nodes_all_recorded_caches_are_listed(
    tmp_path: Path, nodes: Answer, listed: list[str]
) -> None:
    register = register_of({"node-a": FOLDER, "node-b": FOLDER})
    with scripted_server() as server:
        server.answers = {
            "/configmaps": [json_answer({"items": [register]})],
            f"/configmaps/{register_name('team')}": [json_answer({})],
            "/workflows": [json_answer({"metadata": {}, "items": []})],
            "/pods": [json_answer({"columnDefinitions": [], "rows": []})],
            "/nodes": [nodes],
        }
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            found = ArgoVolumes(cluster, ArgoConfig()).found()
    assert [one.node for one in found] == listed
    removed = [json.loads(one.body)["data"] for one in server.requests if one.method == "PATCH"]
    assert removed == ([{"node-a": None}] if listed == ["node-b"] else [])


@pytest.mark.parametrize(
    ("shared", "node"), [(False, "node-own"), (True, "node-shared")], ids=["own", "shared"]
)
def test_records_about_other_folders_are_ignored(tmp_path: Path, shared: bool, node: str) -> None:
    """The path or the sharing was changed: the caches in the new folders are not the old ones."""
    register = register_of(
        {
            "node-own": FOLDER,
            "node-shared": "/var/lib/stoke/shared",
            "node-elsewhere": "/data/namespaces/team-a",
            "node-before": None,
        }
    )
    with scripted_server() as server:
        server.answers = {
            "/configmaps": [json_answer({"items": [register]})],
            f"/configmaps/{register_name('team')}": [json_answer(register)],
            "/workflows": [json_answer({"metadata": {}, "items": []})],
            "/pods": [json_answer({"columnDefinitions": [], "rows": []})],
            "/nodes": [nodes_answer(node)],
        }
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            volumes = ArgoVolumes(cluster, ArgoConfig(cache_shared=shared))
            (found,) = volumes.found()
            assert volumes.warm_nodes("team", "r") == (node,)
    assert found.node == node
    assert found.name == ("/var/lib/stoke/shared" if shared else FOLDER) + "/team/python"

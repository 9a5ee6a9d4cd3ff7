"""The caches that are listed, as far as one may ask."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from backends.argo.cluster import Cluster
from backends.argo.names import cache_labels, register_name
from backends.argo.volumes import Volumes
from stoke.config import ArgoConfig
from tests.backends.argo.scripted_server import forbidden, json_answer, scripted_server, status

GONE = status(404, "NotFound", 'nodes "node-a" not found')


@pytest.mark.parametrize(
    ("about_a", "listed"), [(GONE, ["node-b"]), (forbidden("get", "nodes"), ["node-a", "node-b"])]
)
def test_who_may_not_ask_for_nodes_is_shown_all_that_were_noted(
    tmp_path: Path, about_a: list[bytes], listed: list[str]
) -> None:
    noted = json.dumps({"kinds": ["python"], "requests": {}})
    register = {
        "metadata": {"name": register_name("team"), "labels": cache_labels("team", "nodes")},
        "data": {"node-a": noted, "node-b": noted},
    }
    with scripted_server() as server:
        server.answers = {
            "/configmaps": [json_answer({"items": [register]})],
            "/workflows": [json_answer({"metadata": {}, "items": []})],
            "/pods": [json_answer({"columnDefinitions": [], "rows": []})],
            "/nodes/node-a": [about_a],
            "/nodes/node-b": [json_answer({"metadata": {"name": "node-b"}})],
        }
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            found = Volumes(cluster, ArgoConfig()).found()
    assert [one.node for one in found] == listed

"""What a housekeeping pod prints is read to its end, over silences as well."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.argo import pod_log as log_module
from backends.argo.cluster import Cluster
from backends.argo.housekeeping import housekeep
from stoke.backend.api import Volume
from stoke.config.model import Config
from stoke.errors import EngineError
from tests.backends.argo.scripted_server import Hold, Piece, json_answer, scripted_server
from tests.backends.argo.test_log_stream import RUNNING, log_answer, pod, watched, workflow


def said(**what: object) -> bytes:
    return json.dumps(what).encode() + b"\n"


def test_reading_a_housekeeping_log_continues_after_a_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "aa")
    lines = [b"time=... argo=true\n", said(progress="looking"), said(progress="looking")]
    outcome = [*lines, said(progress="collecting"), said(result={"bytes": 7})]
    told: list[str] = []
    silent: Piece = Hold
    with scripted_server() as server:
        server.answers = {
            "/log": [*log_answer(*lines, end=silent), *log_answer(*outcome)],
            "/pods": watched([pod(RUNNING)]),
            "/workflows": watched([workflow()]),
            "/workflows/stoke-housekeeping-aa": [json_answer(workflow())],
            "/pods/stoke-housekeeping-aa": [json_answer(pod(RUNNING))],
        }
        cluster = Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(tmp_path))
        volume = Volume(
            "argo", "team", "python", "/var/lib/stoke/namespaces/jobs/team/python", "node-b"
        )
        done = housekeep(cluster, Config(), "image", volume, {"do": "usage"}, told.append)
        cluster.close()
    assert done == {"bytes": 7}
    assert [text for text in told if text != "waiting for the pod"] == [
        "looking",
        "looking",
        "collecting",
    ]
    assert [one.method for one in server.requests if one.method != "GET"][-1] == "DELETE"


def test_a_log_that_is_cut_before_its_first_line_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "aa")
    argos = b"time=... argo=true\n"
    with scripted_server() as server:
        server.answers = {
            "/log": [
                *log_answer(argos, end=b""),
                *log_answer(argos, said(progress="looking"), end=b""),
            ],
            "/pods": watched([pod(RUNNING)]),
            "/workflows": watched([workflow()]),
            "/workflows/stoke-housekeeping-aa": [json_answer(workflow())],
            "/pods/stoke-housekeeping-aa": [json_answer(pod(RUNNING))],
        }
        cluster = Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(tmp_path))
        told: list[str] = []
        volume = Volume("argo", "team", "python", "/var/lib/stoke/x", "node-b")
        with pytest.raises(EngineError, match="was cut"):
            housekeep(cluster, Config(), "image", volume, {"do": "usage"}, told.append)
        cluster.close()
    assert told.count("looking") == 1
    assert len([one for one in server.requests if one.path.endswith("/log")]) == 2


def test_housekeeping_whose_node_accepts_no_pod_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for nothing: a node that does not take it is closed, in trouble or gone."""
    monkeypatch.setattr("backends.argo.housekeeping.NODE_SECONDS", 6.0)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "aa")
    waiting = pod(None, phase="Pending")
    waiting["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "message": "0/2 nodes are available: 1 node(s) were unschedulable.",
        }
    ]
    told: list[str] = []
    with scripted_server() as server:
        server.answers = {
            "/pods": watched([waiting]),
            "/workflows": watched([workflow()]),
            "/workflows/stoke-housekeeping-aa": [json_answer(workflow())],
            "/pods/stoke-housekeeping-aa": [json_answer(waiting)],
        }
        cluster = Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(tmp_path))
        volume = Volume(
            "argo", "team", "python", "/var/lib/stoke/namespaces/jobs/team/python", "node-b"
        )
        with pytest.raises(EngineError, match="were unschedulable") as caught:
            housekeep(cluster, Config(), "image", volume, {"do": "usage"}, told.append)
        cluster.close()
    assert "kubectl get nodes" in (caught.value.hint or "")
    assert any("no node accepts it: 0/2 nodes" in text for text in told)
    assert [one.method for one in server.requests if one.method != "GET"][-1] == "DELETE"

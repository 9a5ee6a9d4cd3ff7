"""What a housekeeping pod prints is read to its end, over silences as well."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from backends.argo import log as log_module
from backends.argo.cluster import Cluster
from backends.argo.housekeep import housekeep
from stoke.backend import Volume
from stoke.config import Config
from tests.backends.argo.scripted_server import Hold, Piece, json_answer, scripted_server
from tests.backends.argo.test_following import RUNNING, log_answer, pod, watched, workflow


def said(**what: object) -> bytes:
    return json.dumps(what).encode() + b"\n"


def test_one_that_says_nothing_for_long_is_read_on(
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
        volume = Volume("argo", "team", "python", "/var/lib/stoke/team/python", "node-b")
        done = housekeep(cluster, Config(), "image", volume, {"do": "usage"}, told.append)
        cluster.close()
    assert done == {"bytes": 7}
    assert [text for text in told if text != "waiting for the pod"] == [
        "looking",
        "looking",
        "collecting",
    ]
    assert server.requests[-1].method == "DELETE"

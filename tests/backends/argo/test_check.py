"""What `stoke doctor` can see of Argo's controller, which runs where most users may not look."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.argo.check import _controller
from backends.argo.cluster import Cluster
from tests.backends.argo.scripted_server import forbidden, json_answer, scripted_server


def workflow(name: str, age: float, phase: str | None = None) -> dict[str, Any]:
    created = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"workflows.argoproj.io/phase": phase} if phase else {}
    return {"metadata": {"name": name, "creationTimestamp": created, "labels": labels}}


@pytest.mark.parametrize(
    ("workflows", "works", "says"),
    [
        ([], None, "no workflow yet"),
        ([("just-now", 1)], None, "no workflow yet"),
        (
            [("fresh", 60, "Running")],
            True,
            "processed the newest workflow of this namespace, fresh",
        ),
        ([("a", 3600, "Succeeded")], None, "unknown whether it still runs"),
        ([("a", 60)], False, "no Argo controller has processed a"),
        (
            [("seen", 3600, "Succeeded"), ("a", 60), ("b", 90)],
            False,
            "old (nor 1 more)",
        ),
        ([("old", 3600), ("new", 60, "Pending")], True, "new"),
    ],
)
def test_a_controller_is_judged_by_the_newest_workflow(
    tmp_path: Path, workflows: list[tuple[Any, ...]], works: bool | None, says: str
) -> None:
    items = [workflow(*one) for one in workflows]  # now: their age counts from here
    with scripted_server() as server:
        server.answers = {"/workflows": [json_answer({"metadata": {}, "items": items})]}
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            found = _controller(cluster)
    assert found.works is works
    assert says in found.detail
    assert (found.hint is None) == (works is True)


def test_the_controller_is_unknown_without_the_right_to_list_workflows(tmp_path: Path) -> None:
    with scripted_server() as server:
        server.answers = {"/workflows": [forbidden("list", "workflows")]}
        kubeconfig = server.kubeconfig(tmp_path)
        with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
            assert _controller(cluster).works is None

"""A cluster of two nodes, each with caches of its own: jobs prefer the node that has their environment,
and get over one that takes no pods or is lost."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.argo.cluster import Cluster, pods_path
from backends.argo.resources import MERGE
from tests.cli.conftest import Stoke, only_job
from tests.cli.test_argo_bad_days import Gate, Said
from tests.cluster import cluster as own_cluster
from tests.cluster.layout import NODE, SECOND_NODE, SECOND_TAINT, Layout
from tests.conftest import TestCluster
from tests.lab import until
from tests.package_index import PackageIndex

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("scope", "served")]

NODES = (NODE, SECOND_NODE)
LOST_SECONDS = 120
"""Kubernetes calls a silent node lost after 50 s."""


@pytest.fixture
def layout(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """A cluster with a second node that takes the jobs of this test, and that no other test closes or
    stops meanwhile."""
    folder = Path(os.environ.get("STOKE_TEST_CLUSTER_DIR", "."))
    if not os.environ.get("STOKE_TEST_SECOND_NODE"):
        pytest.skip("no second node: python -m tests.cluster up DIR --second IMAGE")
    layout = own_cluster.found(folder)
    assert layout is not None
    monkeypatch.setenv(
        "STOKE_ARGO__TOLERATIONS", json.dumps([{**SECOND_TAINT, "operator": "Exists"}])
    )
    with (folder / "second.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reopen(api, layout)  # A run that was killed may have left it closed or stopped.
        try:
            yield layout
        finally:
            reopen(api, layout)


def kubelet_of(layout: Layout) -> int:
    return own_cluster.processes(layout.second)["kubelet"].pid


def close(api: Cluster, node: str, value: bool = True) -> None:
    """Cordon a node, or open it again."""
    body = {"spec": {"unschedulable": value}}
    api.request("PATCH", f"/api/v1/nodes/{node}", body=body, content_type=MERGE)


def reopen(api: Cluster, layout: Layout) -> None:
    os.kill(kubelet_of(layout), signal.SIGCONT)
    close(api, SECOND_NODE, False)
    until(lambda: is_open(api, SECOND_NODE), "the second node", LOST_SECONDS)


def is_open(api: Cluster, node: str) -> bool:
    """Whether the node has no other taint than its own: one that is lost or cordoned has."""
    found = api.request("GET", f"/api/v1/nodes/{node}")
    return [one["key"] for one in found["spec"]["taints"]] == [SECOND_TAINT["key"]]


@pytest.fixture
def served(
    layout: Layout, real_cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PackageIndex]:
    index = PackageIndex(real_cluster.host)
    index.add("alpha", "1.0")
    monkeypatch.setenv("STOKE_INDEX__URL", index.url)
    yield index
    index.stop()


@dataclass
class Commands:
    """Jobs with a package, and what the commands tell of them and of their caches."""

    stoke: Stoke
    scope: str

    def run(self, node: str | None = None) -> tuple[dict[str, Any], str]:
        """A job's document and its messages; it runs on `node`, or where the cluster wants."""
        selector = {} if node is None else {"kubernetes.io/hostname": node}
        env = {"STOKE_ARGO__NODE_SELECTOR": json.dumps(selector)}
        done = self.stoke("run", "-w", "alpha", "-c", "import alpha; print(alpha.version)", env=env)
        assert (done.returncode, done.stdout) == (0, b"1.0\n"), done.stderr
        newest = json.loads(self.stoke("jobs", "--json", "-n", "1").stdout)[0]["id"]
        return json.loads(self.stoke("show", "--json", newest).stdout), done.stderr.decode()

    def cached_on(self) -> list[str]:
        """The node in each row of the caches of this scope."""
        listed = json.loads(self.stoke("cache", "ls", "-b", "argo", "--json").stdout)
        return [volume["node"] for volume in listed if volume["scope"] == self.scope]


@pytest.fixture
def commands(stoke: Stoke, scope: str) -> Commands:
    return Commands(stoke, scope)


def was_hit(document: dict[str, Any]) -> bool:
    (phase,) = [phase for phase in document["phases"] if phase["name"] == "python"]
    return bool(phase["hit"])


def runs(api: Cluster, job_id: str) -> bool:
    conditions = api.request("GET", pods_path(api.namespace, job_id))["status"]["conditions"]
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


@pytest.mark.parametrize("warm", NODES)
def test_the_next_job_runs_on_the_node_that_has_its_environment(
    commands: Commands, warm: str
) -> None:
    assert not was_hit(commands.run(warm)[0])
    document, messages = commands.run()
    assert was_hit(document)
    assert commands.cached_on() == [warm]
    assert "cluster chose" not in messages


def test_each_node_has_a_row_of_its_own_in_the_list_of_caches(commands: Commands) -> None:
    for node in NODES:
        assert not was_hit(commands.run(node)[0])
    assert commands.cached_on() == list(NODES)
    table = commands.stoke("cache", "ls", "-b", "argo").stdout.decode()
    for node in NODES:
        rows = [line for line in table.splitlines() if commands.scope in line and node in line]
        assert len(rows) == 1, table


def test_a_job_runs_elsewhere_if_the_node_with_its_environment_is_cordoned(
    commands: Commands, api: Cluster
) -> None:
    commands.run(SECOND_NODE)
    close(api, SECOND_NODE)
    document, messages = commands.run()
    assert not was_hit(document)
    assert sorted(commands.cached_on()) == sorted(NODES)
    what = f"the cluster chose {NODE}, and the environment is on {SECOND_NODE}"
    assert what in messages and f"kubectl uncordon {SECOND_NODE}" in messages
    (note,) = [note for note in document["notes"] if note["text"] == what]
    assert note["hint"] == f"{SECOND_NODE} is cordoned: kubectl uncordon {SECOND_NODE}"


def test_a_job_on_a_lost_node_is_reported_and_continues_when_the_node_is_back(
    stoke: Stoke,
    start: Callable[..., subprocess.Popen[bytes]],
    layout: Layout,
    api: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "STOKE_ARGO__NODE_SELECTOR", json.dumps({"kubernetes.io/hostname": SECOND_NODE})
    )
    gate = Gate(layout.host)
    running = start("run", "-c", f"print('began', flush=True)\n{gate.code}print('done')")
    said = Said(running)
    gate.wait()
    until(lambda: only_job().state == "running", "the first line of its log")
    until(lambda: runs(api, only_job().id), "the node's report of the start")
    os.kill(kubelet_of(layout), signal.SIGSTOP)
    lost = f"the cluster has lost contact with its node {SECOND_NODE}"

    def shown() -> dict[str, Any]:
        return dict(json.loads(stoke("show", "--json", only_job().id).stdout))

    said.until(lost.encode(), LOST_SECONDS)
    said.until(b"kubectl describe node")
    assert shown()["state"] == "running" and lost in shown()["reason"]
    os.kill(kubelet_of(layout), signal.SIGCONT)
    until(lambda: lost not in str(shown()["reason"]), "contact with the node", LOST_SECONDS)
    gate.open()
    assert running.wait(60) == 0
    gate.close()
    assert running.stdout is not None and running.stdout.read() == b"began\ndone\n"
    assert only_job().state == "succeeded"

"""Logs and watches of a real API server and a real node: what the scripted server takes for granted.

The numbers in the names are those of the follower's and the watcher's contracts.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backends.argo.cache_register import REMEMBERED, CacheRegister
from backends.argo.cluster import ApiError, Cluster, pods_path, resource_path
from backends.argo.names import register_name
from backends.argo.pod_log import PodLog
from backends.argo.volumes import ArgoVolumes
from backends.argo.watch import Watch
from stoke.backend.api import EngineState, EngineStatus, Frame, LogDeniedError
from stoke.config.model import ArgoConfig
from stoke.errors import EngineError
from stoke.logs.follower import Follower
from stoke.logs.spool import NOTE
from tests.conftest import TestCluster
from tests.cutting_proxy import CuttingProxy
from tests.scripted import ScriptedBackend
from tests.spools import lines_in

Pod = dict[str, Any]


@pytest.fixture
def real(real_cluster: TestCluster) -> Iterator[Cluster]:
    connection = Cluster(context=None, namespace=None, kubeconfig=real_cluster.kubeconfig)
    yield connection
    connection.close()


@pytest.fixture
def start(real: Cluster, real_cluster: TestCluster) -> Iterator[Callable[..., str]]:
    """Starts a pod that runs Python code, and gives its name; it is gone after the test."""
    names: list[str] = []

    def started(code: str, **container: Any) -> str:
        name = f"test-{secrets.token_hex(4)}"
        command = ["python3", "-u", "-c", code]
        body = {
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "main",
                        "image": real_cluster.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": command,
                        **container,
                    }
                ],
            },
        }
        real.request("POST", pods_path(real.namespace), body=body)
        names.append(name)
        return name

    yield started
    for name in names:
        with suppress(ApiError):
            real.request(
                "DELETE", pods_path(real.namespace, name), query={"gracePeriodSeconds": "0"}
            )


def has(pod: Pod, *states: str) -> bool:
    statuses = pod["status"].get("containerStatuses") or ()
    return any(state in one.get("state", {}) for one in statuses for state in states)


def wait_for(real: Cluster, name: str, *states: str) -> None:
    """Until the container is in one of these states."""
    query = {"fieldSelector": f"metadata.name={name}"}
    watch = Watch(real, pods_path(real.namespace), query=query)
    for changes in watch:
        if any(has(one.object, *states) for one in changes):
            break
    watch.close()


def read(real: Cluster, name: str, since: int = 0) -> list[Frame]:
    return [frame for batch in PodLog(real, name, "main", since, follow=False) for frame in batch]


def test_c12_c13_c14_the_output_of_a_container_is_read_exactly(
    real: Cluster, start: Callable[..., str]
) -> None:
    """All but a \\r before a newline, which the container runtime itself leaves out."""
    output = b"".join(
        [
            b"plain\n\n \n",
            b"\xff\xfe\x00 bin\ra\r\x1b[31m\n",
            *(b"%d" % (size % 10) * size + b"\n" for size in (16383, 16384, 16385, 50_000)),
            b"no end",
        ]
    )
    name = start(f"import os; os.write(1, {output[:100]!r}); os.write(1, {output[100:]!r})")
    wait_for(real, name, "terminated")
    frames = read(real, name)
    assert b"".join(frame.data for frame in frames) == output
    for frame in (frames[0], frames[len(frames) // 2], frames[-1]):
        assert read(real, name, frame.time) == [one for one in frames if one.time >= frame.time]
        assert read(real, name, frame.time + 1) == [one for one in frames if one.time > frame.time]


def test_c05_the_rest_of_a_log_is_the_same_by_its_last_lines_and_from_its_start(
    real: Cluster, start: Callable[..., str]
) -> None:
    name = start("for number in range(4000): print('x' * 40_000 if number % 100 == 0 else number)")
    wait_for(real, name, "terminated")
    frames = read(real, name)
    for frame in (frames[-1], frames[-500], frames[-2000], frames[10]):
        assert read(real, name, frame.time) == [one for one in frames if one.time >= frame.time]


def test_c16_a_container_that_cannot_start_has_no_log(
    real: Cluster, start: Callable[..., str]
) -> None:
    name = start("pass", image="stoke-test/does-not-exist:1", imagePullPolicy="Never")
    wait_for(real, name, "waiting")
    with pytest.raises(ApiError, match=r"waiting to start|ErrImageNeverPull") as caught:
        read(real, name)
    assert caught.value.status == 400


def test_c03_a_pod_that_is_not_there(real: Cluster) -> None:
    with pytest.raises(ApiError, match="not found") as caught:
        read(real, "test-not-there")
    assert (caught.value.status, caught.value.reason) == (404, "NotFound")


def test_c23_a_silent_log_can_be_closed(real: Cluster, start: Callable[..., str]) -> None:
    name = start("import time; time.sleep(600)")
    wait_for(real, name, "running")
    log = PodLog(real, name, "main", 0, follow=True)
    reader = threading.Thread(target=list, args=(log,))
    reader.start()
    log.close()
    reader.join(20)
    assert not reader.is_alive()


def test_w03_a_right_that_is_missing_is_named() -> None:
    kubeconfig = os.environ.get("STOKE_TEST_KUBECONFIG_NOBODY")
    if kubeconfig is None:
        pytest.skip("no kubeconfig of a user without rights")
    nobody = Cluster(context=None, namespace=None, kubeconfig=kubeconfig)
    with pytest.raises(LogDeniedError, match="you may not get pods/log"):
        read(nobody, "test-not-there")
    with pytest.raises(ApiError, match="you may not list pods"):
        list(Watch(nobody, pods_path(nobody.namespace)))
    nobody.close()


def test_a_deleted_node_has_no_caches(
    real: Cluster, cluster_cleanup: Callable[[str], None]
) -> None:
    scope = f"test-{secrets.token_hex(4)}"
    cluster_cleanup(scope)
    there, *_ = real.request("GET", "/api/v1/nodes")["items"]
    volumes = ArgoVolumes(real, ArgoConfig())
    for node in (there["metadata"]["name"], "taken-away"):
        volumes.note(scope, node, ("python",), "request")
    found = [one.node for one in volumes.found() if one.scope == scope]
    assert found == [there["metadata"]["name"]]
    register = resource_path("v1", real.namespace, "configmaps", register_name(scope))
    assert set(real.request("GET", register)["data"]) == set(found)


def test_the_register_has_room_for_many_nodes_and_environments(
    real: Cluster, cluster_cleanup: Callable[[str], None]
) -> None:
    scope = f"test-{secrets.token_hex(4)}"
    cluster_cleanup(scope)
    register = CacheRegister(real, ArgoConfig())
    nodes = [f"{number:04}-{'n' * 58}" for number in range(400)]
    times = {secrets.token_hex(8): 1_700_000_000 + number for number in range(REMEMBERED)}
    full = {"kinds": ["python", "system"], "requests": times}
    for first in range(0, len(nodes), 20):
        register.note(scope, nodes[first], ("python",), "a" * 32)
        register._write(scope, dict.fromkeys(nodes[first : first + 20], full))
    register.note(scope, "one-more", ("python",), "b" * 32)
    assert list(register.last_use(scope, "b" * 32)) == ["one-more"]
    entries = register.of(scope)
    assert set(entries) == {*nodes, "one-more"}
    kept = {tuple(entry["requests"]) for node, entry in entries.items() if node != "one-more"}
    (kept_of_each,) = kept
    assert set(kept_of_each) == set(sorted(times, key=lambda one: -times[one])[: len(kept_of_each)])


def test_w01_w02_changes_are_seen(real: Cluster) -> None:
    path = resource_path("v1", real.namespace, "configmaps")
    run = secrets.token_hex(4)
    watch = Watch(real, path, query={"labelSelector": f"test-run={run}"}, metadata=True)
    batches = iter(watch)
    assert next(batches) == []
    body = {"metadata": {"name": f"test-{run}", "labels": {"test-run": run}}, "data": {"a": "b"}}
    real.request("POST", path, body=body)
    own = f"{path}/test-{run}"
    merge = "application/merge-patch+json"
    real.request("PATCH", own, body={"data": {"a": "c"}}, content_type=merge)
    real.request("DELETE", own)
    seen = []
    for batch in batches:
        seen += batch
        if seen and seen[-1].kind == "DELETED":
            break
    watch.close()
    assert [one.kind for one in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert all("data" not in one.object for one in seen)
    assert watch._objects == {}


# --- a connection that is cut --------------------------------------------------------------------


class OnePod(ScriptedBackend):
    """The log of one pod, and its real state."""

    def __init__(self, through: Cluster, real: Cluster, name: str) -> None:
        super().__init__()
        self.through, self.real, self.pod = through, real, name

    def logs(self, job_id: str, since: int, follow: bool) -> PodLog:  # type: ignore[override]
        return PodLog(self.through, self.pod, "main", since, follow)

    def inspect(self, job_id: str) -> EngineState:
        pod = self.real.request("GET", pods_path(self.real.namespace, self.pod))
        return (
            EngineState(EngineStatus.EXITED, 0)
            if has(pod, "terminated")
            else EngineState(EngineStatus.RUNNING)
        )


def test_c01_exactly_once_through_a_connection_that_is_cut_and_cut(
    real: Cluster, real_cluster: TestCluster, start: Callable[..., str], tmp_path: Path
) -> None:
    count = 20_000
    name = start(
        f"import time\nfor number in range({count}):\n"
        "    print('%099d' % number)\n"
        "    if number % 100 == 0: time.sleep(0.02)"
    )
    wait_for(real, name, "running", "terminated")
    choose = random.Random(20)
    proxy = CuttingProxy(real.server, lambda: choose.randint(300_000, 1_500_000))
    path = tmp_path / "kubeconfig"
    path.write_text(proxy.kubeconfig(real_cluster.kubeconfig))
    through = Cluster(context=None, namespace=real.namespace, kubeconfig=str(path))
    trouble: list[EngineError] = []
    follower = Follower(
        OnePod(through, real, name),
        "job-aaaaaa",
        "",  # no runner's words begin this log
        tmp_path / "job",
        lambda event: None,
        lambda: None,
        trouble.append,
    )
    follower.run()
    through.close()
    proxy.close()
    numbers = [int(line.text) for line in lines_in(tmp_path / "job") if line.stream != NOTE]
    assert proxy.cuts > 0
    assert numbers == list(range(count))
    assert follower.spool.gaps == 0

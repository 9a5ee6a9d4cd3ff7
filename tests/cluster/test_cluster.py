"""The cluster of the tests is what it says: real pods, logs, claims and rights, a stand-in that acts
as Argo's controller was measured to, and nothing left behind when it goes."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import urllib3

from tests.cluster import cluster
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.layout import NAMESPACE, Layout
from tests.cluster.manifests import EXECUTOR_ACCOUNT

pytestmark = pytest.mark.cluster

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
WORKFLOWS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows"
IMAGE = os.environ.get("STOKE_TEST_IMAGE_BARE", "stoke-test/bare:latest")
SECONDS = 120
T = TypeVar("T")


@pytest.fixture(scope="module")
def running() -> Layout:
    """A cluster of this package that runs."""
    folder = os.environ.get("STOKE_TEST_CLUSTER_DIR")
    if not folder:
        pytest.skip("no cluster of our own: python -m tests.cluster up DIR")
    layout = cluster.found(Path(folder))
    assert layout is not None
    return layout


@pytest.fixture(scope="module")
def admin(running: Layout) -> Api:
    return Api(running.kubeconfig("admin"))


@pytest.fixture
def name(admin: Api) -> Iterator[str]:
    """Of a pod, a claim or a workflow; what has it is gone after the test."""
    name = f"t-{secrets.token_hex(4)}"
    yield name
    for path in (WORKFLOWS, PODS, CLAIMS):
        try:
            admin.delete(f"{path}/{name}", {"propagationPolicy": "Background"})
        except ApiError as error:
            assert error.status == 404


def eventually(ask: Callable[[], T | None]) -> T:
    """The first answer that is not empty. An API server that is just restarting gives empty ones."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            answer = ask()
        except urllib3.exceptions.HTTPError:
            answer = None
        except ApiError as error:
            assert error.status >= 500, error
            answer = None
        if answer:
            return answer
        assert time.monotonic() < until, "it never came"
        time.sleep(0.1)


def pod(code: str, **spec: Any) -> Object:
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "-c", code],
        **spec.pop("container", {}),
    }
    return {"restartPolicy": "Never", "containers": [container], **spec}


def workflow(code: str, account: str = EXECUTOR_ACCOUNT, **spec: Any) -> Object:
    container = pod(code)["containers"][0]
    template = {"name": "main", "container": container}
    return {
        "entrypoint": "main",
        "serviceAccountName": account,
        "templates": [template],
        **spec,
    }


def submit(admin: Api, name: str, spec: Object) -> None:
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": spec}
    admin.create(WORKFLOWS, {**body, "metadata": {"name": name}})


def ended(admin: Api, name: str) -> Object:
    """The workflow, once its controller says that it is over."""

    def asked() -> Object | None:
        found = admin.get(f"{WORKFLOWS}/{name}")
        labels = found["metadata"].get("labels", {})
        return found if labels.get("workflows.argoproj.io/completed") == "true" else None

    return eventually(asked)


def log(admin: Api, name: str) -> str:
    return admin.text(f"{PODS}/{name}/log", {"container": "main"})


def says(admin: Api, name: str, text: str) -> None:
    def asked() -> bool:
        try:
            return text in log(admin, name)
        except ApiError as error:
            assert error.status in (400, 404)  # not there, or not started
            return False

    eventually(asked)


# ---- Kubernetes ----


def test_a_pods_log_is_followed_while_it_runs(running: Layout, admin: Api, name: str) -> None:
    code = (
        "import os, time\nprint('first')\n"
        f"while not os.path.exists('/tmp/shared/{name}'): time.sleep(0.05)\nprint('second')"
    )
    volume = {"name": "shared", "hostPath": {"path": "/tmp"}}
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/tmp/shared"}]}
    spec = pod(code, container=mount, volumes=[volume])
    admin.create(PODS, {"metadata": {"name": name}, "spec": spec})
    says(admin, name, "first")
    assert "second" not in log(admin, name)
    running.on_node(f"/tmp/{name}").touch()
    assert admin.text(f"{PODS}/{name}/log", {"follow": "true"}) == "first\nsecond\n"


def test_pods_reach_the_machine_and_the_service(running: Layout, admin: Api, name: str) -> None:
    code = (
        "import os, socket\n"
        "socket.create_connection((os.environ['KUBERNETES_SERVICE_HOST'], 443)).close()\n"
        "try: socket.create_connection((os.environ['HOST'], 9)).close()\n"
        "except ConnectionRefusedError: print('reached both')"
    )
    spec = pod(code, container={"env": [{"name": "HOST", "value": running.host}]})
    admin.create(PODS, {"metadata": {"name": name}, "spec": spec})
    says(admin, name, "reached both")


def test_memory_is_limited(admin: Api, name: str) -> None:
    limits = {"resources": {"limits": {"memory": "50Mi"}}}
    spec = pod("b = []\nwhile True: b.append(bytearray(10**6))", container=limits)
    admin.create(PODS, {"metadata": {"name": name}, "spec": spec})

    def reason() -> str | None:
        status = admin.get(f"{PODS}/{name}")["status"]
        for container in status.get("containerStatuses", []):
            if "terminated" in container["state"]:
                return str(container["state"]["terminated"]["reason"])
        return None

    assert eventually(reason) == "OOMKilled"


def test_a_claim_is_a_folder_of_the_node(admin: Api, name: str) -> None:
    resources = {"requests": {"storage": "1Gi"}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    admin.create(CLAIMS, {"metadata": {"name": name}, "spec": claim})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    code = "open('/data/x', 'w').write('y'); print(open('/data/x').read())"
    spec = pod(code, container=mount, volumes=[volume])
    admin.create(PODS, {"metadata": {"name": name}, "spec": spec})
    says(admin, name, "y")


def test_rights_are_asked_for(running: Layout, admin: Api, name: str) -> None:
    user, nobody = Api(running.kubeconfig("user")), Api(running.kubeconfig("nobody"))
    assert user.get(PODS)["items"] is not None
    for api, path in ((nobody, PODS), (user, "/api/v1/nodes"), (user, "/api/v1/secrets")):
        with pytest.raises(ApiError) as caught:
            api.get(path)
        assert caught.value.status == 403
    with pytest.raises(ApiError) as caught:
        user.delete(f"{PODS}/{name}")
    assert caught.value.status == 403


# ---- the stand-in ----


def test_a_workflow_runs_its_pod(admin: Api, name: str) -> None:
    submit(admin, name, workflow("print('{{workflow.name}} {{other}}')"))
    found = ended(admin, name)
    status = found["status"]
    assert found["metadata"]["labels"]["workflows.argoproj.io/phase"] == "Succeeded"
    assert status["phase"] == status["nodes"][name]["phase"] == "Succeeded"
    assert status["nodes"][name]["outputs"]["exitCode"] == "0"
    assert "message" not in status
    made = admin.get(f"{PODS}/{name}")
    assert made["metadata"]["labels"]["workflows.argoproj.io/workflow"] == name
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["init"]
    assert [one["name"] for one in made["spec"]["containers"]] == ["wait", "main"]
    lines = log(admin, name).splitlines()
    assert f"{name} {{{{other}}}}" in lines
    assert any('msg="sub-process exited" argo=true error=<nil>' in line for line in lines)


def test_a_failed_job_fails_its_workflow(admin: Api, name: str) -> None:
    submit(admin, name, workflow("raise SystemExit(2)"))
    status = ended(admin, name)["status"]
    assert (status["phase"], status["message"]) == ("Failed", "main: Error (exit code 2)")
    assert log(admin, name).endswith("Error: exit status 2\n")


def test_an_unknown_tag_is_refused(admin: Api, name: str) -> None:
    submit(admin, name, workflow("print('{{workflow.nothing}}')"))
    status = ended(admin, name)["status"]
    message = "invalid spec: templates.main: failed to resolve {{workflow.nothing}}"
    assert (status["phase"], status["message"]) == ("Failed", message)


def test_a_service_account_without_the_right_to_report(admin: Api, name: str) -> None:
    submit(admin, name, workflow("print('done')", account="default"))
    status = ended(admin, name)["status"]
    assert status["phase"] == "Error"
    assert status["message"].startswith("wait: Error (exit code 64): workflowtaskresults")
    assert "done" in log(admin, name)


def test_shutdown_reaches_the_job(admin: Api, name: str) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: sys.exit('told'))\nprint('up')\ntime.sleep(600)"
    )
    submit(admin, name, workflow(code))
    says(admin, name, "up")
    admin.merge(f"{WORKFLOWS}/{name}", {"spec": {"shutdown": "Terminate"}})
    status = ended(admin, name)["status"]
    assert (status["phase"], status["message"]) == ("Failed", "Stopped with strategy 'Terminate'")
    says(admin, name, "told")


def test_a_deleted_pod_is_an_error(admin: Api, name: str) -> None:
    submit(admin, name, workflow("import time; print('up'); time.sleep(600)"))
    says(admin, name, "up")

    def seen() -> bool:
        nodes = admin.get(f"{WORKFLOWS}/{name}")["status"].get("nodes", {})
        return bool(nodes[name]["phase"] == "Running")

    eventually(seen)
    admin.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 1})
    status = ended(admin, name)["status"]
    assert (status["phase"], status["message"]) == ("Error", "pod deleted")


def test_a_mutex_lets_one_workflow_through_at_a_time(admin: Api, name: str) -> None:
    mutex: dict[str, Any] = {"synchronization": {"mutexes": [{"name": name}]}}
    second = f"{name}-second"
    submit(admin, name, workflow("import time; time.sleep(2)", **mutex))
    eventually(lambda: admin.get(f"{WORKFLOWS}/{name}").get("status", {}).get("nodes"))
    submit(admin, second, workflow("pass", **mutex))
    try:
        waiting = eventually(lambda: admin.get(f"{WORKFLOWS}/{second}").get("status"))
        assert waiting["phase"] == "Pending"
        assert waiting["message"].startswith(f"Waiting for {NAMESPACE}/Mutex/{name} lock")
        first = ended(admin, name)["status"]
        assert ended(admin, second)["status"]["startedAt"] >= first["finishedAt"]
    finally:
        admin.delete(f"{WORKFLOWS}/{second}")


# ---- starting and stopping ----


def test_a_second_start_finds_the_running_cluster(running: Layout) -> None:
    before = cluster.processes(running)
    assert cluster.up(running.folder, [], "standin") == running.env.read_text()
    assert cluster.processes(running) == before


def traces(folder: Path, layout: Layout) -> list[str]:
    """What of a cluster is still on this machine."""
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (["iptables-save"], ["ip", "-o", "link"], ["mount"], ["ps", "-eo", "args"])
    ]
    own = (f"{layout.interface} ", f"{layout.interface}@", layout.line, str(folder))
    lines = [line for one in said for line in one.splitlines() if any(part in line for part in own)]
    groups = Path("/sys/fs/cgroup").glob(f"**/{layout.cgroup}*")
    return lines + [str(group) for group in groups] + ([str(folder)] if folder.exists() else [])


def test_a_killed_api_server_comes_back_and_nothing_is_left_of_a_cluster(
    running: Layout, tmp_path: Path
) -> None:
    """On a cluster of its own: other tests use the one that runs at the same time."""
    folder = tmp_path / "second"
    try:
        cluster.up(folder, [IMAGE], "standin", second=[])
        layout = cluster.found(folder)
        assert layout is not None
        assert set(cluster.processes(layout.second)) == {"containerd", "kubelet"}
        assert layout.number != running.number
        api = Api(layout.kubeconfig("admin"))
        submit(api, "left", workflow("import time; print('up'); time.sleep(600)"))
        says(api, "left", "up")
        before = cluster.processes(layout)["kube-apiserver"]
        before.end()
        assert eventually(lambda: api.text("/readyz")) == "ok"
        assert cluster.processes(layout)["kube-apiserver"] != before
        assert traces(folder, layout)
    finally:
        cluster.down(folder)
    assert traces(folder, layout) == []
    cluster.down(folder)  # there is nothing, and nothing to complain about


def test_a_program_that_does_not_start_is_named_with_the_end_of_its_log(
    running: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for program in Path(os.environ["STOKE_TEST_KUBERNETES"]).iterdir():
        (broken / program.name).symlink_to(program)
    server = broken / "kube-apiserver"
    server.unlink()
    server.write_text("#!/bin/sh\necho no such luck\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.setenv("STOKE_TEST_KUBERNETES", str(broken))
    folder = tmp_path / "second"
    with pytest.raises(cluster.ClusterError) as caught:
        cluster.up(folder, [], "none")
    assert str(caught.value).startswith("kube-apiserver ended with code 3\n")
    assert "no such luck" in str(caught.value)
    assert not folder.exists()


def test_a_folder_that_is_not_a_clusters_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    for verb in (cluster.down, lambda folder: cluster.up(folder, [], "none")):
        with pytest.raises(cluster.ClusterError, match="is no cluster's folder"):
            verb(tmp_path)
    assert (tmp_path / "mine").exists()

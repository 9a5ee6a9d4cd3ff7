"""Bad days of a real cluster while a job waits or runs there: the commands name them, and get over
those that end."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from backends.argo import rights
from backends.argo.cluster import ApiError, Cluster, pods_path, resource_path, workflows_path
from backends.argo.rights import Right
from tests.cli.conftest import Stoke, only_job
from tests.cluster import cluster as own_cluster
from tests.cluster.layout import Layout
from tests.conftest import TestCluster
from tests.hints import is_hint, refused
from tests.lab import until
from tests.network import Authority

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("scope")]

Start = Callable[..., "subprocess.Popen[bytes]"]
RBAC = "rbac.authorization.k8s.io/v1"


class Gate:
    """Holds a job until the test releases it: its code connects, and continues once that is closed."""

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server(("0.0.0.0", 0))
        self._listener.settimeout(60)
        port = self._listener.getsockname()[1]
        self.code = f"import socket; socket.create_connection(({host!r}, {port})).recv(1)\n"
        self._job: socket.socket | None = None

    def wait(self) -> None:
        """Until the job is there."""
        self._job, _ = self._listener.accept()

    def open(self) -> None:
        assert self._job is not None
        self._job.close()

    def close(self) -> None:
        self._listener.close()
        if self._job is not None:
            self._job.close()


@pytest.fixture
def gate(real_cluster: TestCluster) -> Iterator[Gate]:
    gate = Gate(real_cluster.host)
    yield gate
    gate.close()


class Person:
    """A user with a kubeconfig of their own, whose rights the test grants and revokes."""

    def __init__(self, api: Cluster, real_cluster: TestCluster, folder: Path) -> None:
        self._api = api
        self._config = json.loads(Path(real_cluster.kubeconfig).read_text())
        self._name = f"test-{secrets.token_hex(4)}"
        self.kubeconfig = folder / "person.kubeconfig"
        self._make("serviceaccounts", "v1", {})
        self.log_in()

    def log_in(self) -> None:
        path = resource_path("v1", self._api.namespace, "serviceaccounts", self._name, "token")
        answer = self._api.request("POST", path, body={"spec": {}})
        self._config["users"][0]["user"] = {"token": answer["status"]["token"]}
        self.kubeconfig.write_text(json.dumps(self._config))

    def give(self, given: tuple[Right, ...]) -> None:
        subject = {"kind": "ServiceAccount", "name": self._name, "namespace": self._api.namespace}
        role = {"apiGroup": RBAC.partition("/")[0], "kind": "Role", "name": self._name}
        self._make("roles", RBAC, {"rules": rights.rules(given)})
        self._make("rolebindings", RBAC, {"subjects": [subject], "roleRef": role})

    def take(self) -> None:
        for resource in ("rolebindings", "roles"):
            self._remove(resource, RBAC)

    def forget(self) -> None:
        """The token is no good any more, nor will it be."""
        self._remove("serviceaccounts", "v1")
        self._make("serviceaccounts", "v1", {})

    def close(self) -> None:
        self.take()
        self._remove("serviceaccounts", "v1")

    def _make(self, resource: str, api: str, body: dict[str, Any]) -> None:
        path = resource_path(api, self._api.namespace, resource)
        self._api.request("POST", path, body={"metadata": {"name": self._name}, **body})

    def _remove(self, resource: str, api: str) -> None:
        path = resource_path(api, self._api.namespace, resource, self._name)
        with suppress(ApiError):
            self._api.request("DELETE", path)


@pytest.fixture
def person(
    api: Cluster, real_cluster: TestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Person]:
    """The commands of the test are theirs."""
    person = Person(api, real_cluster, tmp_path)
    monkeypatch.setenv("STOKE_ARGO__KUBECONFIG", str(person.kubeconfig))
    yield person
    person.close()


class Said:
    """What a running command has written to stderr so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        self._file = process.stderr
        self.text = b""

    def until(self, text: bytes, seconds: float = 60) -> None:
        def came() -> bool:
            self.text += self._file.read() or b""
            return text in self.text

        until(came, repr(text), seconds)


# --- a job that cannot start ---------------------------------------------------------------------


def test_an_unknown_image_is_named_and_the_job_given_up(
    stoke: Stoke, start: Start, real_cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = "stoke-test/nobody-has-this:1"
    running = start("run", "--image", image, "-c", "print(1)")
    said = Said(running)
    said.until(f"waiting: the node cannot pull the image {image}".encode())
    assert image.encode() in stoke("show", only_job().id).stdout
    # The next command after its time limit ends the job, and a follower sees that end.
    monkeypatch.setenv("STOKE_ARGO__START_TIMEOUT", "1s")
    until(lambda: only_job().state == "failed" or stoke("jobs").returncode != 0, "its end")
    said.until(b"error: given up, because the node cannot pull the image")
    said.until(b"argo.image_pull_secrets\n")
    assert running.wait(60) == 125
    (hint,) = re.findall(r"hint: (.*)", said.text.decode())
    is_hint(
        hint,
        "name one that the cluster can pull: --image IMAGE; for a private registry set "
        "argo.image_pull_secrets",
    )
    monkeypatch.delenv("STOKE_ARGO__START_TIMEOUT")
    assert stoke("run", "-q", "--image", real_cluster.image, "-c", "print(1)").stdout == b"1\n"


def test_a_job_whose_secret_is_missing_begins_once_it_is_created(
    start: Start, api: Cluster
) -> None:
    name = f"test-{secrets.token_hex(4)}"
    code = "import os; print(os.environ['TOKEN'][::-1])"
    running = start("run", "-c", code, "--secret", f"TOKEN=secret:{name}/token")
    said = Said(running)
    said.until(b"--secret NAME=secret:NAME/KEY\n")
    (hint,) = re.findall(r"waiting: .*; (create .*)", said.text.decode())
    is_hint(hint, "create the secret, or refer to an existing one: --secret NAME=secret:NAME/KEY")
    path = resource_path("v1", api.namespace, "secrets")
    body = {"metadata": {"name": name}, "stringData": {"token": "hunter2"}}
    api.request("POST", path, body={"apiVersion": "v1", "kind": "Secret", **body})
    try:
        assert running.wait(120) == 0
        assert running.stdout is not None and running.stdout.read() == b"2retnuh\n"
    finally:
        api.request("DELETE", f"{path}/{name}")


def test_a_kubeconfig_for_another_cluster_gets_the_right_authority(
    real_cluster: TestCluster, tmp_path: Path
) -> None:
    config = yaml.safe_load(Path(real_cluster.kubeconfig).read_text())
    for one in config["clusters"]:
        one["cluster"].pop("certificate-authority-data", None)
        one["cluster"]["certificate-authority"] = str(Authority(tmp_path / "other", "::1").file)
    wrong = tmp_path / "kubeconfig"
    wrong.write_text(yaml.safe_dump(config))

    def ask(kubeconfig: Path | str) -> object:
        with closing(Cluster(context=None, namespace=None, kubeconfig=str(kubeconfig))) as cluster:
            return cluster.request("GET", "/version")

    refused(
        lambda: ask(wrong), "set the kubeconfig's certificate-authority to that of this cluster"
    )
    assert ask(real_cluster.kubeconfig)


def test_a_job_that_no_node_has_room_for_waits_and_says_why(stoke: Stoke) -> None:
    job_id = stoke("run", "--detach", "--memory", "900g", "-c", "print(1)").stdout.decode().strip()
    until(lambda: b"Insufficient memory" in stoke("show", job_id).stdout, "why it waits")
    assert b"--memory; or wait for free resources" in stoke("show", job_id).stdout
    assert only_job().state == "starting"
    assert stoke("stop", job_id).returncode == 0
    assert only_job().state == "stopped"


def test_a_quota_is_named_and_waited_for(stoke: Stoke, api: Cluster) -> None:
    namespace = f"stoke-quota-{secrets.token_hex(4)}"
    quotas = resource_path("v1", namespace, "resourcequotas")
    pods = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}}
    try:
        done = stoke("setup", "argo", "--namespace", namespace, "--apply", "--yes")
        assert done.returncode == 0, done.stderr
        api.request("POST", quotas, body=pods)
        status = f"{quotas}/small"
        until(lambda: "hard" in api.request("GET", status).get("status", {}), "the quota")
        words = ["run", "--detach", "--namespace", namespace, "-c", "print('room')"]
        job_id = stoke(*words).stdout.decode().strip()
        until(lambda: b"exceeded quota" in stoke("show", job_id).stdout, "why it waits")
        api.request("DELETE", status)
        until(lambda: stoke("logs", job_id).stdout == b"room\n", "its turn")
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{namespace}")


# --- rights and credentials ----------------------------------------------------------------------


def test_rights_that_are_taken_in_mid_run_are_named_and_waited_for(
    start: Start, person: Person, gate: Gate
) -> None:
    person.give(rights.USER)
    running = start("run", "-c", f"{gate.code}print('ended')")
    said = Said(running)
    gate.wait()
    person.take()
    gate.open()
    said.until(b"you may not get workflows.argoproj.io; retrying")
    person.give(rights.USER)
    assert running.wait(60) == 0
    assert running.stdout is not None and running.stdout.read() == b"ended\n"


def test_a_new_login_during_a_run_is_used(start: Start, person: Person, gate: Gate) -> None:
    person.give(rights.USER)
    running = start("run", "-c", f"{gate.code}print('ended')")
    said = Said(running)
    gate.wait()
    person.forget()
    # The server remembers for some seconds whom it knew.
    lost = Cluster(context=None, namespace=None, kubeconfig=str(person.kubeconfig))

    def is_unknown() -> bool:
        try:
            lost.request("GET", workflows_path(lost.namespace))
        except ApiError as error:
            return error.status == 401
        return False

    until(is_unknown, "the end of the token")
    lost.close()
    gate.open()
    said.until(b"rejected your credentials")
    person.log_in()
    assert running.wait(60) == 0
    assert running.stdout is not None and running.stdout.read() == b"ended\n"


def test_stopping_without_the_right_to_delete_pods_reports_a_delay(
    stoke: Stoke, start: Start, person: Person, gate: Gate
) -> None:
    person.give(tuple(right for right in rights.USER if "delete" not in right.verbs or right.group))
    job_id = stoke("run", "--detach", "-c", gate.code).stdout.decode().strip()
    gate.wait()
    done = stoke("stop", job_id)
    assert done.returncode == 0 and b"may take 10 seconds" in done.stderr
    assert only_job().state == "stopped"


# --- another user, and the cluster itself --------------------------------------------------------


def test_a_deleted_workflow_ends_the_job(
    stoke: Stoke, start: Start, api: Cluster, gate: Gate
) -> None:
    running = start("run", "-c", f"print('began', flush=True)\n{gate.code}")
    gate.wait()
    until(lambda: stoke("logs", only_job().id).stdout == b"began\n", "its first line")
    api.request("DELETE", workflows_path(api.namespace, only_job().id))
    output, said = running.communicate(timeout=60)
    assert output == b"began\n"
    assert running.returncode != 0 and b"it was deleted" in said


def test_a_node_that_is_emptied_is_named(
    stoke: Stoke, start: Start, api: Cluster, gate: Gate
) -> None:
    running = start("run", "-c", f"print('began', flush=True)\n{gate.code}")
    gate.wait()
    until(lambda: stoke("logs", only_job().id).stdout == b"began\n", "its first line")
    name = only_job().id
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    # The answer is a Status, not the pod.
    api.request("POST", pods_path(api.namespace, name, "eviction"), body=eviction, shape={})
    output, said = running.communicate(timeout=60)
    assert (running.returncode, output) == (143, b"began\n")
    assert b"its node is being drained" in said and b"stoke rerun" in said
    assert only_job().state == "failed"


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """A cluster of its own, which the commands of the test know: the other one is in use meanwhile."""
    if not os.environ.get("STOKE_TEST_CLUSTER_DIR"):
        pytest.skip("no cluster of our own, whose API server could be ended")
    image = os.environ.get("STOKE_TEST_IMAGE_BARE", "stoke-test/bare:latest")
    folder = tmp_path / "second"
    try:
        own_cluster.up(folder, [image], "standin")
        layout = own_cluster.found(folder)
        assert layout is not None
        monkeypatch.setenv("STOKE_ARGO__KUBECONFIG", str(layout.kubeconfig("admin")))
        monkeypatch.setenv("STOKE_ARGO__IMAGE", image)
        yield layout
    finally:
        own_cluster.down(folder)


def test_the_api_server_is_started_again_while_a_log_is_followed(
    stoke: Stoke, start: Start, second: Layout
) -> None:
    gate = Gate(second.host)
    count = "for number in range({}, {}): print(number, flush=True)\n"
    code = count.format(0, 500) + gate.code + count.format(500, 1000)
    job_id = stoke("run", "--detach", "-c", code).stdout.decode().strip()
    following = start("logs", "-f", job_id)
    gate.wait()
    until(lambda: b"499" in stoke("logs", job_id).stdout, "its first half")
    own_cluster.processes(second)["kube-apiserver"].end()
    gate.open()
    output, said = following.communicate(timeout=90)
    gate.close()
    assert following.returncode == 0, said
    assert output.split() == [b"%d" % number for number in range(1000)]
    assert b"retrying" in said
    assert only_job().state == "succeeded"

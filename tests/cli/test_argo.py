"""The commands on a real cluster: what differs there from jobs on this machine."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from backends.argo.cluster import ApiError, Cluster, resource_path, workflows_path
from tests.cli.conftest import Stoke, only_job
from tests.conftest import TestCluster
from tests.lab import until
from tests.package_index import PackageIndex

pytestmark = pytest.mark.cluster


def is_gone(api: Cluster, resource: str, name: str) -> bool:
    try:
        api.request("GET", resource_path("v1", api.namespace, resource, name))
    except ApiError as error:
        return error.status == 404
    return False


@pytest.mark.usefixtures("scope")
def test_streams_exit_code_and_document(stoke: Stoke) -> None:
    code = "import os, sys; os.write(1, b'\\xff out\\r\\n'); os.write(2, b'err'); sys.exit(3)"
    done = stoke("run", "-q", "--memory", "256m", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"\xff out\r\n", b"err")
    job_id = only_job().id
    document = json.loads(stoke("show", "--json", job_id).stdout)
    assert (document["backend"], document["spec"]["memory"]) == ("argo", 256 * 1024**2)
    phases = [phase["name"] for phase in document["phases"]]
    assert phases[:2] == ["queue", "schedule"] and phases[-1] == "run"
    # Argo's own lines are no part of the output, and not lost either.
    assert b"argo=true" in stoke("logs", "--engine", job_id).stdout


@pytest.mark.usefixtures("scope")
def test_a_long_bundle_has_its_own_object_which_is_deleted_with_the_workflow(
    stoke: Stoke, api: Cluster, tmp_path: Path
) -> None:
    noise = random.Random(7).randbytes(150_000).hex()
    file = tmp_path / "long.py"
    file.write_text(f"import os; print(len({noise!r}), os.environ['TOKEN'][::-1])")
    done = stoke("run", "-q", "--secret", "TOKEN=env:HELD", str(file), env={"HELD": "hunter2"})
    assert (done.returncode, done.stdout) == (0, b"300000 2retnuh\n"), done.stderr
    until(lambda: is_gone(api, "secrets", only_job().id), "the end of what it carried")


@pytest.mark.usefixtures("scope")
def test_a_secret_of_the_cluster_reaches_the_code(stoke: Stoke, api: Cluster) -> None:
    name = f"test-{secrets.token_hex(4)}"
    path = resource_path("v1", api.namespace, "secrets")
    body = {"metadata": {"name": name}, "stringData": {"token": "hunter2"}}
    api.request("POST", path, body={"apiVersion": "v1", "kind": "Secret", **body})
    try:
        code = (
            "import os; print(os.environ['TOKEN'][::-1], [n for n in os.environ if 'STOKE' in n])"
        )
        done = stoke("run", "-q", "-c", code, "--secret", f"TOKEN=secret:{name}/token")
        assert (done.returncode, done.stdout) == (
            0, b"2retnuh ['STOKE_RESULTS', 'STOKE_CHECKPOINT']\n",
        ), done.stderr  # fmt: skip
    finally:
        api.request("DELETE", f"{path}/{name}")


@pytest.mark.usefixtures("scope")
def test_a_job_of_another_history_is_adopted(stoke: Stoke, tmp_path: Path) -> None:
    code = "import time\nprint('began', flush=True)\nwhile True: time.sleep(0.05)"
    elsewhere = {"STOKE_STATE_DIR": f"{tmp_path}/elsewhere"}
    done = stoke("run", "--detach", "-c", code, env=elsewhere)
    job_id = done.stdout.decode().strip()
    assert stoke("show", job_id).returncode == 1
    assert job_id in stoke("jobs", "--all").stdout.decode()
    assert json.loads(stoke("show", "--json", job_id).stdout)["spec"]["code"] == code
    until(lambda: stoke("logs", job_id).stdout == b"began\n", "its first line")
    assert stoke("stop", "--now", job_id).returncode == 0
    assert stoke("logs", job_id).stdout == b"began\n"


def test_caches_of_a_scope_are_listed_with_their_node_and_cleared(stoke: Stoke, scope: str) -> None:
    fill = "open('/cache/ballast', 'wb').write(b'x' * 100_000)"
    assert stoke("run", "-q", "-c", fill).returncode == 0

    def volume() -> dict[str, Any]:
        listed = json.loads(stoke("cache", "ls", "-b", "argo", "--measure", "--json").stdout)
        (found,) = [volume for volume in listed if volume["scope"] == scope]
        return dict(found)

    before = volume()
    assert before["kind"] == "python" and before["node"]
    assert before["bytes"] >= 100_000
    done = stoke("cache", "clear", "--yes")
    assert done.returncode == 0, done.stderr
    assert volume()["bytes"] < 50_000


@pytest.mark.usefixtures("scope")
def test_a_rendered_manifest_is_taken_as_it_is(stoke: Stoke, api: Cluster) -> None:
    text = stoke("render", "argo", "-c", "print('{{rendered}}')").stdout
    (manifest,) = yaml.safe_load_all(text)
    api.request("POST", workflows_path(api.namespace), body=manifest)
    job_id = manifest["metadata"]["name"]
    until(lambda: job_id in stoke("jobs", "--all").stdout.decode(), "the job")
    until(lambda: stoke("logs", job_id).stdout == b"{{rendered}}\n", "its output")


@pytest.mark.usefixtures("scope")
def test_a_missing_right_is_named(stoke: Stoke) -> None:
    nobody = os.environ.get("STOKE_TEST_KUBECONFIG_NOBODY")
    if nobody is None:
        pytest.skip("this cluster has no user without rights")
    done = stoke("run", "-c", "print(1)", env={"STOKE_ARGO__KUBECONFIG": nobody})
    assert done.returncode == 125
    assert b"you may not create workflows.argoproj.io" in done.stderr
    assert b"hint:" in done.stderr
    report = json.loads(stoke("doctor", "--json", env={"STOKE_ARGO__KUBECONFIG": nobody}).stdout)
    broken = [one["detail"] for one in report["backends"]["argo"] if not one["works"]]
    assert any("create workflows.argoproj.io" in detail for detail in broken)


@pytest.mark.usefixtures("scope")
def test_a_namespace_is_prepared_and_then_needs_nothing_more(stoke: Stoke, api: Cluster) -> None:
    name = f"stoke-setup-{secrets.token_hex(4)}"
    words = ["setup", "argo", "--namespace", name, "--user", "ada", "--apply"]
    try:
        refused = stoke(*words)
        assert refused.returncode == 2 and b"--yes" in refused.stderr
        done = stoke(*words, "--yes")
        assert done.returncode == 0, done.stderr
        assert b"+kind: RoleBinding" in done.stdout
        again = stoke(*words, "--yes")
        assert (
            b"nothing to change: everything exists already" in again.stderr and again.stdout == b""
        )
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.mark.usefixtures("scope")
def test_pod_security_is_named_and_kept_to(stoke: Stoke, real_cluster: TestCluster) -> None:
    namespace = "stoke-restricted"
    try:
        real_cluster.connect().request("GET", f"/api/v1/namespaces/{namespace}")
    except ApiError:
        pytest.skip(f"this cluster has no namespace {namespace} that enforces `restricted`")
    report = json.loads(stoke("doctor", "--json", "--namespace", namespace).stdout)
    broken = {one["what"]: one["hint"] for one in report["backends"]["argo"] if not one["works"]}
    assert "argo.restricted = true" in broken["pod security"]
    settings = {"STOKE_ARGO__RESTRICTED": "true", "STOKE_ARGO__CACHE": "none"}
    code = "import os; print(os.getuid())"
    done = stoke("run", "-q", "-n", namespace, "-c", code, env=settings)
    assert (done.returncode, done.stdout) == (0, b"1000\n"), done.stderr


@pytest.mark.usefixtures("scope")
def test_a_cluster_that_takes_references_only_says_so_and_gets_them(
    stoke: Stoke, api: Cluster, tmp_path: Path
) -> None:
    if os.environ.get("STOKE_TEST_ARGO") != "standin":
        pytest.skip("only the stand-in reads this setting of one namespace while it runs")
    name = f"stoke-strict-{secrets.token_hex(4)}"
    words = ["setup", "argo", "--namespace", name, "--apply", "--yes"]
    strict = {"config": "workflowRestrictions:\n  templateReferencing: Strict\n"}
    body = {"metadata": {"name": "workflow-controller-configmap"}, "data": strict}
    by_template = {"STOKE_ARGO__BY_TEMPLATE": "true", "STOKE_ARGO__NAMESPACE": name, "HELD": "b"}
    long = tmp_path / "long.py"
    noise = random.Random(7).randbytes(100_000).hex()
    long.write_text(f"import os; print(len({noise!r}), os.environ['TOKEN'])")
    try:
        assert stoke(*words).returncode == 0
        api.request("POST", resource_path("v1", name, "configmaps"), body=body)
        refused = stoke("run", "--namespace", name, "-c", "print(1)")
        assert refused.returncode == 125 and b"argo.by_template = true" in refused.stderr
        missing = stoke("run", "-c", "print(1)", env=by_template)
        assert missing.returncode == 125 and b"stoke setup argo" in missing.stderr
        assert stoke(*words, env=by_template).returncode == 0
        code = "print('{{workflow.name}} $$')"
        done = stoke("run", "-q", "--memory", "256m", "-c", code, env=by_template)
        assert (done.returncode, done.stdout) == (0, b"{{workflow.name}} $$\n"), done.stderr
        secret = stoke("run", "-q", "--secret", "TOKEN=env:HELD", str(long), env=by_template)
        assert (secret.returncode, secret.stdout) == (0, b"200000 b\n"), secret.stderr
        measured = stoke("cache", "ls", "-b", "argo", "--measure", "--json", env=by_template)
        assert json.loads(measured.stdout)[0]["bytes"] is not None, measured.stderr

        named = {"metadata": {"name": "api"}, "stringData": {"token": "a", "other": "b"}}
        api.request("POST", resource_path("v1", name, "secrets"), body=named)
        ask = ["run", "-q", "-c", "import os; print(os.environ['TOKEN'])", "--secret"]
        both = {**by_template, "STOKE_ARGO__TEMPLATE_SECRETS": '["api/token", "api/other"]'}
        older = stoke(*ask, "TOKEN=secret:api/token", env=both)
        assert older.returncode == 125 and b"stoke setup argo" in older.stderr, older.stderr
        one = {**by_template, "STOKE_ARGO__TEMPLATE_SECRETS": '["api/token"]'}
        assert stoke(*words, env=one).returncode == 0
        given = stoke(*ask, "TOKEN=secret:api/token", env=one)
        assert (given.returncode, given.stdout) == (0, b"a\n"), given.stderr
        not_allowed = stoke(*ask, "TOKEN=secret:api/other", env=one)
        assert not_allowed.returncode == 2 and b"argo.template_secrets" in not_allowed.stderr
        not_there = stoke(*ask, "TOKEN=secret:api/other", env=both)
        assert not_there.returncode == 125 and b"no secret for TOKEN" in not_there.stderr
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.mark.usefixtures("scope")
def test_a_shared_claim_is_filled_by_one_and_read_by_many(
    stoke: Stoke,
    start: Callable[..., subprocess.Popen[bytes]],
    real_cluster: TestCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = PackageIndex(real_cluster.host)
    index.add("alpha", "2.0")
    index.add("beta", "1.0")
    listener = socket.create_server(("0.0.0.0", 0))
    listener.settimeout(60)
    port = listener.getsockname()[1]
    wait = f"import socket; socket.create_connection(({real_cluster.host!r}, {port})).recv(1)"
    for name, value in (
        ("STOKE_ARGO__CACHE", "shared-claim"),
        ("STOKE_ARGO__CLAIM_SIZE", "1Gi"),
        ("STOKE_INDEX__URL", index.url),
    ):
        monkeypatch.setenv(name, value)
    look = "import alpha, os; print(alpha.version, os.access('/cache', os.W_OK))"

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        return stoke("run", "-q", *words)

    try:
        assert run("-w", "alpha", "-c", look).stdout == b"2.0 True\n"
        held = start("run", "-q", "-w", "alpha", "-c", f"{look}\n{wait}")
        reader, _ = listener.accept()
        # Beside it: one that reads the same, one that fills the cache with something else.
        done = stoke("run", "--json", "-w", "alpha", "-c", look)
        document = json.loads(done.stdout)
        (python,) = [one for one in document["phases"] if one["name"] == "python"]
        assert (python["hit"], b"without the cache" in done.stderr) == (True, False), done.stderr
        assert b"2.0 False" in done.stderr
        assert run("-w", "beta", "-c", "import beta").returncode == 0
        reader.close()
        assert held.communicate(timeout=60)[0] == b"2.0 False\n"
        # A job that asks for newer versions writes; so does the next one after the cache was cleared.
        assert run("--upgrade", "-w", "alpha", "-c", look).stdout == b"2.0 True\n"
        assert stoke("cache", "clear", "--yes").returncode == 0
        assert run("-w", "alpha", "-c", look).stdout == b"2.0 True\n"
    finally:
        listener.close()
        index.stop()

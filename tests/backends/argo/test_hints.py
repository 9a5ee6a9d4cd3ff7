"""Hints about a cluster, followed until it is reached and takes the job."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backends.argo import ArgoBackend, check, credential_plugins, kubeconfig
from backends.argo.cluster import Cluster
from backends.argo.state import state_of
from backends.argo.volumes import ArgoVolumes
from backends.argo.workflow import make_job
from stoke.backend.api import CheckResult
from stoke.config.loader import load_config
from stoke.config.model import ArgoConfig, Config
from stoke.text.units import parse_size
from tests.backends.argo.deliveries import delivery
from tests.backends.argo.scripted_server import (
    Piece,
    Reset,
    ScriptedServer,
    forbidden,
    json_answer,
    scripted_server,
    status,
)
from tests.backends.argo.test_contexts import context, written
from tests.backends.argo.test_state import pod, terminated, workflow
from tests.hints import command, exported, filled, is_hint, refused

NOT_FOUND = status(404, "NotFound", "not found")


def shell(line: str, *more: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    return subprocess.run(
        ["sh", "-c", f'{line} "$@"', "sh", *more], capture_output=True, text=True, timeout=60
    )


# --- kubeconfigs -----------------------------------------------------------------------------------


@pytest.fixture(params=["STOKE_ARGO__KUBECONFIG", "KUBECONFIG"])
def variable(request: pytest.FixtureRequest) -> str:
    """What names the kubeconfig: the configuration, or kubectl's own variable."""
    return str(request.param)


@pytest.fixture
def file(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> Path:
    """The kubeconfig that is used; it is not there yet."""
    path = tmp_path / "the kubeconfig"
    monkeypatch.delenv("KUBECONFIG", raising=False)
    if variable == "KUBECONFIG":
        monkeypatch.setenv("KUBECONFIG", str(path))
    else:
        (own_home / "config.toml").write_text(f"argo.kubeconfig = {json.dumps(str(path))}\n")
    return path


def found(name: str | None = None) -> kubeconfig.KubeContext:
    return kubeconfig.find(name, load_config().argo.kubeconfig)


@pytest.mark.parametrize(
    ("text", "template"),
    [
        (None, "name one: export {}=/its/path; or run on this machine: -b local"),
        ("{", "check it: {} config view; or name another: export {}=/its/path"),
    ],
)
def test_another_kubeconfig_is_named(
    file: Path,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    template: str,
) -> None:
    if text is not None:
        file.write_text(text)
    said = refused(found, template)
    if text is not None:
        # kubectl looks at the same file, and finds the same fault.
        looked = shell(said.removeprefix("check it: ").partition(";")[0])
        assert looked.returncode != 0 and str(file) in looked.stderr
    (name,) = exported(said.partition("; or run")[0])
    assert name == variable
    other = written(tmp_path / "other", context("a"), **{"current-context": "a"})
    monkeypatch.setenv(name, str(other))
    assert found().name == "a"


@pytest.mark.usefixtures("variable")
def test_a_context_is_chosen(file: Path) -> None:
    written(file, context("first"), context("the second"))
    said = refused(found, "choose one: {} config use-context NAME, or give --context NAME")
    line = said.removeprefix("choose one: ").partition(", or")[0]
    done = shell(line.replace("NAME", "'the second'"))
    assert done.returncode == 0, done.stderr
    assert found().name == "the second"
    assert found("first").name == "first"


@pytest.mark.usefixtures("variable")
def test_the_contexts_there_are_are_listed(file: Path) -> None:
    written(file, context("first"), **{"current-context": "gone"})
    said = refused(found, "list the contexts: {} config get-contexts")
    names = shell(said.partition(": ")[2], "--output=name").stdout.split()
    assert names == ["first"]
    assert found(names[0]).name == "first"


@pytest.mark.usefixtures("variable")
def test_credentials_that_cannot_be_used_are_no_better_with_kubectl(file: Path) -> None:
    plugged = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/not/there"}}
    plugged["exec"]["interactiveMode"] = "Never"
    users = [{"name": "plain", "user": plugged}]
    written(file, context("my cluster"), users=users, **{"current-context": "my cluster"})
    said = refused(
        lambda: kubeconfig.connect(found(), None), "check whether kubectl can use them: {} version"
    )
    tried = shell(said.partition(": ")[2])
    assert tried.returncode != 0 and "/not/there" in tried.stderr


def test_a_program_for_credentials_is_allowed(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = "client.authentication.k8s.io/v1"
    answer = json.dumps({"apiVersion": version, "status": {"token": "sesame"}})
    user = {
        "exec": {
            "apiVersion": version,
            "command": "echo",
            "args": [answer],
            "interactiveMode": "Never",
        }
    }
    server.answers = {"/version": [json_answer({})]}
    path = server.kubeconfig(tmp_path, user=user)

    def ask() -> object:
        with closing(
            Cluster(
                context=None,
                namespace=None,
                kubeconfig=path,
                approve=credential_plugins.refuse_unknown,
            )
        ) as cluster:
            return cluster.request("GET", "/version")

    said = refused(ask, "check it, then allow it: stoke setup argo --allow-plugin")
    monkeypatch.setenv("STOKE_ARGO__KUBECONFIG", path)
    program = Path(sys.executable).parent / "stoke"
    subprocess.run([program, *command(said)], check=True, capture_output=True, timeout=60)
    assert ask() == {}


def test_kubectl_looks_at_the_cluster_that_did_not_answer(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers = {
        "/version": [[Reset]],
        "/readyz": [json_answer({"ready": True})],
    }
    path = server.kubeconfig(tmp_path)
    with closing(Cluster(context=None, namespace=None, kubeconfig=path)) as cluster:
        said = refused(
            lambda: cluster.request("GET", "/version", timeout=2),
            "check the cluster: {} get --raw /readyz",
        )
    looked = shell(said.partition(": ")[2])
    assert json.loads(looked.stdout) == {"ready": True}, looked.stderr


# --- what a cluster refuses ------------------------------------------------------------------------


def submit(server: ScriptedServer, folder: Path, job: Any, **argo: Any) -> None:
    settings = {"kubeconfig": server.kubeconfig(folder), "cache": "none", **argo}
    ArgoBackend(Config(argo=ArgoConfig(**settings))).submit(job, lambda *_: None)


def test_another_namespace_is_named(server: ScriptedServer, tmp_path: Path) -> None:
    job = delivery("1")
    posted = {"metadata": {"name": job.job_id, "uid": "1", "labels": {}}}
    server.answers = {
        "/team-a/workflows": [status(404, "NotFound", 'namespaces "team-a" not found')],
        "/team-b/workflows": [json_answer(posted)],
    }
    said = refused(
        lambda: submit(server, tmp_path, job),
        "choose another: --namespace NAMESPACE; or create it: stoke setup argo --apply",
    )
    (option,) = re.findall(r"--(\w+) NAMESPACE", said)
    submit(server, tmp_path, job, **{option: "team-b"})


def test_another_cluster_is_named_where_argo_is_absent_and_only_there(
    server: ScriptedServer, tmp_path: Path
) -> None:
    job = delivery("1")
    posted = {"metadata": {"name": job.job_id, "uid": "1", "labels": {}}}
    server.answers = {"/workflows": [NOT_FOUND]}
    refused(
        lambda: submit(server, tmp_path, job),
        "choose another: --context CONTEXT; check the setup: stoke doctor",
    )
    with scripted_server() as other:
        other.answers = {"/workflows": [json_answer(posted)]}
        submit(other, tmp_path, job, context="scripted")


def settings_of(printed: str) -> list[str]:
    """The settings that a hint gives, as lines of the configuration."""
    return re.findall(r"argo\.\w+ = (?:true|\"\w+\")", printed)


@pytest.mark.parametrize(
    ("level", "what", "template", "chosen"),
    [
        (
            "restricted",
            "pod security",
            'set argo.restricted = true, and argo.cache = "claim" or "none"',
            slice(0, 2),
        ),
        (
            "baseline",
            "caches",
            'set argo.cache = "claim", or argo.cache = "none" to keep no caches',
            slice(0, 1),
        ),
        (
            "baseline",
            "caches",
            'set argo.cache = "claim", or argo.cache = "none" to keep no caches',
            slice(1, 2),
        ),
    ],
)
def test_settings_that_a_namespace_takes(
    server: ScriptedServer,
    tmp_path: Path,
    own_home: Path,
    level: str,
    what: str,
    template: str,
    chosen: slice,
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level}
    server.answers = {"/namespaces/team-a": [json_answer({"metadata": {"labels": labels}})]}
    path = server.kubeconfig(tmp_path)
    (own_home / "config.toml").write_text('argo.cache = "hostpath"\n')
    with closing(Cluster(context=None, namespace=None, kubeconfig=path)) as cluster:
        broken = check._caches(cluster, load_config())
        assert (broken.what, broken.works) == (what, False)
        lines = settings_of(is_hint(broken.hint, template))[chosen]
        assert lines
        (own_home / "config.toml").write_text("\n".join(lines) + "\n")
        assert check._caches(cluster, load_config()).works


def test_a_cache_that_cannot_be_made_is_done_without(
    server: ScriptedServer, tmp_path: Path, own_home: Path
) -> None:
    """Only a user with the right can create it."""
    server.answers = {"/persistentvolumeclaims": [forbidden("create", "persistentvolumeclaims")]}
    path = server.kubeconfig(tmp_path)
    with closing(Cluster(context=None, namespace=None, kubeconfig=path)) as cluster:
        said = refused(
            lambda: ArgoVolumes(cluster, ArgoConfig(cache="claim")).ensure("team", "python"),
            "ask an administrator to run: stoke setup argo --scope {} --apply; or keep no "
            'cache: argo.cache = "none"',
        )
        (own_home / "config.toml").write_text("\n".join(settings_of(said)))
        ArgoVolumes(cluster, load_config().argo).ensure("team", "python")


def test_a_foreign_claim_is_avoided(server: ScriptedServer, tmp_path: Path) -> None:
    server.answers = {
        "/stoke-team-python": [json_answer({"metadata": {"name": "stoke-team-python"}})],
        "/persistentvolumeclaims": [lambda request: json_answer(json.loads(request.body), 201)],
    }
    path = server.kubeconfig(tmp_path)
    with closing(Cluster(context=None, namespace=None, kubeconfig=path)) as cluster:
        volumes = ArgoVolumes(cluster, ArgoConfig(cache="claim"))
        refused(lambda: volumes.ensure("team", "python"), "choose another scope: --scope NAME")
        volumes.ensure("other", "python")


# --- requests that do not fit ----------------------------------------------------------------------

BY_TEMPLATE: dict[str, Any] = {"by_template": True, "template_secrets": ("known/key",)}


@pytest.mark.parametrize(
    ("argo", "wrong", "right", "template"),
    [
        (
            {"restricted": True, "cache": "none"},
            {"system": ["tree"]},
            {},
            "leave them out, or use an image that has them",
        ),
        (
            BY_TEMPLATE,
            {"shm_size": 1 << 30},
            {},
            "leave it out, or give the job more memory: --memory",
        ),
        (
            BY_TEMPLATE,
            {"shm_size": 1 << 30},
            {"memory": 1 << 30},
            "leave it out, or give the job more memory: --memory",
        ),
    ],
)
def test_a_request_is_changed(
    argo: dict[str, Any], wrong: dict[str, Any], right: dict[str, Any], template: str
) -> None:
    config = Config(argo=ArgoConfig(**argo))
    refused(lambda: make_job(delivery("1", **wrong), config), template)
    make_job(delivery("1", **right), config)


def test_a_setting_without_a_template_of_argos() -> None:
    def made_in(pool: str) -> None:
        make_job(delivery("1"), Config(argo=ArgoConfig(node_selector={"pool": pool})))

    refused(lambda: made_in("{{batch}}"), "write it without")
    made_in("batch")


def test_a_secret_that_the_template_lacks_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the owner of the template can add it there."""
    config = Config(argo=ArgoConfig(**BY_TEMPLATE))
    template = (
        "add it there and update the template: stoke setup argo; or read the secret on this "
        "machine: --secret {}=env:VARIABLE or {}=file:PATH"
    )
    said = refused(
        lambda: make_job(delivery("1", secrets={"TOKEN": "secret:other/key"}), config), template
    )
    monkeypatch.setenv("VARIABLE", "hunter2")
    name, _, reference = said.partition("--secret ")[2].split(" or ")[0].partition("=")
    make_job(delivery("1", secrets={name: reference}), config)


def test_data_that_is_too_large_is_fetched_or_run_elsewhere() -> None:
    noise = random.Random(7).randbytes(1_500_000).hex()
    refused(
        lambda: make_job(delivery(f"x = {noise!r}"), Config()),
        "fetch data in the code when it runs, or use another backend: -b docker",
    )
    make_job(delivery("from urllib.request import urlopen"), Config())


# --- jobs that ended -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["1Gi", "1073741824", "512Mi", "3000Mi"])
def test_more_memory_is_more_than_the_job_had(limit: str) -> None:
    killed = pod(terminated(137, reason="OOMKilled"))
    resources = {"limits": {"memory": limit}}
    killed["spec"] = {"containers": [{"name": "main", "resources": resources}]}
    state = state_of(workflow(phase="Failed"), killed)
    (more,) = filled(state.hint, "raise the limit: --memory {}")
    assert parse_size(more) == 2 * parse_size(limit.removesuffix("i"))


def test_memory_without_a_limit_is_asked_for() -> None:
    state = state_of(workflow(phase="Failed"), pod(terminated(137, reason="OOMKilled")))
    is_hint(state.hint, "request the memory that it needs: --memory SIZE")


def test_a_lost_job_is_run_again_by_its_name() -> None:
    lost = pod(terminated(137, reason="ContainerStatusUnknown"))
    state = state_of(workflow(phase="Failed"), lost)
    assert command(is_hint(state.hint, "run it again: stoke rerun {}")) == ["rerun", "job-aaaaaa"]


# --- faults that an administrator fixes: is it that fault, and no other? ------------------------------

SET_UP = "stoke setup argo --apply; or ask an administrator to run it"
ALLOWED = json_answer({"status": {"allowed": True}})
DENIED = json_answer({"status": {"allowed": False}})
SERVED = json_answer({"resources": [{"name": "workflows"}, {"name": "workflowtaskresults"}]})


@pytest.mark.parametrize(
    ("look", "path", "broken", "works", "template"),
    [
        (
            lambda cluster: check._argo(cluster),
            "/apis/argoproj.io/v1alpha1",
            NOT_FOUND,
            SERVED,
            "install Argo Workflows, or choose another cluster: --context CONTEXT",
        ),
        (
            lambda cluster: check._argo(cluster),
            "/apis/argoproj.io/v1alpha1",
            json_answer({"resources": [{"name": "workflows"}]}),
            SERVED,
            "install Argo Workflows, or choose another cluster: --context CONTEXT",
        ),
        (
            lambda cluster: check._namespace(cluster),
            "/namespaces/team-a",
            NOT_FOUND,
            json_answer({"metadata": {}}),
            "choose another: --namespace NAMESPACE; or stoke setup argo --apply; or ask an "
            "administrator to run it",
        ),
        (
            lambda cluster: check._template(cluster, "team"),
            "/workflowtemplates/stoke-team",
            NOT_FOUND,
            json_answer({"metadata": {}}),
            "stoke setup argo --scope {} --apply; or ask an administrator to run it",
        ),
        (
            lambda cluster: check._executor(cluster, Config()),
            "/localsubjectaccessreviews",
            DENIED,
            ALLOWED,
            SET_UP,
        ),
        (
            lambda cluster: check._rights(cluster, Config())[0],
            "/selfsubjectaccessreviews",
            DENIED,
            ALLOWED,
            SET_UP,
        ),
    ],
)
def test_hints_for_administrators_name_what_is_missing(
    server: ScriptedServer,
    tmp_path: Path,
    look: Callable[[Cluster], CheckResult],
    path: str,
    broken: list[Piece],
    works: list[Piece],
    template: str,
) -> None:
    kubeconfig = server.kubeconfig(tmp_path)
    with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
        server.answers = {path: [broken]}
        result = look(cluster)
        assert result.works is False
        is_hint(result.hint, template)
        server.answers = {path: [works]}
        assert look(cluster).works


def test_a_login_that_is_asked_for_is_one_the_cluster_does_not_know(
    server: ScriptedServer, tmp_path: Path
) -> None:
    kubeconfig = server.kubeconfig(tmp_path)
    with closing(Cluster(context=None, namespace=None, kubeconfig=kubeconfig)) as cluster:
        server.answers = {"/version": [status(401, "Unauthorized", "token expired")]}
        refused(
            lambda: cluster.request("GET", "/version"),
            "log in again, then try: {} auth whoami",
        )
        server.answers = {"/version": [json_answer({})]}
        assert cluster.request("GET", "/version") == {}

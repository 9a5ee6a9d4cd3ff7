"""A long CA bundle is in a ConfigMap of the namespace, and not in every job."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from backends.argo.ca_bundle import MOST_OWNERS, share_ca_bundle
from backends.argo.cluster import ApiError, Cluster, resource_path, workflows_path
from backends.argo.names import PACK_CHUNK
from backends.argo.pack_chunks import Chunk, chunks_of_bytes
from backends.argo.resources import KubernetesResources
from backends.argo.workflow import make_job
from stoke.config.model import ArgoConfig, Config
from stoke.history.database import History
from stoke.history.job import Job, JobState
from tests.backends.argo.deliveries import delivery
from tests.backends.argo.scripted_server import ScriptedServer, forbidden, json_answer
from tests.conftest import TestCluster
from tests.hints import command, filled
from tests.lab import Lab, until
from tests.network import Authority
from tests.package_index import PackageIndex

PUBLIC = Path(certifi.where()).read_text()
CODE = "import alpha; print(alpha.version)"


def size(*objects: Any) -> int:
    """The bytes of what is sent to the cluster."""
    return sum(len(json.dumps(one).encode()) for one in objects if one is not None)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    file.write_text(PUBLIC)
    return str(file)


# ---- what is sent, to a scripted server


def shared(cluster: Cluster, bundle: str, **argo: Any) -> tuple[int, tuple[Chunk, ...]]:
    """The bytes of a job with the bundle, and the chunks that it shares."""
    config = Config(argo=ArgoConfig.model_validate(argo))
    whole = delivery(CODE, dependencies=["alpha"], index={"ca_bundle": bundle})
    rest, chunks = share_ca_bundle(whole, config.argo, KubernetesResources(cluster))
    made = make_job(rest, config, ca_bundle=chunks)
    return size(made.workflow, made.bundle_object), chunks


def test_a_job_is_no_longer_than_without_the_bundle(
    server: ScriptedServer, cluster: Cluster, bundle: str
) -> None:
    plain = make_job(delivery(CODE, dependencies=["alpha"]), Config())
    whole = make_job(delivery(CODE, dependencies=["alpha"], index={"ca_bundle": bundle}), Config())
    (chunk,) = chunks_of_bytes(PUBLIC.encode())
    server.answers = {f"/configmaps/{chunk.name}": [json_answer({"metadata": {}})]}
    sent, chunks = shared(cluster, bundle)
    assert [one.name for one in chunks] == [chunk.name]
    assert size(whole.workflow, whole.bundle_object) > 150_000
    assert sent < size(plain.workflow) + 1_000 < 64_000
    assert plain.bundle_object is None
    # And asking whether it is there takes next to nothing.
    assert sum(len(request.body) for request in server.requests) < 1_000


@pytest.mark.parametrize(
    ("patch", "create"),
    [
        (forbidden("patch", "configmaps"), json_answer({"metadata": {}})),
        (json_answer({}, 404), forbidden("create", "configmaps")),
    ],
    ids=["no right to patch", "no right to create"],
)
def test_it_is_sent_with_the_job_without_the_rights_to_share_it(
    server: ScriptedServer, cluster: Cluster, bundle: str, patch: Any, create: Any
) -> None:
    (chunk,) = chunks_of_bytes(PUBLIC.encode())
    server.answers = {f"/configmaps/{chunk.name}": [patch], "/configmaps": [create]}
    sent, chunks = shared(cluster, bundle)
    assert chunks == () and sent > 150_000


def test_a_template_has_no_place_for_it(
    server: ScriptedServer, cluster: Cluster, bundle: str
) -> None:
    assert shared(cluster, bundle, by_template=True)[1] == ()
    assert server.requests == []


def test_a_short_bundle_stays_in_the_job(
    server: ScriptedServer, cluster: Cluster, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "pki", "127.0.0.1")
    sent, chunks = shared(cluster, str(authority.file))
    assert (chunks, server.requests) == ((), []) and sent < 64_000


def test_a_copy_is_owned_by_a_limited_number_of_jobs(
    server: ScriptedServer, cluster: Cluster, bundle: str
) -> None:
    (chunk,) = chunks_of_bytes(PUBLIC.encode())
    owners = [{"name": f"job-{number}"} for number in range(MOST_OWNERS)]
    server.answers = {
        f"/configmaps/{chunk.name}": [json_answer({"metadata": {"ownerReferences": owners}})]
    }
    (other,) = shared(cluster, bundle)[1]
    assert other.data == chunk.data
    assert other.name.startswith(f"{chunk.name}-")


# ---- jobs that use it, on a cluster


@pytest.fixture
def trusted(real_cluster: TestCluster, tmp_path: Path) -> Iterator[tuple[str, str, Chunk]]:
    """An index that only a CA bundle of this test makes trusted, the bundle, and its chunk."""
    authority = Authority(tmp_path / "pki", real_cluster.host)
    file = tmp_path / "company.pem"
    file.write_text(PUBLIC + authority.file.read_text())
    index = PackageIndex(real_cluster.host, tls=authority.tls)
    index.add("alpha", "1.0")
    (chunk,) = chunks_of_bytes(file.read_bytes())
    yield index.url, str(file), chunk
    index.stop()


def use(lab: Lab, url: str, file: str) -> Lab:
    lab.defaults["index"] |= {"url": url, "ca_bundle": file}
    return lab


def found(api: Cluster, chunk: Chunk) -> Any:
    try:
        return api.request("GET", resource_path("v1", api.namespace, "configmaps", chunk.name))
    except ApiError as error:
        assert error.status == 404
        return None


def workflow(api: Cluster, job: Job) -> Any:
    return api.request("GET", workflows_path(api.namespace, job.id))


@pytest.mark.cluster
def test_two_jobs_share_one_copy_which_is_gone_with_them(
    api: Cluster, make_lab: Callable[..., Lab], trusted: tuple[str, str, Chunk]
) -> None:
    url, file, chunk = trusted
    lab = use(make_lab(), url, file)
    first, second = (lab.run(CODE, dependencies=["alpha"]) for _ in range(2))
    assert (first.stdout, second.stdout) == (b"1.0\n", b"1.0\n"), first.events
    record = found(api, chunk)
    owners = {one["name"] for one in record["metadata"]["ownerReferences"]}
    assert owners == {first.job.id, second.job.id}
    assert record["metadata"]["labels"][PACK_CHUNK] == "true" and record["immutable"]
    for done in (first, second):
        assert size(workflow(api, done.job)) < 64_000
        lab.backend.remove(done.job.id)
    until(lambda: found(api, chunk) is None, "the end of the shared copy")


@pytest.mark.cluster
def test_a_copy_that_was_deleted_is_created_again(
    api: Cluster, make_lab: Callable[..., Lab], trusted: tuple[str, str, Chunk]
) -> None:
    url, file, chunk = trusted
    lab = use(make_lab(), url, file)
    assert lab.run(CODE, dependencies=["alpha"]).stdout == b"1.0\n"
    api.request("DELETE", resource_path("v1", api.namespace, "configmaps", chunk.name))
    assert lab.run(CODE, dependencies=["alpha"]).stdout == b"1.0\n"
    assert found(api, chunk) is not None


@pytest.mark.cluster
def test_a_copy_that_was_changed_is_refused_until_it_is_deleted(
    api: Cluster, make_lab: Callable[..., Lab], trusted: tuple[str, str, Chunk]
) -> None:
    url, file, chunk = trusted
    (other,) = chunks_of_bytes(PUBLIC.encode())
    # A node reads an immutable one only once, and would keep the first while pods refer to it.
    forged = {**other.manifest({}), "immutable": False, "metadata": {"name": chunk.name}}
    path = resource_path("v1", api.namespace, "configmaps")
    api.request("POST", path, body=forged)
    try:
        lab = use(make_lab(), url, file)
        done = lab.run(CODE, dependencies=["alpha"])
        assert (done.job.state, done.stdout) == (JobState.FAILED, b"")
        assert done.job.reason == f"its ConfigMap {chunk.name} was changed by another program"
        with History() as history:
            ((_, hint),) = [(note.text, note.hint) for note in history.notes(done.job.id)]
        assert hint is not None and command(hint) == ["rerun", done.job.id]
        template = "delete it: kubectl delete configmap {}; then run it again: stoke rerun"
        assert filled(hint.removesuffix(f" {done.job.id}"), template) == (chunk.name,)
    finally:
        api.request("DELETE", f"{path}/{chunk.name}")
    assert lab.run(CODE, dependencies=["alpha"]).stdout == b"1.0\n"


@pytest.mark.cluster
def test_a_user_who_may_only_create_config_maps_sends_it_with_the_job(
    api: Cluster, make_lab: Callable[..., Lab], trusted: tuple[str, str, Chunk]
) -> None:
    user = os.environ.get("STOKE_TEST_KUBECONFIG_USER")
    if user is None:
        pytest.skip("this cluster has no user with few rights")
    url, file, chunk = trusted
    lab = use(make_lab(kubeconfig=user), url, file)
    done = lab.run(CODE, dependencies=["alpha"])
    assert done.stdout == b"1.0\n", done.events
    assert found(api, chunk) is None

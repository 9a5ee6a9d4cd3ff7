"""What stays of a finished job on a cluster, and what must not."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from backends.argo.backend import ArgoBackend
from backends.argo.cluster import ApiError, Cluster, resource_path, workflows_path
from stoke.config.model import ArgoConfig, Config
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.control import remove
from stoke.jobs.refresh import adopt
from tests.conftest import TestCluster
from tests.lab import Lab, until

pytestmark = pytest.mark.cluster

READS_SECRET = "import os; print(len(os.environ['TOKEN']))"


@pytest.fixture
def make_lab(
    real_cluster: TestCluster,
    cluster_cleanup: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Lab]]:
    """A lab on the cluster; with `kubeconfig`, as another user than the administrator."""
    monkeypatch.setenv("TOKEN", "hunter2")
    backends = []

    def make(**argo: object) -> Lab:
        settings = {
            "kubeconfig": real_cluster.kubeconfig,
            "image": real_cluster.image,
            "service_account": real_cluster.service_account,
        }
        config = Config(argo=ArgoConfig.model_validate(settings | argo))
        backends.append(ArgoBackend(config))
        scope = f"test-{secrets.token_hex(4)}"
        cluster_cleanup(scope)
        return Lab(backends[-1], config, scope, real_cluster.host)

    yield make
    for backend in backends:
        backend.close()


def is_there(api: Cluster, path: str) -> bool:
    try:
        api.request("GET", path)
    except ApiError as error:
        assert error.status == 404
        return False
    return True


def secret_path(api: Cluster, job_id: str) -> str:
    return resource_path("v1", api.namespace, "secrets", job_id)


def test_a_finished_job_stays_for_argo_and_its_secret_does_not(
    api: Cluster, make_lab: Callable[..., Lab]
) -> None:
    lab = make_lab()
    job = lab.submit(READS_SECRET, secrets={"TOKEN": "env:TOKEN"})
    assert is_there(api, secret_path(api, job.id))
    done = lab.finish(job)
    assert (done.stdout, done.job.state) == (b"7\n", JobState.SUCCEEDED)
    assert not is_there(api, secret_path(api, job.id))
    path = workflows_path(api.namespace, job.id)

    def argo_knows() -> bool:
        status = api.request("GET", path).get("status") or {}
        return bool(status.get("phase") and status.get("finishedAt"))

    until(argo_knows, "Argo's own record of the end")
    with History() as history:
        # On another machine, or with a new history.
        history.remove(job.id)
        assert job.id not in {one.id for one in adopt(lab.backend, history)}
        history.add(replace(done.job), "{}", "nonce")
        remove(done.job, lab.backend, history)
    until(lambda: not is_there(api, path), "the workflow's end")


def test_a_workflow_is_deleted_at_once_where_that_is_asked_for(
    api: Cluster, make_lab: Callable[..., Lab]
) -> None:
    done = make_lab(delete_finished=True).run("print(1)")
    until(lambda: not is_there(api, workflows_path(api.namespace, done.job.id)), "its end")


def test_a_secret_that_its_owner_may_not_delete_is_soon_deleted_with_its_workflow(
    api: Cluster, make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    resources = lab.backend._locations.current.resources  # type: ignore[attr-defined]

    def forbidden(name: str) -> None:
        raise ApiError("no", status=403)

    monkeypatch.setattr(resources, "delete_secret", forbidden)
    done = lab.run(READS_SECRET, secrets={"TOKEN": "env:TOKEN"})
    spec = api.request("GET", workflows_path(api.namespace, done.job.id))["spec"]
    assert spec["ttlStrategy"]["secondsAfterCompletion"] == 60

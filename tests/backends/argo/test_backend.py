"""Submitting and stopping against an API server that refuses, forgets, or does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.argo import ArgoBackend
from backends.argo.names import AWAITS_BUNDLE
from stoke.backend.api import Delivery, UnsettledSubmitError
from stoke.config.model import ArgoConfig, Config
from stoke.errors import EngineError
from tests.backends.argo.deliveries import delivery
from tests.backends.argo.scripted_server import (
    Piece,
    Request,
    Reset,
    ScriptedServer,
    json_answer,
    scripted_server,
    status,
)

Answers = Callable[[Request], list[Piece]]


def backend_for(server: ScriptedServer, folder: Path, **argo: Any) -> ArgoBackend:
    folder.mkdir(exist_ok=True)
    kubeconfig = server.kubeconfig(folder)
    return ArgoBackend(Config(argo=ArgoConfig(kubeconfig=kubeconfig, cache="none", **argo)))


def by_method(**answers: list[Piece]) -> Answers:
    return lambda request: answers[request.method]


def as_posted(job: Delivery, **labels: str) -> dict[str, Any]:
    known = {"stoke.managed": "true", "stoke.job": job.job_id, **labels}
    return {"metadata": {"name": job.job_id, "uid": "1", "labels": known}}


def unreported(name: str, start: float, seconds: float | None) -> None:
    """Discard a phase report."""


def requested(server: ScriptedServer) -> list[tuple[str, str]]:
    """Method and the last part of the path of every request."""
    return [(one.method, one.path.rpartition("/")[2]) for one in server.requests]


NOT_FOUND = status(404, "NotFound", 'workflows.argoproj.io "x" not found')
THERE = status(409, "AlreadyExists", "already exists")


# ---------------------------------------------------------------------------- submit


def test_a_workflow_whose_response_was_lost_is_found(
    server: ScriptedServer, tmp_path: Path
) -> None:
    job = delivery("print(1)")
    server.answers = {
        "/workflows": [[Reset]],
        f"/{job.job_id}": [json_answer(as_posted(job))],
    }
    backend_for(server, tmp_path).submit(job, unreported)
    assert requested(server)[-1] == ("GET", job.job_id)


def test_a_lost_request_creates_no_job(server: ScriptedServer, tmp_path: Path) -> None:
    job = delivery("print(1)")
    server.answers = {"/workflows": [[Reset]], f"/{job.job_id}": [NOT_FOUND]}
    with pytest.raises(EngineError, match="cut"):
        backend_for(server, tmp_path).submit(job, unreported)


def test_without_an_answer_it_is_unknown_whether_the_job_began(
    server: ScriptedServer, tmp_path: Path
) -> None:
    job = delivery("print(1)")
    server.answers = {"/workflows": [[Reset]], f"/{job.job_id}": [[Reset]]}
    with pytest.raises(UnsettledSubmitError, match="unknown whether the job began") as lost:
        backend_for(server, tmp_path).submit(job, unreported)
    assert (lost.value.hint or "").endswith(f"see what became of it: stoke show {job.job_id}")


def test_a_cluster_that_got_no_request_has_no_job(server: ScriptedServer, tmp_path: Path) -> None:
    backend = backend_for(server, tmp_path)
    server.close()
    with pytest.raises(EngineError, match="cannot connect") as refused:
        backend.submit(delivery("print(1)"), unreported)
    assert not isinstance(refused.value, UnsettledSubmitError)


def test_submitting_again_finds_the_job(server: ScriptedServer, tmp_path: Path) -> None:
    job = delivery("print(1)")
    server.answers = {"/workflows": [THERE], f"/{job.job_id}": [json_answer(as_posted(job))]}
    backend_for(server, tmp_path).submit(job, unreported)


def test_a_workflow_that_only_has_the_name_is_left_alone(
    server: ScriptedServer, tmp_path: Path
) -> None:
    job = delivery("print(1)")
    foreign = {"metadata": {"name": job.job_id, "uid": "1"}}
    server.answers = {"/workflows": [THERE], f"/{job.job_id}": [json_answer(foreign)]}
    backend = backend_for(server, tmp_path)
    with pytest.raises(EngineError, match="is already called"):
        backend.submit(job, unreported)
    assert backend.inspect(job.job_id).status == "absent"
    backend.remove(job.job_id)
    backend.stop(job.job_id, 1)
    assert {method for method, _ in requested(server)} == {"POST", "GET"}


@pytest.mark.parametrize(
    ("answer", "what", "hint"),
    [
        (status(404, "NotFound", "the server could not find it"), "no Argo Workflows", "--context"),
        (status(404, "NotFound", 'namespaces "team-a" not found'), "no namespace", "--namespace"),
        (
            status(403, "Forbidden", "workflows is forbidden: exceeded quota: team"),
            "exceeded quota",
            "--cpu",
        ),
        (
            status(400, "BadRequest", 'admission webhook "policy" denied the request: no root'),
            "no root",
            "set what this policy of the cluster asks for",
        ),
        (status(401, "Unauthorized", "token expired"), "rejected your credentials", "log in"),
    ],
)
def test_a_refusal_has_a_hint(
    server: ScriptedServer, tmp_path: Path, answer: list[Piece], what: str, hint: str
) -> None:
    job = delivery("print(1)")
    server.answers = {"/workflows": [answer], f"/{job.job_id}": [NOT_FOUND]}
    with pytest.raises(EngineError, match=what) as refused:
        backend_for(server, tmp_path).submit(job, unreported)
    assert hint in (refused.value.hint or "")


def test_a_long_bundle_is_created_after_its_workflow_which_owns_it(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE_IT_STANDS", "hunter2")
    job = delivery("print(1)", secrets={"TOKEN": "env:WHERE_IT_STANDS"})
    posted = json_answer(as_posted(job, **{AWAITS_BUNDLE: "true"}))
    server.answers = {
        "/workflows": [posted], "/secrets": [posted], f"/{job.job_id}": [posted]
    }  # fmt: skip
    backend_for(server, tmp_path).submit(job, unreported)
    assert requested(server) == [("POST", "workflows"), ("POST", "secrets"), ("PATCH", job.job_id)]
    workflow, secret, patch = (json.loads(one.body) for one in server.requests)
    assert b"hunter2" not in server.requests[0].body
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Workflow", job.job_id, "1")
    assert workflow["metadata"]["labels"][AWAITS_BUNDLE] == "true"
    assert patch == {"metadata": {"labels": {AWAITS_BUNDLE: None}}}


def test_a_workflow_whose_bundle_object_is_refused_is_deleted(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE_IT_STANDS", "hunter2")
    job = delivery("print(1)", secrets={"TOKEN": "env:WHERE_IT_STANDS"})
    posted = json_answer(as_posted(job, **{AWAITS_BUNDLE: "true"}))
    server.answers = {
        "/workflows": [posted],
        "/secrets": [status(403, "Forbidden", 'secrets is forbidden: User "ada" cannot create')],
        f"/{job.job_id}": [posted],
    }
    with pytest.raises(EngineError, match="Secret") as refused:
        backend_for(server, tmp_path).submit(job, unreported)
    assert "secret:NAME/KEY" in (refused.value.hint or "")
    assert requested(server)[-1] == ("DELETE", job.job_id)


# ---------------------------------------------------------------------------- where a job is


def test_a_job_is_looked_for_where_it_was_submitted(server: ScriptedServer, tmp_path: Path) -> None:
    job = delivery("print(1)")
    server.answers = {
        "/workflows": [json_answer(as_posted(job))], f"/{job.job_id}": [json_answer(as_posted(job))]
    }  # fmt: skip
    backend_for(server, tmp_path / "first").submit(job, unreported)
    with scripted_server() as other:
        later = backend_for(other, tmp_path / "second")
        assert later.inspect(job.job_id).status == "running"
        assert other.requests == []
        assert later.inspect("of-another-user").status == "absent"
        assert other.requests


# ---------------------------------------------------------------------------- stop


_STATE = {"running": {"startedAt": "2026-11-21T10:00:00Z"}}
RUNNING: dict[str, Any] = {
    "metadata": {"name": "x"},
    "spec": {},
    "status": {"containerStatuses": [{"name": "main", "state": _STATE}]},
}
PENDING: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {}, "status": {"phase": "Pending"}}
NO = status(403, "Forbidden", "pods is forbidden")
YES = json_answer({})


def stopped(
    server: ScriptedServer, folder: Path, pod: dict[str, Any], grace: float, **refused: list[Piece]
) -> tuple[str | None, list[Request]]:
    """Requests and reports of stopping a job: the workflow's shutdown comes first."""
    job = delivery("print(1)")
    about_pod = by_method(GET=json_answer(pod), DELETE=YES)
    server.answers = {
        f"/workflows/{job.job_id}": [json_answer(as_posted(job))],
        f"/pods/{job.job_id}": [lambda request: refused.get(request.method) or about_pod(request)],
    }
    said = backend_for(server, folder).stop(job.job_id, grace)
    return said, [one for one in server.requests if one.method != "GET"]


@pytest.mark.parametrize(("grace", "seconds"), [(0, "1"), (2.5, "3"), (30, "30")])
def test_the_workflow_is_shut_down_and_its_pod_deleted(
    server: ScriptedServer, tmp_path: Path, grace: float, seconds: str
) -> None:
    said, (shutdown, deletion) = stopped(server, tmp_path, RUNNING, grace)
    assert said is None
    assert json.loads(shutdown.body)["spec"] == {"shutdown": "Terminate"}
    assert (deletion.method, deletion.query) == ("DELETE", {"gracePeriodSeconds": seconds})


def test_a_pod_that_has_not_started_is_deleted_at_once(
    server: ScriptedServer, tmp_path: Path
) -> None:
    _, (_, deletion) = stopped(server, tmp_path, PENDING, 10)
    assert (deletion.method, deletion.query) == ("DELETE", {"gracePeriodSeconds": "0"})


def test_without_the_right_to_delete_pods_a_stop_is_left_to_argo(
    server: ScriptedServer, tmp_path: Path
) -> None:
    said, (shutdown, deletion) = stopped(server, tmp_path, RUNNING, 10, DELETE=NO)
    assert said is not None and "10 seconds" in said
    assert (shutdown.method, deletion.method) == ("PATCH", "DELETE")

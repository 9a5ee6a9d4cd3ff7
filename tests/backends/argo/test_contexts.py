"""Another cluster or namespace than the configured one, chosen while the program runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.argo import ArgoBackend
from backends.argo.job_locations import JobLocations
from stoke.backend.capabilities import ChoosesCluster
from stoke.backend.pool import Backends
from stoke.config.model import ArgoConfig, Config
from stoke.errors import EngineError

EXEC = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "./creds",
    "args": ["a b", "[x]"],
}


def written(path: Path, *contexts: dict[str, Any], **more: Any) -> Path:
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "https://host.test:6443/"}}],
                "users": [
                    {"name": "plain", "user": {"token": "t"}},
                    {"name": "plugged", "user": {"exec": EXEC}},
                ],
                "contexts": list(contexts),
                **more,
            }
        )
    )
    return path


def context(name: str, user: str = "plain", cluster: str = "c", **more: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": cluster, "user": user, **more}}


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArgoBackend:
    path = written(
        tmp_path / "kubeconfig",
        context("staging", namespace="jobs"),
        context("production", user="plugged"),
        context("broken", cluster="nowhere"),
        **{"current-context": "staging"},
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    return ArgoBackend(Config())


def test_every_context_is_listed_and_nothing_runs(backend: ArgoBackend, tmp_path: Path) -> None:
    assert isinstance(backend, ChoosesCluster)
    staging, production, broken = backend.contexts()
    assert (staging.name, staging.server) == ("staging", "https://host.test:6443")
    assert (staging.namespace, staging.current, staging.allowed) == ("jobs", True, True)
    assert (production.namespace, production.current) == ("default", False)
    assert production.plugin == f"{tmp_path}/kubeconfig: {tmp_path}/./creds 'a b' '[x]'".replace(
        "/./", "/"
    )
    assert not production.allowed
    assert broken.trouble and "nowhere" in broken.trouble


def test_a_plugin_is_allowed_for_the_chosen_context(backend: ArgoBackend) -> None:
    assert backend.allow_plugin() is None
    backend.choose("production", None)
    assert "creds" in (backend.allow_plugin() or "")
    assert [one.allowed for one in backend.contexts()] == [True, True, True]


def test_several_files_and_the_configured_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = written(tmp_path / "one", context("a"), **{"current-context": "a"})
    two = written(tmp_path / "two", context("b"), **{"current-context": "b"})
    monkeypatch.setenv("KUBECONFIG", f"{one}:{two}")
    backend = ArgoBackend(Config(argo=ArgoConfig(context="b")))
    assert [(one.name, one.current) for one in backend.contexts()] == [("a", False), ("b", True)]


def test_without_a_kubeconfig_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    assert ArgoBackend(Config()).contexts() == []
    (tmp_path / "bad").write_text("{")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "bad"))
    with pytest.raises(EngineError, match="cannot be read"):
        ArgoBackend(Config()).contexts()


def test_jobs_stay_where_they_were_submitted(backend: ArgoBackend) -> None:
    locations = JobLocations(ArgoConfig())
    locations.remember("job-aaaaaa")
    first = locations.current
    locations.move("production", "team-b")
    assert (locations.current.cluster.context_name, locations.current.cluster.namespace) == (
        "production",
        "team-b",
    )
    moved = locations.current
    locations.move("production", "team-b")
    assert locations.current is moved
    assert locations.of("job-aaaaaa") is first
    locations.remember_found("job-bbbbbb")
    locations.remember_found("job-aaaaaa")
    locations.move(None, None)
    assert locations.of("job-bbbbbb") is moved
    # Another program, at the configured place, finds both of them.
    later = JobLocations(ArgoConfig())
    assert later.of("job-aaaaaa") is later.current
    assert later.of("job-bbbbbb").cluster.namespace == "team-b"
    later.close()
    locations.close()


def test_a_backend_is_prepared_before_each_use() -> None:
    prepared = []
    backends = Backends(Config(), lambda one: prepared.append(one.name))
    for _ in range(2):
        backends.get("argo")
    assert prepared == ["argo", "argo"]
    backends.close()

"""What a namespace is given: the least that works, written so that kubectl takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from backends.argo import credential_plugins
from backends.argo.cluster import Cluster
from backends.argo.kubeconfig import Plugin
from backends.argo.manifest import difference
from backends.argo.setup import preparations
from stoke.backend.api import Volume
from stoke.config.model import ArgoConfig, Config
from stoke.errors import EngineError
from tests.backends.argo.scripted_server import json_answer, scripted_server

NODES = [
    Volume("argo", "team", "python", "/var/lib/stoke/namespaces/jobs/team/python", node)
    for node in ("node-a", "node-b")
]


def prepared(
    volumes: list[Volume] | None = None, prune: tuple[str, float] | None = None, **argo: Any
) -> list[dict[str, Any]]:
    cluster = Cluster(context=None, namespace="jobs", kubeconfig="/nonexistent")
    config = Config(argo=ArgoConfig(**argo))
    made = preparations(cluster, config, volumes or [], ["team"], ["ada"], ["ops"], prune)
    return [yaml.safe_load(one.manifest) for one in made]


def named(objects: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["kind"], one["metadata"]["name"]) for one in objects]


def test_roles_for_argos_containers_and_for_users() -> None:
    objects = prepared()
    assert named(objects) == [
        ("Namespace", "jobs"),
        ("Role", "stoke-executor"),
        ("RoleBinding", "stoke-executor"),
        ("Role", "stoke-user"),
        ("RoleBinding", "stoke-user"),
    ]
    _, executor, bound, user, people = objects
    (rule,) = executor["rules"]
    assert (rule["resources"], rule["verbs"]) == (["workflowtaskresults"], ["create", "patch"])
    assert bound["subjects"] == [{"kind": "ServiceAccount", "name": "default", "namespace": "jobs"}]
    given = {
        (resource, verb)
        for rule in user["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # Never: reading secrets, pods of one's own, anything by a star. A user who may create workflows
    # can run any program in a pod, so entering pods gives no more.
    assert ("secrets", "get") not in given and ("secrets", "list") not in given
    assert ("pods", "create") not in given
    assert "*" not in {text for pair in given for text in pair}
    assert {("pods/exec", "create"), ("pods/exec", "get")} <= given
    assert [(one["kind"], one["name"]) for one in people["subjects"]] == [
        ("User", "ada"),
        ("Group", "ops"),
    ]
    assert {one["metadata"].get("namespace") for one in objects[1:]} == {"jobs"}


def test_a_service_account_of_its_own_and_claims_where_they_are_configured() -> None:
    objects = prepared(service_account="stoke", cache="shared-claim", storage_class="nfs")
    assert ("ServiceAccount", "stoke") in named(objects)
    claims = [one for one in objects if one["kind"] == "PersistentVolumeClaim"]
    assert [one["metadata"]["name"] for one in claims] == ["stoke-team-python", "stoke-team-system"]
    assert claims[0]["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "20Gi"}},
        "storageClassName": "nfs",
    }


def test_templates_and_the_right_to_look_at_them_where_jobs_refer_to_them() -> None:
    objects = prepared(NODES[:1], prune=("0 3 * * *", 86400.0), by_template=True)
    assert ("WorkflowTemplate", "stoke-team") in named(objects)
    (role,) = [one for one in objects if one["metadata"]["name"] == "stoke-user" and "rules" in one]
    rights = [rule for rule in role["rules"] if rule["resources"] == ["workflowtemplates"]]
    assert [rule["verbs"] for rule in rights] == [["get"]]
    # What prunes refers to them as well.
    (cron,) = [one for one in objects if one["kind"] == "CronWorkflow"]
    spec = cron["spec"]["workflowSpec"]
    assert spec["workflowTemplateRef"] == {"name": "stoke-team"}
    assert spec["entrypoint"] == "housekeeping-python"


def test_every_nodes_cache_is_pruned_where_it_is() -> None:
    objects = prepared(NODES, ("17 4 * * *", 3600.0))
    crons = [one for one in objects if one["kind"] == "CronWorkflow"]
    selectors = [one["spec"]["workflowSpec"]["nodeSelector"] for one in crons]
    assert selectors == [
        {"kubernetes.io/hostname": "node-a"},
        {"kubernetes.io/hostname": "node-b"},
    ]
    assert len({one["metadata"]["name"] for one in crons}) == 2
    assert {tuple(one["spec"]["schedules"]) for one in crons} == {("17 4 * * *",)}


def test_only_changes_are_shown() -> None:
    role = {"kind": "Role", "metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]}
    there = {**role, "metadata": {"name": "r", "uid": "1", "managedFields": []}, "status": {}}
    assert difference(there, role) == ""
    assert "+kind: Role" in difference(None, role)
    more = {**there, "rules": [{"verbs": ["get", "delete"]}]}
    assert "-  - delete" in difference(more, role)


def test_a_credential_plugin_runs_only_after_consent(tmp_path: Path) -> None:
    touched = tmp_path / "ran"
    command = ["/bin/sh", "-c", f"touch {touched}; exit 1"]
    plugin = Plugin(tuple(command), (), "kubeconfig")
    with scripted_server() as server:
        server.answers = {"/version": [json_answer({})]}
        kubeconfig = server.kubeconfig(
            tmp_path,
            user={
                "exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": command[0],
                    "args": command[1:],
                    "interactiveMode": "Never",
                }
            },
        )
        cluster = Cluster(
            context=None,
            namespace=None,
            kubeconfig=kubeconfig,
            approve=credential_plugins.refuse_unknown,
        )
        with pytest.raises(EngineError, match="you have not allowed yet") as refused:
            cluster.request("GET", "/version")
        assert "--allow-plugin" in (refused.value.hint or "")
        assert not touched.exists()
        assert cluster.plugin is not None
        credential_plugins.allow(cluster.plugin)
        with pytest.raises(EngineError):  # It runs now, and fails.
            cluster.request("GET", "/version")
        assert touched.exists()
    with pytest.raises(EngineError):
        credential_plugins.refuse_unknown(plugin)  # Another file that names it is another matter.

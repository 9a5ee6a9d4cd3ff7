"""The objects that jobs need in a namespace: roles, claims, templates, and a schedule that prunes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from backends.argo import rights
from backends.argo.cluster import WORKFLOWS, ApiError, Cluster, resource_path
from backends.argo.manifest import as_yaml, difference
from backends.argo.mounts import claim
from backends.argo.names import cache_labels
from backends.argo.rights import EXECUTOR, Right
from backends.argo.workflow import make_housekeeping, make_templates
from backends.common.names import MANAGED, PUBLIC_IMAGE
from stoke.backend.api import CACHE_KINDS, Volume
from stoke.backend.capabilities import Preparation
from stoke.config.model import ArgoConfig, Config

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io/v1"
APPLY = "application/apply-patch+yaml"
OWNER = "stoke"
RESOURCES = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "WorkflowTemplate": "workflowtemplates",
    "CronWorkflow": "cronworkflows",
}


def preparations(
    cluster: Cluster,
    config: Config,
    volumes: Sequence[Volume],
    scopes: Sequence[str],
    users: Sequence[str],
    groups: Sequence[str],
    prune: tuple[str, float] | None,
) -> list[Preparation]:
    namespace = cluster.namespace
    objects = [_namespace(namespace), *_executor(config, namespace), *_user(config, users, groups)]
    if config.argo.cache in ("claim", "shared-claim"):
        objects += [
            claim(scope, kind, cache_labels(scope, kind), config.argo)
            for scope in scopes
            for kind in CACHE_KINDS
            if kind == "python" or not config.argo.restricted
        ]
    if config.argo.by_template:
        objects += [make_templates(scope, config) for scope in scopes]
    if prune is not None:
        calendar, unused = prune
        objects += [
            _prune(config, volume, calendar, unused)
            for volume in volumes
            if volume.kind == "python" and volume.scope in scopes
        ]
    return [
        Preparation(
            f"{one['kind']} {one['metadata']['name']}",
            as_yaml(one),
            partial(_compare, cluster, one),
            partial(_apply, cluster, one),
        )
        for one in (_in(namespace, one, config.argo) for one in objects)
    ]


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _in(namespace: str, one: Object, argo: ArgoConfig) -> Object:
    """Return an object in its namespace, with our label and the configured labels and annotations."""
    if one["kind"] == "Namespace":
        return one
    about = one["metadata"]
    labels = {**argo.labels, MANAGED: "true", **about.get("labels", {})}
    annotations = {"annotations": dict(argo.annotations)} if argo.annotations else {}
    return {**one, "metadata": {**about, "namespace": namespace, "labels": labels, **annotations}}


def _executor(config: Config, namespace: str) -> list[Object]:
    """Return the objects for Argo's containers in each pod. Jobs can use these rights too, so they
    are minimal."""
    account = config.argo.service_account or "default"
    objects = []
    if account != "default":  # which every namespace has
        objects.append(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        )
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return [*objects, *_role("stoke-executor", (EXECUTOR,), [subject])]


def _user(config: Config, users: Sequence[str], groups: Sequence[str]) -> list[Object]:
    """Return the role for users who submit. A user who may create workflows may run any pod."""
    given = rights.of_user(config.argo)
    subjects = [
        {"apiGroup": RBAC.partition("/")[0], "kind": kind, "name": name}
        for kind, names in (("User", users), ("Group", groups))
        for name in names
    ]
    return _role("stoke-user", given, subjects)


def _role(name: str, given: tuple[Right, ...], subjects: list[Object]) -> list[Object]:
    role = {
        "apiVersion": RBAC,
        "kind": "Role",
        "metadata": {"name": name},
        "rules": rights.rules(given),
    }
    if not subjects:
        return [role]
    binding = {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC.partition("/")[0], "kind": "Role", "name": name},
        "subjects": subjects,
    }
    return [role, binding]


def _prune(config: Config, volume: Volume, calendar: str, unused: float) -> Object:
    """Return a CronWorkflow for one cache. A node's cache can be pruned only on that node."""
    name = f"stoke-prune-{volume.scope}"[:45].rstrip("-")
    if volume.node:
        name += "-" + hashlib.sha256(volume.node.encode()).hexdigest()[:6]
    operation = {
        "do": "prune",
        "kind": volume.kind,
        "unused": unused,
        "max_bytes": config.budget(volume.scope),
        "lock_ttl": config.lock_ttl,
        "dry_run": False,
    }
    image = config.argo.image or PUBLIC_IMAGE
    workflow = make_housekeeping(name, volume, operation, config, image)
    return {
        "apiVersion": WORKFLOWS,
        "kind": "CronWorkflow",
        "metadata": {"name": name, "labels": workflow["metadata"]["labels"]},
        "spec": {
            "schedules": [calendar],
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "workflowSpec": workflow["spec"],
        },
    }


def _path(one: Object) -> str:
    name = one["metadata"]["name"]
    if one["kind"] == "Namespace":
        return f"/api/v1/namespaces/{quote(name, safe='')}"
    namespace = one["metadata"]["namespace"]
    return resource_path(one["apiVersion"], namespace, RESOURCES[one["kind"]], name)


def _compare(cluster: Cluster, one: Object) -> str:
    try:
        there = cluster.request("GET", _path(one))
    except ApiError as error:
        if error.status != 404:
            raise
        there = None
    if there is not None and one["kind"] == "PersistentVolumeClaim":
        return ""  # The spec of an existing claim is immutable.
    return difference(there, one)


def _apply(cluster: Cluster, one: Object) -> None:
    """Create or change an object by server-side apply, which records the fields that are ours."""
    cluster.request(
        "PATCH",
        _path(one),
        query={"fieldManager": OWNER, "force": "true"},
        body=one,
        content_type=APPLY,
    )

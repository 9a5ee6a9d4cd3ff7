"""What is created in a new cluster: Argo's kinds, the tests' namespaces, who may do what."""

from __future__ import annotations

from typing import Any

from tests.cluster.layout import NAMESPACE, RESTRICTED_NAMESPACE

GROUP = "argoproj.io"
VERSION = "v1alpha1"
RBAC = "rbac.authorization.k8s.io"
# What Argo's documentation asks for the service account of a workflow's pods.
EXECUTOR_ACCOUNT = "argo-executor"


def all_of(argo: bool) -> list[tuple[str, dict[str, Any]]]:
    """(collection's path, object). Without `argo`, Argo's own kinds are left to who installs it."""
    found = [_custom_kind(*names) for names in _KINDS] if argo else []
    found.append(_storage_class())
    found.append(_namespace(NAMESPACE, {}))
    found.append(
        _namespace(RESTRICTED_NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
    )
    for namespace in (NAMESPACE, RESTRICTED_NAMESPACE):
        found.append(_account(namespace, EXECUTOR_ACCOUNT))
        found += _rights(
            namespace,
            EXECUTOR_ACCOUNT,
            {"kind": "ServiceAccount", "name": EXECUTOR_ACCOUNT, "namespace": namespace},
            [(GROUP, ["workflowtaskresults"], ["create", "patch"])],
        )
    found += _rights(
        NAMESPACE,
        "user",
        {"kind": "User", "name": "user", "apiGroup": RBAC},
        [
            (GROUP, ["workflows"], ["create", "get", "list", "watch", "patch", "delete"]),
            ("", ["pods", "pods/log"], ["get", "list", "watch"]),
            ("", ["configmaps"], ["create"]),
            ("", ["persistentvolumeclaims"], ["get", "list", "create"]),
        ],
    )
    return found


_KINDS = [
    ("Workflow", "workflows", "wf"),
    ("WorkflowTemplate", "workflowtemplates", "wftmpl"),
    ("CronWorkflow", "cronworkflows", "cwf"),
    ("WorkflowTaskResult", "workflowtaskresults", None),
]


def _custom_kind(kind: str, plural: str, short: str | None) -> tuple[str, dict[str, Any]]:
    names: dict[str, Any] = {"kind": kind, "plural": plural, "singular": kind.lower()}
    if short:
        names["shortNames"] = [short]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    return "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition


def _storage_class() -> tuple[str, dict[str, Any]]:
    return "/apis/storage.k8s.io/v1/storageclasses", {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "node-folder",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/host-path",
    }


def _namespace(name: str, labels: dict[str, str]) -> tuple[str, dict[str, Any]]:
    return "/api/v1/namespaces", {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def _account(namespace: str, name: str) -> tuple[str, dict[str, Any]]:
    return f"/api/v1/namespaces/{namespace}/serviceaccounts", {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name},
    }


def _rights(
    namespace: str,
    name: str,
    subject: dict[str, str],
    rules: list[tuple[str, list[str], list[str]]],
) -> list[tuple[str, dict[str, Any]]]:
    """A role of `rules`, each (API group, resources, verbs), and its binding to `subject`."""
    base = f"/apis/{RBAC}/v1/namespaces/{namespace}"
    metadata = {"name": name}
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [
            {"apiGroups": [group], "resources": resources, "verbs": verbs}
            for group, resources, verbs in rules
        ],
    }
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "subjects": [subject],
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
    }
    return [(f"{base}/roles", role), (f"{base}/rolebindings", binding)]

"""The stand-in's making of a pod from a workflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.cluster.argo_tags import TemplateError, known, substituted
from tests.cluster.images import EXECUTOR_IMAGE

PREFIX = "workflows.argoproj.io/"
SHARED = {"name": "var-run-argo", "mountPath": "/var/run/argo"}
SCRIPT = "/argo/staging/script"
# What the stand-in has no notion of: a workflow with any of it fails at once, with that reason.
UNKNOWN_SPEC = ("onExit", "hooks", "volumeClaimTemplates", "templateDefaults", "parallelism")
UNKNOWN_TEMPLATE = (
    *("steps", "dag", "resource", "data", "http", "plugin", "containerSet"),
    *("sidecars", "initContainers", "retryStrategy", "memoize", "daemon"),
)
# Fields that mean the same in a workflow, in a template and in a pod; a template's win.
SAME = (
    *("serviceAccountName", "nodeSelector", "tolerations", "affinity", "securityContext"),
    *("priorityClassName", "schedulerName", "hostAliases", "automountServiceAccountToken"),
)
SAME_IN_WORKFLOW = ("imagePullSecrets", "hostNetwork", "dnsPolicy", "dnsConfig")


def entry_template(workflow: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """The template that a workflow begins with, its tags replaced; `TemplateError`."""
    for field in UNKNOWN_SPEC:
        if spec.get(field):
            raise TemplateError(f"the stand-in knows no spec.{field}")
    name = spec.get("entrypoint")
    if not name:
        raise TemplateError("spec.entrypoint is required")
    return checked_template(workflow, spec, name, {})


def named_template(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    for template in spec.get("templates") or []:
        if template.get("name") == name:
            found: dict[str, Any] = template
            return found
    raise TemplateError(f"template name '{name}' undefined")


def checked_template(
    workflow: Mapping[str, Any], spec: Mapping[str, Any], name: str, inputs: Mapping[str, str]
) -> dict[str, Any]:
    """The template of a pod with these parameters, its tags replaced; `TemplateError`."""
    template = named_template(spec, name)
    for field in UNKNOWN_TEMPLATE:
        if template.get(field):
            raise TemplateError(f"templates.{name}: the stand-in knows no {field}")
    if template.get("inputs", {}).get("artifacts") or template.get("outputs"):
        raise TemplateError(f"templates.{name}: the stand-in knows no artifacts and no outputs")
    container = template.get("container") or template.get("script")
    if container is None:
        raise TemplateError(f"templates.{name} must have a container or a script")
    if not container.get("image"):
        kind = "container" if template.get("container") else "script"
        raise TemplateError(f"templates.{name}.{kind}.image may not be empty")
    tags = known(workflow, spec, pod=workflow["metadata"]["name"])
    for parameter in template.get("inputs", {}).get("parameters", []):
        if "value" in parameter:
            tags[f"inputs.parameters.{parameter['name']}"] = str(parameter["value"])
    tags |= {f"inputs.parameters.{parameter}": value for parameter, value in inputs.items()}
    whole: dict[str, Any] = substituted(name, template, tags)
    return whole


def make_pod(
    workflow: Mapping[str, Any],
    spec: Mapping[str, Any],
    template: Mapping[str, Any],
    pod_name: str = "",
    node_name: str = "",
    node_id: str = "",
) -> dict[str, Any]:
    """The pod of a workflow, or of one of its nodes."""
    metadata = workflow["metadata"]
    name = metadata["name"]
    node_id = node_id or name
    volumes = substituted(name, spec.get("volumes") or [], known(workflow, spec, pod=name))
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for source in (spec.get("podMetadata") or {}, template.get("metadata") or {}):
        labels.update(source.get("labels") or {})
        annotations.update(source.get("annotations") or {})
    labels |= {f"{PREFIX}workflow": name, f"{PREFIX}completed": "false"}
    annotations |= {
        f"{PREFIX}node-name": node_name or name,
        f"{PREFIX}node-id": node_id,
        "kubectl.kubernetes.io/default-container": "main",
    }
    pod_spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "volumes": [
            {"name": "var-run-argo", "emptyDir": {}},
            {"name": "tmp-dir-argo", "emptyDir": {}},
            *volumes,
            *(template.get("volumes") or []),
        ],
        "initContainers": [_own("init", workflow, template, node_id)],
        "containers": [_own("wait", workflow, template, node_id), _main(workflow, template)],
    }
    if "script" in template:
        pod_spec["volumes"].append({"name": "argo-staging", "emptyDir": {}})
        staging = {"name": "argo-staging", "mountPath": "/argo/staging"}
        for container in (pod_spec["initContainers"][0], pod_spec["containers"][1]):
            container["volumeMounts"].append(staging)
    for field in SAME:
        if (value := template.get(field, spec.get(field))) is not None:
            pod_spec[field] = value
    for field in SAME_IN_WORKFLOW:
        if spec.get(field) is not None:
            pod_spec[field] = spec[field]
    if spec.get("podPriorityClassName"):
        pod_spec["priorityClassName"] = spec["podPriorityClassName"]
    deadlines = [
        int(one["activeDeadlineSeconds"])
        for one in (spec, template)
        if one.get("activeDeadlineSeconds") is not None
    ]
    if deadlines:
        pod_spec["activeDeadlineSeconds"] = min(deadlines)
    for source in (spec, template):
        if source.get("podSpecPatch"):
            pod_spec = _patched(pod_spec, json.loads(source["podSpecPatch"]))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name or name,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Workflow",
                    "name": name,
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": pod_spec,
    }


def _own(
    part: str, workflow: Mapping[str, Any], template: Mapping[str, Any], node_id: str
) -> dict[str, Any]:
    """The init or the wait container."""
    name = workflow["metadata"]["name"]
    return {
        "name": part,
        "image": EXECUTOR_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/executor", part],
        "env": [
            {"name": "ARGO_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "ARGO_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "ARGO_WORKFLOW_NAME", "value": name},
            {"name": "ARGO_WORKFLOW_UID", "value": workflow["metadata"]["uid"]},
            {"name": "ARGO_CONTAINER_NAME", "value": part},
            {"name": "ARGO_TEMPLATE", "value": json.dumps(template, separators=(",", ":"))},
            {"name": "ARGO_NODE_ID", "value": node_id},
        ],
        "volumeMounts": [SHARED],
    }


def _main(workflow: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(template.get("container") or template["script"])
    given.pop("source", None)
    command = given.get("command")
    if not command:
        # Argo would look it up in the image's registry.
        raise TemplateError(f"templates.{template['name']}: the stand-in needs a command")
    own = [
        {"name": "ARGO_CONTAINER_NAME", "value": "main"},
        {"name": "ARGO_WORKFLOW_NAME", "value": workflow["metadata"]["name"]},
    ]
    script = [SCRIPT] if "script" in template else []
    return {
        **given,
        "name": "main",
        "command": ["/var/run/argo/argoexec", "emissary", "--", *command],
        "args": [*(given.get("args") or []), *script],
        "env": [*(given.get("env") or []), *own],
        "volumeMounts": [*(given.get("volumeMounts") or []), SHARED],
    }


def _patched(whole: Any, patch: Any) -> Any:
    """As a strategic merge does for what pods have: objects field by field, lists of named things
    by name, other lists as a whole."""
    if isinstance(whole, dict) and isinstance(patch, dict):
        merged = dict(whole)
        for field, value in patch.items():
            merged[field] = _patched(merged.get(field), value)
        return {field: value for field, value in merged.items() if value is not None}
    if _named(whole) and _named(patch):
        changes = {one["name"]: one for one in patch}
        merged_list = [_patched(one, changes.pop(one["name"], {})) for one in whole]
        return merged_list + list(changes.values())
    return patch


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value)

"""The strategic merge patch of a pod: what Argo has no field for, and its own containers."""

from __future__ import annotations

from typing import Any

from stoke.config.model import ArgoConfig

Object = dict[str, Any]
_SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod_patch(grace: int, argo: ArgoConfig) -> Object:
    """Return what `[argo]` says of the pod, and over it `argo.pod_patch`."""
    patch: Object = {"terminationGracePeriodSeconds": max(1, grace)}
    if own := _own_containers(argo):
        patch["initContainers"] = [{"name": "init", **own}]
        patch["containers"] = [{"name": "wait", **own}]
    settings = {
        "runtimeClassName": argo.runtime_class,
        "topologySpreadConstraints": list(argo.topology_spread),
        "hostAliases": list(argo.host_aliases),
        "dnsPolicy": argo.dns_policy,
        "dnsConfig": argo.dns_config,
    }
    patch |= {name: value for name, value in settings.items() if value}
    whole: Object = merged(patch, argo.pod_patch)
    return whole


def _own_containers(argo: ArgoConfig) -> Object:
    """Return what Argo's own containers need in order to comply as well."""
    security: Object = dict(_SECURE) if argo.restricted else {}
    if argo.read_only_root:
        security["readOnlyRootFilesystem"] = True
    own: Object = {"securityContext": security} if security else {}
    resources = argo.executor_resources
    given = {"requests": resources.requests, "limits": resources.limits}
    if any(given.values()):
        own["resources"] = {name: one for name, one in given.items() if one}
    return own


def merged(whole: Any, patch: Any) -> Any:
    """Return `whole` with a patch over it: tables field by field, lists of named tables by name."""
    if isinstance(whole, dict) and isinstance(patch, dict):
        fields = {name: merged(whole.get(name), value) for name, value in patch.items()}
        return {**whole, **fields}
    if _has_names(whole) and _has_names(patch):
        by_name = {one["name"]: one for one in whole}
        for one in patch:
            by_name[one["name"]] = merged(by_name.get(one["name"]), one)
        return [*by_name.values()]
    return patch


def _has_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value)

"""The volumes of pods that mount a workspace, and its claim."""

from __future__ import annotations

from typing import Any

from backends.argo.mounts import OWN_NAMESPACE, claim_body
from backends.argo.names import workspace_labels, workspace_object
from stoke.config.model import ArgoConfig
from stoke.errors import RequestError
from stoke.request.spec import JobSpec
from stoke.request.workspace_name import WORKSPACE

CLONE = "/workspace-copy"
"""Where a new workspace is mounted beside the one that it is a copy of."""
Volumes = list[tuple[str, str, dict[str, Any]]]
"""(name, mount path, source) of each."""


def is_on_nodes(argo: ArgoConfig) -> bool:
    """Whether workspaces are folders of nodes; otherwise they are claims."""
    return argo.cache == "hostpath"


def check_workspace(spec: JobSpec, argo: ArgoConfig) -> None:
    """Raise `RequestError` if jobs cannot mount a workspace with these settings."""
    if spec.workspace is None:
        return
    if argo.by_template:
        raise RequestError(
            "workspace",
            "jobs refer to a template here, which has no other volumes than its caches",
            "leave it out, or run in a container: -b docker",
        )
    if argo.cache == "none":
        raise RequestError(
            "workspace",
            'this cluster keeps no volumes for stoke (argo.cache is "none")',
            'choose where it may keep them, for example: argo.cache = "claim"',
        )


def workspace_claim(name: str, scope: str, argo: ArgoConfig) -> dict[str, Any]:
    return claim_body(workspace_object(name), workspace_labels(name, scope), argo)


def workspace_folder(argo: ArgoConfig, namespace: str, name: str) -> str:
    """Return the folder of a workspace on its node; with "" that of all of a namespace."""
    return f"{argo.cache_path.rstrip('/')}/workspaces/{namespace}/{name}".rstrip("/")


def workspace_volumes(name: str, argo: ArgoConfig) -> Volumes:
    return [("workspace", WORKSPACE, _source(name, argo))]


def clone_volumes(name: str, new: str, argo: ArgoConfig) -> Volumes:
    return [*workspace_volumes(name, argo), ("copy", CLONE, _source(new, argo))]


def parent_volumes(argo: ArgoConfig) -> Volumes:
    """Return the folder that all workspaces of a namespace are in, in place of one of them."""
    path = workspace_folder(argo, OWN_NAMESPACE, "")
    return [("workspace", WORKSPACE, {"hostPath": {"path": path, "type": "DirectoryOrCreate"}})]


def _source(name: str, argo: ArgoConfig) -> dict[str, Any]:
    if is_on_nodes(argo):
        path = workspace_folder(argo, OWN_NAMESPACE, name)
        return {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}
    return {"persistentVolumeClaim": {"claimName": workspace_object(name)}}

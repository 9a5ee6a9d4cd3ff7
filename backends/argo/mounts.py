"""The volumes of a pod: the caches of its scope, its bundle object and /dev/shm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.argo import bundle
from backends.argo.names import CLAIM_PREFIX, claim_name
from backends.common.names import CACHE, MOUNT_POINTS, NIX
from stoke.config.model import ArgoConfig
from stoke.errors import RequestError
from stoke.remote.protocol import RESULTS_MOUNT, PythonLayout
from stoke.request.mounts import parse_mount
from stoke.request.spec import JobSpec

SHARED_MEMORY = "/dev/shm"  # noqa: S108
CARRIED_VOLUME = "carried"
PARTS_VOLUME = "parts"
NOT_MOUNTED = ""
"""The mount path of a volume of which only folders are mounted."""
OWN_NAMESPACE = "{{workflow.namespace}}"


def used_caches(use_cache: bool, system: bool) -> tuple[str, ...]:
    if not use_cache:
        return ()
    return ("python", "system") if system else ("python",)


def claim(scope: str, kind: str, labels: Mapping[str, str], argo: ArgoConfig) -> dict[str, Any]:
    return claim_body(claim_name(scope, kind), labels, argo)


def claim_body(name: str, labels: Mapping[str, str], argo: ArgoConfig) -> dict[str, Any]:
    mode = "ReadWriteMany" if argo.cache == "shared-claim" else "ReadWriteOnce"
    spec: dict[str, Any] = {
        "accessModes": [mode],
        "resources": {"requests": {"storage": argo.claim_size}},
    }
    if argo.storage_class is not None:
        spec["storageClassName"] = argo.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": {**argo.labels, **labels}},
        "spec": spec,
    }


def _bundle_volume(kind: str, name: str) -> dict[str, Any]:
    return (
        {"configMap": {"name": name}} if kind == "ConfigMap" else {"secret": {"secretName": name}}
    )


def mutex_of(scope: str, caches: tuple[str, ...], argo: ArgoConfig) -> str | None:
    return f"stoke-{scope}" if caches and argo.cache == "shared-claim" else None


def job_volumes(
    scope: str,
    caches: tuple[str, ...],
    system: bool,
    carrier: str | None,
    bundle_name: str,
    argo: ArgoConfig,
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (name, mount path, source) of each volume. `bundle_name` is the name of the bundle
    object."""
    volumes = cache_volumes(scope, caches, argo)
    if system and "system" not in caches:
        # Without a cache, /nix belongs to the job and is deleted with it.
        volumes.append(("nix", NIX, {"emptyDir": {}}))
    if carrier:
        volumes.append((CARRIED_VOLUME, bundle.CARRIED, _bundle_volume(carrier, bundle_name)))
    return volumes


def mounted_objects(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the resource and the name of each object of a workflow's own that its pod mounts: its
    bundle, and the parts of long files."""
    for volume in spec.get("volumes") or ():
        if volume["name"] == CARRIED_VOLUME and "secret" in volume:
            yield "secrets", volume["secret"]["secretName"]
        elif volume["name"] == CARRIED_VOLUME:
            yield "configmaps", volume["configMap"]["name"]
        elif volume["name"] == PARTS_VOLUME:
            for source in volume["projected"]["sources"]:
                yield "configmaps", source["configMap"]["name"]


def claim_volumes(spec: JobSpec, argo: ArgoConfig) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the volumes of the claims that a request mounts. `RequestError` for any other mount."""
    volumes: list[tuple[str, str, dict[str, Any]]] = []
    for text in spec.mounts:
        mount = parse_mount(text)
        if not mount.is_claim:
            raise RequestError(
                "mounts",
                f"{mount.source} is on this machine, and a pod does not see it",
                "put the data into a claim: --mount claim:NAME:/path; or run here: -b docker",
            )
        if argo.by_template:
            raise RequestError(
                "mounts",
                "jobs refer to a template here, which has no other volumes than its caches",
                "leave them out, and fetch the data in the code",
            )
        if mount.source.startswith(CLAIM_PREFIX):
            raise RequestError(
                "mounts", f"{mount.source} is a claim of stoke itself, for its caches"
            )
        source = {"claimName": mount.source, "readOnly": not mount.writable}
        name = f"mount-{len(volumes)}"
        volumes.append((name, mount.target, {"persistentVolumeClaim": source}))
    return volumes


def shared_memory(size: int | None) -> tuple[str, str, dict[str, Any]]:
    """Return a /dev/shm in place of the container runtime's 64 MiB.

    Without a size, the pod's memory limit (or else the node) bounds it: its content counts as the
    job's memory.
    """
    limit = {} if size is None else {"sizeLimit": str(size)}
    return "shm", SHARED_MEMORY, {"emptyDir": {"medium": "Memory", **limit}}


def results_mount(
    scope: str, caches: tuple[str, ...], job: str, argo: ArgoConfig, *, reads: bool = False
) -> tuple[list[tuple[str, str, dict[str, Any]]], list[tuple[str, str, str]]]:
    """Return the volumes to add for a job's results, and (volume, mount path, folder in the volume) of
    mounts: a folder of the job's own on the Python cache, which outlives the pod.

    `job` is its id, or the tag for it. With `reads` the cache itself is read-only, except for
    checkpoints.
    """
    if argo.cache == "none":
        return [("results", RESULTS_MOUNT, {"emptyDir": {}})], []
    added = []
    if "python" not in caches:
        ((name, _, source),) = cache_volumes(scope, ("python",), argo)
        added = [(name, NOT_MOUNTED, source)]
    mounts = [("python", RESULTS_MOUNT, f"{PythonLayout.RESULTS}/{job}")]
    if reads:
        checkpoints = PythonLayout.CHECKPOINTS
        mounts.append(("python", f"{CACHE}/{checkpoints}", checkpoints))
    return added, mounts


def cache_volumes(
    scope: str, kinds: tuple[str, ...], argo: ArgoConfig
) -> list[tuple[str, str, dict[str, Any]]]:
    volumes = []
    for kind in kinds:
        source: dict[str, Any]
        if argo.cache == "hostpath":
            # Argo inserts the namespace, so a template also works in another namespace.
            path = cache_folder(argo, OWN_NAMESPACE, scope, kind)
            source = {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}
        elif argo.cache == "none":
            source = {"emptyDir": {}}
        else:
            source = {"persistentVolumeClaim": {"claimName": claim_name(scope, kind)}}
        volumes.append((kind, MOUNT_POINTS[kind], source))
    return volumes


def cache_folder(argo: ArgoConfig, namespace: str, scope: str, kind: str) -> str:
    """Return the folder of a node that holds a cache: of one namespace, unless it is shared on
    purpose.

    A node belongs to one cluster, so the path does not name the cluster.
    """
    whose = "shared" if argo.cache_shared else f"namespaces/{namespace}"
    return f"{argo.cache_path.rstrip('/')}/{whose}/{scope}/{kind}"

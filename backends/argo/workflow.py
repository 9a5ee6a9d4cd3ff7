"""A job as Argo sees it: a Workflow of one pod, and beside it an object for a long bundle.

Pure functions. The manifests hold no user text: code, arguments and environment are inside the
bundle. hera builds the objects and sends nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from backends.argo import bundle
from backends.argo.names import (
    AT_MOST_ONCE,
    AWAITS_BUNDLE,
    BUNDLE_KIND,
    GAVE_UP,
    READS_CACHE_ONLY,
    RELEASED,
    STOPPED,
    claim_name,
    housekeeping_labels,
    job_labels,
    request_label,
)
from backends.argo.single_start import POD_UID, WORKFLOW
from backends.argo.templates import (
    as_template,
    as_workflow_template,
    by_reference,
    combinations,
    entrypoint,
    housekeeping_template,
    secret_variable,
    tag,
    template_name,
    with_secrets,
)
from backends.common.names import CACHE, MOUNT_POINTS, NIX, PUBLIC_IMAGE
from stoke.backend.api import Delivery, Volume
from stoke.config.model import ArgoConfig, Config
from stoke.errors import RequestError
from stoke.remote.bundle import housekeeping_source
from stoke.remote.command import runner_arguments
from stoke.remote.protocol import Option

if TYPE_CHECKING:
    from hera.workflows import models

SHARED_MEMORY = "/dev/shm"  # noqa: S108
HOSTNAME = "kubernetes.io/hostname"
OWN_NAMESPACE = "{{workflow.namespace}}"
OWN_WORKFLOW = "{{workflow.name}}/{{workflow.uid}}"
# The volume with which a pod reaches the API server as its service account, even if the cluster
# mounts no token on its own.
_ONCE_VOLUME: dict[str, Any] = {
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt"}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
    }
}
USER = 1000  # the user of a restricted job
# Argo's deadline counts from the start of the pod, the runner's timeout from its own start. Pulling
# the image and a graceful stop lie between them.
DEADLINE_SLACK = 900
HOUSEKEEPING_SECONDS = 3600
HOUSEKEEPING_KEPT = 60


@dataclass(frozen=True)
class JobManifests:
    """A workflow to create, and the ConfigMap or Secret that holds its bundle if that is too long.

    The pod cannot start before the bundle object exists, and the workflow owns it. (Suspending the
    workflow instead would cost ten seconds until Argo looks again.)
    """

    workflow: dict[str, Any]
    bundle_object: dict[str, Any] | None = None


def make_job(
    delivery: Delivery, config: Config, nodes: tuple[str, ...] = (), reads: bool = False
) -> JobManifests:
    """Return a job's manifests.

    `nodes` have the environment already and are preferred, not required. With `reads` the job
    mounts its cache read-only, and need not wait for jobs that write to it.

    Raises `RequestError` if the job is too large, or if Argo would change one of its fields.
    """
    spec, argo = delivery.spec, config.argo
    if spec.system and argo.restricted:
        raise RequestError(
            "system",
            "system packages need root, which this cluster forbids (argo.restricted)",
            "leave them out, or use an image that has them",
        )
    named = _named_secrets(spec.secrets, argo)
    caches = used_caches(spec.use_cache, bool(spec.system))
    flags = (Option.OWN_FILES, Option.CONTAINER, Option.TAGGED)
    argv = [
        f"{bundle.FOLDER}/runner.py",
        *runner_arguments(
            f"{bundle.FOLDER}/payload",
            work=f"{bundle.FOLDER}/work",
            cache=CACHE if spec.use_cache else None,
            flags=(*flags, Option.NIX) if spec.system else flags,
        ),
    ]
    files = {"runner.py": delivery.runner, "payload": delivery.payload}
    if argo.at_most_once:
        files["single_start.py"] = (
            resources.files("backends.argo") / "single_start.py"
        ).read_bytes()
        argv = [f"{bundle.FOLDER}/single_start.py", bundle.ONCE, *argv]
    packed = bundle.pack(files, argv, {name: where for name, (where, _) in named.items()})
    kind = _carrier(delivery, packed)
    request = request_label(delivery.request_hash)
    labels = job_labels(delivery.job_id, spec.scope, delivery.nonce, caches, request)
    labels |= {READS_CACHE_ONLY: "true"} if reads else {}
    labels |= {AT_MOST_ONCE: "true"} if argo.at_most_once else {}
    labels |= {BUNDLE_KIND: kind.lower()} if kind else {}
    variables: dict[str, str] = {} if kind else {bundle.VARIABLE: bundle.as_text(packed)}
    public = bundle.pack_spec(delivery.public_spec)
    if public is not None:
        variables[bundle.SPEC_VARIABLE] = public
    if spec.shm_size is not None and argo.by_template:
        raise RequestError(
            "shm_size",
            "jobs refer to a template here, whose /dev/shm has the size of the memory limit",
            "leave it out, or give the job more memory: --memory",
        )
    volumes = _job_volumes(spec.scope, caches, bool(spec.system), kind, delivery.job_id, argo)
    volumes.append(_shared_memory(spec.shm_size))
    workflow = _workflow(
        delivery.job_id,
        labels,
        argo,
        image=spec.image or argo.image or PUBLIC_IMAGE,
        variables=variables,
        secrets=dict(named.values()),
        volumes=volumes,
        limits=_limits(spec.cpu, spec.memory),
        deadline=None if spec.timeout is None else math.ceil(spec.timeout) + DEADLINE_SLACK,
        grace=math.ceil(config.stop_grace),
        keep=math.ceil(argo.keep),
        waits=kind is not None,
        mutex=None if reads else _mutex(spec.scope, caches, argo),
        nodes=nodes,
        reads=reads,
        once=argo.at_most_once,
    )
    if argo.by_template:
        template = entrypoint(caches, bool(spec.system), kind, bool(named))
        # A template prefers a single node.
        workflow = by_reference(spec.scope, workflow, template, nodes[0] if nodes else None)
    _refuse_templates(workflow)
    if kind is None:
        return JobManifests(workflow)
    field = "binaryData" if kind == "ConfigMap" else "data"
    bundle_object = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": delivery.job_id, "labels": labels},
        field: {bundle.KEY: bundle.as_text(packed)},
        "immutable": True,
    }
    return JobManifests(workflow, bundle_object)


def make_housekeeping(
    name: str, volume: Volume, operation: Mapping[str, object], config: Config, image: str
) -> dict[str, Any]:
    """Return a workflow that measures, prunes or clears one cache, on the node that has it."""
    argo = config.argo
    target = MOUNT_POINTS[volume.kind]
    argv = [f"{bundle.FOLDER}/housekeeping.py", target, json.dumps(operation)]
    packed = bundle.pack({"housekeeping.py": housekeeping_source(volume.kind)}, argv)
    workflow = _workflow(
        name,
        housekeeping_labels(volume.scope),
        argo,
        image=image,
        variables={bundle.VARIABLE: bundle.as_text(packed)},
        secrets={},
        volumes=_cache_volumes(volume.scope, (volume.kind,), argo),
        limits={},
        deadline=HOUSEKEEPING_SECONDS,
        grace=5,
        keep=HOUSEKEEPING_KEPT,
        waits=False,
        mutex=None,
        node=volume.node,
    )
    if argo.by_template:
        template = housekeeping_template(volume.kind)
        workflow = by_reference(volume.scope, workflow, template, volume.node)
    _refuse_templates(workflow)
    return workflow


def make_templates(scope: str, config: Config) -> dict[str, Any]:
    """Return the WorkflowTemplate that jobs and housekeeping of a scope refer to (see templates.py)."""
    argo = config.argo
    manifests: dict[str, dict[str, Any]] = {}

    def workflow(
        volumes: list[tuple[str, str, dict[str, Any]]],
        variables: Mapping[str, str],
        mutex: str | None = None,
        nodes: tuple[str, ...] = (),
        node: str | None = None,
        secrets: Mapping[str, str] | None = None,
        once: bool = argo.at_most_once,
    ) -> dict[str, Any]:
        return _workflow(
            template_name(scope),
            {},
            argo,
            image=tag("image"),
            variables=variables,
            secrets=secrets or {},
            volumes=volumes,
            limits={},
            deadline=None,
            grace=math.ceil(config.stop_grace),
            keep=math.ceil(argo.keep),
            waits=False,
            mutex=mutex,
            nodes=nodes,
            node=node,
            once=once,
        )

    packed = {bundle.VARIABLE: tag("bundle")}
    secrets = {secret_variable(one): one for one in argo.template_secrets}
    for name, caches, system, carrier in combinations():
        if system and argo.restricted:
            continue
        volumes = _job_volumes(scope, caches, system, carrier, "{{workflow.name}}", argo)
        volumes.append(_shared_memory(None))
        variables = packed | {bundle.SPEC_VARIABLE: tag("spec")}
        mutex = _mutex(scope, caches, argo)
        # Only a node's folder can be warm. Without an argument, no node is preferred.
        nodes = (tag("node"),) if caches and argo.cache == "hostpath" else ()
        manifests[name] = workflow(volumes, variables, mutex, nodes)
        if secrets:
            manifests[with_secrets(name)] = workflow(
                volumes, variables, mutex, nodes, secrets=secrets
            )
    for kind in MOUNT_POINTS:
        node = tag("node") if argo.cache == "hostpath" else None
        volumes = _cache_volumes(scope, (kind,), argo)
        manifests[housekeeping_template(kind)] = workflow(volumes, packed, node=node, once=False)
    templates = [as_template(one, name) for name, one in manifests.items()]
    image = argo.image or PUBLIC_IMAGE
    return as_workflow_template(scope, next(iter(manifests.values())), templates, image)


def standalone_objects(manifests: JobManifests) -> list[dict[str, Any]]:
    """Return objects that can be created one after the other, with no further steps."""
    if manifests.bundle_object is None:
        return [manifests.workflow]
    about = manifests.workflow["metadata"]
    labels = {name: value for name, value in about["labels"].items() if name != AWAITS_BUNDLE}
    return [
        manifests.bundle_object,
        {**manifests.workflow, "metadata": {**about, "labels": labels}},
    ]


def owner_of(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Return an owner reference, so that an object is deleted together with the workflow."""
    return {
        "apiVersion": workflow["apiVersion"],
        "kind": "Workflow",
        "name": workflow["metadata"]["name"],
        "uid": workflow["metadata"]["uid"],
    }


def used_caches(use_cache: bool, system: bool) -> tuple[str, ...]:
    if not use_cache:
        return ()
    return ("python", "system") if system else ("python",)


DELIVERED: dict[str, Any] = {"metadata": {"labels": {AWAITS_BUNDLE: None}}}
"""The merge patch for a workflow whose bundle object now exists."""
RELEASE: dict[str, Any] = {"metadata": {"labels": {RELEASED: "true"}}}
"""The merge patch for a job whose log and result are saved on the submitting machine."""
# Seconds that a workflow stays if its secret can only be deleted with it: enough for Argo to see
# and archive its end.
SECRET_SECONDS = 60
RELEASE_WITH_SECRET: dict[str, Any] = {
    **RELEASE,
    "spec": {"ttlStrategy": {"secondsAfterCompletion": SECRET_SECONDS}},
}
SHUTDOWN: dict[str, Any] = {
    "metadata": {"labels": {STOPPED: "true"}},
    "spec": {"shutdown": "Terminate"},
}


def give_up_patch(why: str) -> dict[str, Any]:
    """Return the merge patch that stops a workflow whose pod cannot start."""
    return {"metadata": {"annotations": {GAVE_UP: why}}, "spec": {"shutdown": "Terminate"}}


def claim(scope: str, kind: str, labels: Mapping[str, str], argo: ArgoConfig) -> dict[str, Any]:
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
        "metadata": {"name": claim_name(scope, kind), "labels": dict(labels)},
        "spec": spec,
    }


# ---------------------------------------------------------------------------- parts


def _named_secrets(secrets: Mapping[str, str], argo: ArgoConfig) -> dict[str, tuple[str, str]]:
    """Map each secret that is in the cluster to (the pod's variable, NAME/KEY).

    By reference, the owner of the template decides which secrets exist: a job that could name any
    secret would read what its user may not.
    """
    named = {}
    for name, reference in secrets.items():
        kind, _, what = reference.partition(":")
        if kind != "secret":
            continue
        if argo.by_template and what not in argo.template_secrets:
            raise RequestError(
                "secrets",
                f"jobs refer to a template here, and {what} is not among argo.template_secrets",
                "add it there and update the template: stoke setup argo; or read the secret on this "
                f"machine: --secret {name}=env:VARIABLE or {name}=file:PATH",
            )
        variable = secret_variable(what) if argo.by_template else f"{bundle.SECRET_PREFIX}{name}"
        named[name] = (variable, what)
    return named


def _carrier(delivery: Delivery, packed: bytes) -> str | None:
    """Return the kind of object that holds the bundle, or None if the workflow itself holds it.

    Many users who may not read secrets can read workflows.
    """
    spec = delivery.spec
    read_here = any(not reference.startswith("secret:") for reference in spec.secrets.values())
    if len(packed) > bundle.MAX_CARRIED:
        raise RequestError(
            "code",
            f"with its requirements it has {len(packed) // 1024} KiB compressed, and a cluster accepts "
            f"at most {bundle.MAX_CARRIED // 1024} KiB with a job",
            "fetch data in the code when it runs, or use another backend: -b docker",
        )
    if read_here or spec.index.credentials:
        return "Secret"
    return "ConfigMap" if len(bundle.as_text(packed)) > bundle.MAX_INLINE else None


def _bundle_volume(kind: str, name: str) -> dict[str, Any]:
    return (
        {"configMap": {"name": name}} if kind == "ConfigMap" else {"secret": {"secretName": name}}
    )


def _mutex(scope: str, caches: tuple[str, ...], argo: ArgoConfig) -> str | None:
    return f"stoke-{scope}" if caches and argo.cache == "shared-claim" else None


def _job_volumes(
    scope: str,
    caches: tuple[str, ...],
    system: bool,
    carrier: str | None,
    bundle_name: str,
    argo: ArgoConfig,
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (name, mount path, source) of each volume. `bundle_name` is the name of the bundle
    object."""
    volumes = _cache_volumes(scope, caches, argo)
    if system and "system" not in caches:
        # Without a cache, /nix belongs to the job and is deleted with it.
        volumes.append(("nix", NIX, {"emptyDir": {}}))
    if carrier:
        volumes.append(("carried", bundle.CARRIED, _bundle_volume(carrier, bundle_name)))
    return volumes


def _shared_memory(size: int | None) -> tuple[str, str, dict[str, Any]]:
    """Return a /dev/shm in place of the container runtime's 64 MiB.

    Without a size, the pod's memory limit (or else the node) bounds it: its content counts as the
    job's memory.
    """
    limit = {} if size is None else {"sizeLimit": str(size)}
    return "shm", SHARED_MEMORY, {"emptyDir": {"medium": "Memory", **limit}}


def _cache_volumes(
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


def _limits(cpu: float | None, memory: int | None) -> dict[str, str]:
    limits = {}
    if cpu is not None:
        limits["cpu"] = f"{max(1, round(cpu * 1000))}m"
    if memory is not None:
        limits["memory"] = str(memory)
    return limits


def _workflow(
    name: str,
    labels: dict[str, str],
    argo: ArgoConfig,
    *,
    image: str,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
    volumes: list[tuple[str, str, dict[str, Any]]],
    limits: dict[str, str],
    deadline: int | None,
    grace: int,
    keep: int,
    waits: bool,
    mutex: str | None,
    nodes: tuple[str, ...] = (),
    node: str | None = None,
    reads: bool = False,
    once: bool = False,
) -> dict[str, Any]:
    from hera.workflows import Container, Workflow, models

    env: list[models.EnvVar] = [
        models.EnvVar(name=variable, value=value) for variable, value in variables.items()
    ]
    env += [
        models.EnvVar(
            name=variable,
            value_from=models.EnvVarSource(
                secret_key_ref=models.SecretKeySelector(
                    name=reference.partition("/")[0], key=reference.partition("/")[2]
                )
            ),
        )
        for variable, reference in secrets.items()
    ]
    if once:
        uid = models.ObjectFieldSelector(field_path="metadata.uid")
        env.append(models.EnvVar(name=POD_UID, value_from=models.EnvVarSource(field_ref=uid)))
        env.append(models.EnvVar(name=WORKFLOW, value=OWN_WORKFLOW))
        volumes = [*volumes, ("once", bundle.ONCE, _ONCE_VOLUME)]
    # The bundle is unpacked there, because the image's own folders may not be writable.
    mounts = [("stoke", bundle.FOLDER, {"emptyDir": {}}), *volumes]
    on_node = {HOSTNAME: node} if node else {}
    with Workflow(
        name=name,
        entrypoint="main",
        labels=labels | ({AWAITS_BUNDLE: "true"} if waits else {}),
        service_account_name=argo.service_account,
        image_pull_secrets=[
            models.LocalObjectReference(name=secret) for secret in argo.image_pull_secrets
        ]
        or None,
        node_selector={**argo.node_selector, **on_node} or None,
        tolerations=[models.Toleration.model_validate(one) for one in argo.tolerations] or None,
        affinity=_prefer(nodes) if nodes else None,
        # Both override the cluster's defaults: a deleted log cannot be read later.
        ttl_strategy=models.TTLStrategy(seconds_after_completion=keep),
        pod_gc=models.PodGC(strategy="OnWorkflowCompletion", delete_delay_duration=f"{keep}s"),
        volumes=[models.Volume.model_validate({"name": one, **what}) for one, _, what in mounts],
        security_context=_pod_security() if argo.restricted else None,
        pod_spec_patch=_pod_patch(grace, argo.restricted),
        synchronization=models.Synchronization(mutexes=[models.Mutex(name=mutex)])
        if mutex
        else None,
    ) as workflow:
        Container(
            name="main",
            image=image,
            image_pull_policy="IfNotPresent",
            command=list(bundle.COMMAND),
            env=env,
            volume_mounts=[
                models.VolumeMount(
                    name=one, mount_path=path, read_only=(reads and path == CACHE) or None
                )
                for one, path, _ in mounts
            ],
            resources=_resources(limits),
            security_context=_container_security(argo.restricted),
            active_deadline_seconds=deadline,
        )
    manifest: dict[str, Any] = workflow.to_dict()
    return manifest


def _resources(limits: dict[str, str]) -> models.ResourceRequirements | None:
    from hera.workflows import models

    return models.ResourceRequirements.model_validate({"limits": limits}) if limits else None


def _prefer(nodes: tuple[str, ...]) -> models.Affinity:
    from hera.workflows import models

    return models.Affinity.model_validate(
        {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 50,
                        "preference": {
                            "matchExpressions": [
                                {"key": HOSTNAME, "operator": "In", "values": list(nodes)}
                            ]
                        },
                    }
                ]
            }
        }
    )


def _container_security(restricted: bool) -> models.SecurityContext:
    from hera.workflows import models

    return models.SecurityContext.model_validate(
        {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            **({} if restricted else {"runAsUser": 0}),
        }
    )


def _pod_security() -> models.PodSecurityContext:
    from hera.workflows import models

    return models.PodSecurityContext.model_validate(
        {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    )


def _pod_patch(grace: int, restricted: bool) -> str:
    """Return the pod fields that Argo has no field for."""
    patch: dict[str, Any] = {"terminationGracePeriodSeconds": max(1, grace)}
    if restricted:
        # Argo's own containers have to comply as well.
        secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        patch["initContainers"] = [{"name": "init", "securityContext": secure}]
        patch["containers"] = [{"name": "wait", "securityContext": secure}]
    return json.dumps(patch)


def _refuse_templates(workflow: Any, field: str = "workflow") -> None:
    """Raise `RequestError` if a field holds `{{`, which Argo would replace or reject; it has no
    escape."""
    if isinstance(workflow, str):
        # Paths of caches are ours: validated names and this one tag.
        is_folder = field.endswith(".hostPath.path")
        rest = workflow.replace(OWN_NAMESPACE, "") if is_folder else workflow
        if "{{" in rest and rest != OWN_WORKFLOW:
            raise RequestError(
                field, "contains '{{', which Argo treats as a template tag", "write it without"
            )
    elif isinstance(workflow, Mapping):
        for name, value in workflow.items():
            _refuse_templates(name, field)
            _refuse_templates(value, f"{field}.{name}")
    elif isinstance(workflow, list):
        for number, value in enumerate(workflow):
            _refuse_templates(value, f"{field}[{number}]")

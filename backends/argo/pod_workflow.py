"""One Workflow of one pod, built with hera from values that are already checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from backends.argo import bundle
from backends.argo.mounts import NOT_MOUNTED
from backends.argo.names import AWAITS_BUNDLE, TASK, WARM_NODES
from backends.argo.pod_patch import pod_patch
from backends.argo.single_start import POD_UID, WORKFLOW
from backends.argo.skeletons import skeleton
from backends.argo.task_names import ITEM, NUMBER, PARAMETER, STEP, STEPS, TEMPLATE
from backends.common.names import CACHE, WORKSPACE_NAME
from stoke.config.model import ArgoConfig
from stoke.request.spec import JobSpec

if TYPE_CHECKING:
    from hera.workflows import Container, models

HOSTNAME = "kubernetes.io/hostname"
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


# Where Kubernetes mounts the service account's token, unless something else is mounted there.
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
QUEUE = "kueue.x-k8s.io/queue-name"
INSTANCE = "workflows.argoproj.io/controller-instanceid"
TMP = "/tmp"  # noqa: S108


@dataclass(frozen=True)
class Resources:
    """What the job's container may take, and what is reserved for it."""

    limits: dict[str, str] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    gpu: str | None = None
    """The resource that counts GPUs, whose nodes are usually tainted with its name."""


def resources_of(spec: JobSpec, argo: ArgoConfig) -> Resources:
    limits = _amounts(spec.cpu, spec.memory)
    if spec.gpu is not None:
        limits[argo.gpu_resource] = str(spec.gpu)
    return Resources(
        limits,
        _amounts(spec.cpu_request, spec.memory_request),
        argo.gpu_resource if spec.gpu is not None else None,
    )


def _amounts(cpu: float | None, memory: int | None) -> dict[str, str]:
    amounts = {}
    if cpu is not None:
        amounts["cpu"] = f"{max(1, round(cpu * 1000))}m"
    if memory is not None:
        amounts["memory"] = str(memory)
    return amounts


@dataclass(frozen=True)
class SweepShape:
    """How many tasks a sweep has, and its limits."""

    tasks: int
    parallelism: int | None
    fail_fast: bool


@dataclass(frozen=True)
class PodShape:
    """What decides how a Workflow looks, beside `[argo]`. Few jobs differ in it."""

    deadline: int | None
    grace: int
    keep: int
    resources: Resources = Resources()
    secrets: Mapping[str, str] = field(default_factory=dict)
    """The pod's variable to the NAME/KEY of its secret."""
    mutex: str | None = None
    nodes: tuple[str, ...] = ()
    """Preferred, not required."""
    node: str | None = None
    reads: bool = False
    """Whether the cache is mounted read-only."""
    once: bool = False
    workspace: str | None = None
    sweep: SweepShape | None = None


def pod_workflow(
    name: str,
    labels: dict[str, str],
    argo: ArgoConfig,
    shape: PodShape,
    *,
    image: str,
    variables: Mapping[str, str],
    volumes: list[tuple[str, str, dict[str, Any]]],
    waits: bool = False,
    folders: Sequence[tuple[str, str, str]] = (),
    own_labels: Mapping[str, str] | None = None,
    own_annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a Workflow: its skeleton for this shape, with the values of the job filled in.

    `volumes` are (name, mount path, source), and `folders` of them (volume, mount path, folder in the
    volume). `own_labels` and `own_annotations` are the user's for this job, beside those of `argo`.
    """
    if shape.once:
        volumes = [*volumes, ("once", bundle.ONCE, _ONCE_VOLUME)]
    # The bundle is unpacked there, because the image's own folders may not be writable.
    mounts = [("stoke", bundle.FOLDER, {"emptyDir": {}}), *volumes]
    if argo.read_only_root:
        mounts.append(("tmp", TMP, {"emptyDir": {}}))
    if not argo.mount_token:
        mounts.append(("no-token", TOKEN_FOLDER, {"emptyDir": {}}))
    paths = [(one, path) for one, path, _ in mounts if path != NOT_MOUNTED]
    names = sorted(variables)
    manifest = skeleton(
        [argo.model_dump(mode="json"), asdict(shape), names, paths],
        lambda: _build(argo, shape, names, paths),
    )
    users = {**argo.labels, **(own_labels or {})}
    annotations = {**argo.annotations, **(own_annotations or {})}
    # Labels of a workflow do not reach its pod.
    of_pod = dict(users)
    if argo.queue:
        of_pod[QUEUE] = argo.queue
    if shape.workspace:
        of_pod[WORKSPACE_NAME] = shape.workspace
    instance = {INSTANCE: argo.instance_id} if argo.instance_id else {}
    waiting = {AWAITS_BUNDLE: "true"} if waits else {}
    spec = manifest["spec"]
    manifest["metadata"] = {"name": name, "labels": users | instance | labels | waiting}
    # For every client that reads the job's metadata, which lacks the preference itself.
    warm = {WARM_NODES: " ".join(shape.nodes)} if shape.nodes else {}
    if annotations or warm:
        manifest["metadata"]["annotations"] = annotations | warm
    if metadata := _without_empty({"labels": of_pod, "annotations": annotations}):
        spec["podMetadata"] = metadata
    spec["volumes"] = [{"name": one, **source} for one, _, source in mounts]
    (container,) = (one["container"] for one in spec["templates"] if one["name"] == TEMPLATE)
    container["image"] = image
    container["volumeMounts"] += [
        {"name": one, "mountPath": path, "subPath": folder} for one, path, folder in folders
    ]
    for variable in container.get("env", ()):
        if variable["name"] in variables:
            variable["value"] = variables[variable["name"]]
    return manifest


def _without_empty(tables: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {name: table for name, table in tables.items() if table}


def _build(
    argo: ArgoConfig, shape: PodShape, variables: list[str], mounts: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return a Workflow without its name, labels, image, volumes and values of variables."""
    from hera.workflows import Container, Parameter, Workflow, models

    env = [models.EnvVar(name=variable, value="") for variable in variables]
    env += [
        models.EnvVar(
            name=variable,
            value_from=models.EnvVarSource(
                secret_key_ref=models.SecretKeySelector(
                    name=reference.partition("/")[0], key=reference.partition("/")[2]
                )
            ),
        )
        for variable, reference in shape.secrets.items()
    ]
    if shape.once:
        uid = models.ObjectFieldSelector(field_path="metadata.uid")
        env.append(models.EnvVar(name=POD_UID, value_from=models.EnvVarSource(field_ref=uid)))
        env.append(models.EnvVar(name=WORKFLOW, value=OWN_WORKFLOW))
    on_node = {HOSTNAME: shape.node} if shape.node else {}
    with Workflow(
        name="filled-in",
        entrypoint=TEMPLATE if shape.sweep is None else STEPS,
        pod_priority_class_name=argo.priority_class,
        priority=argo.priority,
        service_account_name=argo.service_account,
        image_pull_secrets=[
            models.LocalObjectReference(name=secret) for secret in argo.image_pull_secrets
        ]
        or None,
        node_selector={**argo.node_selector, **on_node} or None,
        tolerations=[
            models.Toleration.model_validate(one) for one in _tolerations(argo, shape.resources.gpu)
        ]
        or None,
        affinity=_affinity(argo, shape.nodes, shape.workspace),
        # Both override the cluster's defaults: a deleted log cannot be read later.
        ttl_strategy=models.TTLStrategy(seconds_after_completion=shape.keep),
        pod_gc=models.PodGC(
            strategy="OnWorkflowCompletion", delete_delay_duration=f"{shape.keep}s"
        ),
        security_context=_pod_security() if argo.restricted else None,
        pod_spec_patch=json.dumps(pod_patch(shape.grace, argo)),
        synchronization=_synchronization(argo, shape.mutex),
    ) as workflow:
        task = Container(
            name=TEMPLATE,
            inputs=[Parameter(name=PARAMETER)] if shape.sweep else None,
            labels={TASK: NUMBER} if shape.sweep else None,
            image="filled-in",
            image_pull_policy=argo.image_pull_policy,
            command=list(bundle.COMMAND),
            env=env,
            volume_mounts=[
                models.VolumeMount(
                    name=one, mount_path=path, read_only=(shape.reads and path == CACHE) or None
                )
                for one, path in mounts
            ],
            resources=_requirements(shape.resources),
            security_context=_container_security(argo),
            active_deadline_seconds=shape.deadline,
        )
        if shape.sweep is not None:
            _add_steps(task, shape.sweep)
    manifest: dict[str, Any] = workflow.to_dict()
    return manifest


def _add_steps(task: Container, sweep: SweepShape) -> None:
    """Add the template that starts a task for each number.

    Argo's `failFast` starts no more after a failure; without it all tasks run.
    """
    from hera.workflows import Parameter, Step, Steps, models

    with Steps(name=STEPS, parallelism=sweep.parallelism, fail_fast=sweep.fail_fast or None):
        Step(
            name=STEP,
            template=task,
            arguments=[Parameter(name=PARAMETER, value=ITEM)],
            with_sequence=models.Sequence.model_validate({"start": "1", "end": str(sweep.tasks)}),
        )


def _requirements(resources: Resources) -> models.ResourceRequirements | None:
    from hera.workflows import models

    given = {"limits": resources.limits, "requests": resources.requests}
    given = {name: amounts for name, amounts in given.items() if amounts}
    return models.ResourceRequirements.model_validate(given) if given else None


def _tolerations(argo: ArgoConfig, gpu: str | None) -> list[dict[str, Any]]:
    """Return the configured tolerations, and for a GPU that of its nodes' usual taint."""
    tolerations: list[dict[str, Any]] = [*argo.tolerations]
    if gpu is not None and all(one.get("key") != gpu for one in tolerations):
        tolerations.append({"key": gpu, "operator": "Exists", "effect": "NoSchedule"})
    return tolerations


def _synchronization(argo: ArgoConfig, mutex: str | None) -> models.Synchronization | None:
    from hera.workflows import models

    mutexes = [*argo.mutexes, *([mutex] if mutex else [])]
    semaphores = [one.partition("/") for one in argo.semaphores]
    if not mutexes and not semaphores:
        return None
    return models.Synchronization(
        mutexes=[models.Mutex(name=one) for one in mutexes] or None,
        semaphores=[
            models.SemaphoreRef(
                config_map_key_ref=models.ConfigMapKeySelector(name=config_map, key=key)
            )
            for config_map, _, key in semaphores
        ]
        or None,
    )


def _affinity(
    argo: ArgoConfig, nodes: tuple[str, ...], workspace: str | None
) -> models.Affinity | None:
    """Return the configured affinity, with a preference for nodes if some are warm. The node of the
    other pods of a workspace is required, if there are any.

    The first of these pods may go to any node, because the rule also describes itself.
    """
    from hera.workflows import models

    affinity: dict[str, Any] = dict(argo.affinity)
    if nodes:
        preferred = "preferredDuringSchedulingIgnoredDuringExecution"
        of_nodes = dict(affinity.get("nodeAffinity") or {})
        of_nodes[preferred] = [*(of_nodes.get(preferred) or ()), _preference(nodes)]
        affinity["nodeAffinity"] = of_nodes
    if workspace:
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        same = {
            "labelSelector": {"matchLabels": {WORKSPACE_NAME: workspace}},
            "topologyKey": HOSTNAME,
        }
        of_pods = dict(affinity.get("podAffinity") or {})
        of_pods[required] = [*(of_pods.get(required) or ()), same]
        affinity["podAffinity"] = of_pods
    return models.Affinity.model_validate(affinity) if affinity else None


def _preference(nodes: tuple[str, ...]) -> dict[str, Any]:
    own = {"key": HOSTNAME, "operator": "In", "values": list(nodes)}
    return {"weight": 50, "preference": {"matchExpressions": [own]}}


def _container_security(argo: ArgoConfig) -> models.SecurityContext:
    from hera.workflows import models

    return models.SecurityContext.model_validate(
        {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            **({} if argo.restricted else {"runAsUser": 0}),
            **({"readOnlyRootFilesystem": True} if argo.read_only_root else {}),
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

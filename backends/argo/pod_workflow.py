"""One Workflow of one pod, built with hera from values that are already checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backends.argo import bundle
from backends.argo.names import AWAITS_BUNDLE
from backends.argo.single_start import POD_UID, WORKFLOW
from backends.common.names import CACHE
from stoke.config.model import ArgoConfig

if TYPE_CHECKING:
    from hera.workflows import models

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


def limits_of(cpu: float | None, memory: int | None) -> dict[str, str]:
    limits = {}
    if cpu is not None:
        limits["cpu"] = f"{max(1, round(cpu * 1000))}m"
    if memory is not None:
        limits["memory"] = str(memory)
    return limits


def pod_workflow(
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

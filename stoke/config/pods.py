"""How the pods of jobs look on a cluster: what platform teams and their policies require of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stoke.config.section import Section
from stoke.request.spec import Annotations, Labels

KUBERNETES_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
KubernetesName = Annotated[str, Field(pattern=KUBERNETES_NAME)]
ObjectKey = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,252}/[A-Za-z0-9._-]{1,253}$")]
"""NAME/KEY: a secret or ConfigMap of a cluster and one of its keys."""
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i)?$")]
"""https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
AFFINITIES = ("nodeAffinity", "podAffinity", "podAntiAffinity")
# Fields of a pod that change neither what stoke mounts and runs nor how it learns of the end.
PATCHABLE = (
    "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks",
    "hostAliases", "hostUsers", "imagePullSecrets", "nodeSelector", "os", "overhead",
    "preemptionPolicy", "priorityClassName", "readinessGates", "resourceClaims", "runtimeClassName",
    "schedulerName", "schedulingGates", "securityContext", "setHostnameAsFQDN", "tolerations",
    "topologySpreadConstraints",
)  # fmt: skip
PATCHABLE_OF_CONTAINERS = ("imagePullPolicy", "name", "resources", "securityContext")
CONTAINERS = {"containers": ("main", "wait"), "initContainers": ("init",)}


class ContainerResources(Section):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class PodSettings(Section):
    """Settings of pods that can differ between jobs: `[argo]` has them for all jobs, and
    `[argo.profiles.NAME]` for jobs that name the profile."""

    image: str | None = None
    """Image of requests that name none; by default the public Python image."""
    service_account: KubernetesName | None = None
    """Service account of Argo's part of each pod; by default the namespace's default."""
    labels: Labels = {}
    """On each Workflow and pod, also of housekeeping, and on all that `stoke setup argo` creates."""
    annotations: Annotations = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str | int], ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    queue: KubernetesName | None = None
    """Kueue's local queue that admits the pods."""
    priority_class: KubernetesName | None = None
    priority: int | None = None
    """Priority of the Workflow where the controller limits how many run at once."""
    mutexes: tuple[KubernetesName, ...] = ()
    """Argo's mutexes that a job holds while it runs."""
    semaphores: tuple[ObjectKey, ...] = ()
    """Argo's semaphores, each the key of a ConfigMap that has the number."""
    runtime_class: KubernetesName | None = None
    affinity: dict[str, Any] = {}
    topology_spread: tuple[dict[str, Any], ...] = ()
    host_aliases: tuple[dict[str, Any], ...] = ()
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = None
    dns_config: dict[str, Any] = {}
    read_only_root: bool = False
    """Whether the containers' root file systems are read-only. The code can write to /tmp, its caches
    and its working directory."""
    mount_token: bool = False
    """Whether the code finds the service account's token, to use the cluster's API itself."""
    executor_resources: ContainerResources = Field(
        default_factory=ContainerResources.model_construct
    )
    """Requests and limits of Argo's own containers, for namespaces that demand them of all."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """The resource that `--gpu` counts."""
    pod_patch: dict[str, Any] = {}
    """A strategic merge patch for the pod, for fields that have no setting here."""

    @field_validator("affinity")
    @classmethod
    def _affinity(cls, affinity: dict[str, Any]) -> dict[str, Any]:
        for name in affinity:
            if name not in AFFINITIES:
                raise ValueError(f"has no field {name!r}; it has {', '.join(AFFINITIES)}")
        return affinity

    @field_validator("pod_patch")
    @classmethod
    def _pod_patch(cls, patch: dict[str, Any]) -> dict[str, Any]:
        for name, value in patch.items():
            if name in CONTAINERS:
                _check_containers(name, value)
            elif name not in PATCHABLE:
                raise ValueError(
                    f"cannot change {name!r}, which stoke needs as it is; it can change "
                    f"{', '.join((*PATCHABLE, *CONTAINERS))}"
                )
        return patch

    def merged_with(self, profile: PodSettings) -> dict[str, Any]:
        """Return the settings that a profile changes: its tables are added to the tables here."""
        changes = {}
        for name in profile.model_fields_set:
            mine, theirs = getattr(self, name), getattr(profile, name)
            changes[name] = {**mine, **theirs} if isinstance(theirs, dict) else theirs
        return changes


def _check_containers(name: str, containers: Any) -> None:
    own = CONTAINERS[name]
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise ValueError(f"{name} must be a list of tables")
    for container in containers:
        if container.get("name") not in own:
            raise ValueError(
                f"{name} of a job are called {' and '.join(own)}, and no others are added"
            )
        for field in container:
            if field not in PATCHABLE_OF_CONTAINERS:
                raise ValueError(
                    f"cannot change {field!r} of a container, which stoke needs as it is; it can "
                    "change imagePullPolicy, resources and securityContext"
                )

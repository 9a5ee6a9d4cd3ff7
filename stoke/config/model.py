"""The settings: what each is called, its type and its default. `stoke.config.loader` reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stoke.request.spec import IndexSettings, Memory, NixSettings, Scope, Seconds

_KUBERNETES_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


SecretKey = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,252}/[A-Za-z0-9._-]{1,253}$")]
"""A secret of a cluster and one of its keys."""


class Section(BaseModel):
    # The defaults need no validation, and building it takes 12 ms of a start. Not for models that
    # threads may validate first at the same time: pydantic's deferred build is not safe for that.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class DockerConfig(Section):
    """The Docker engine and what every container there gets."""

    host: str | None = None
    """The engine's address; without it DOCKER_HOST, the current docker context, the default socket."""
    image: str | None = None
    """The image when a request names none; without it the one `stoke setup image` made, or else the
    public Python image."""
    network: str | None = None
    """The network to attach to ("none" cuts jobs off); without it the engine's default."""
    pids_limit: int = Field(default=4096, gt=0)


class ArgoConfig(Section):
    """The cluster and namespace where Argo Workflows runs jobs, and what every pod there gets."""

    context: str | None = None
    """Of the kubeconfig; without it the current one."""
    namespace: str | None = None
    """Without it the context's."""
    kubeconfig: str | None = None
    """Without it KUBECONFIG, then ~/.kube/config, then the pod that this runs in."""
    image: str | None = None
    """The image when a request names none; without it the public Python image."""
    service_account: str | None = Field(default=None, pattern=_KUBERNETES_NAME)
    """Who Argo's part of each pod is; without it the namespace's default."""
    cache: Literal["hostpath", "claim", "shared-claim", "none"] = "hostpath"
    """Where caches live: a folder of each node; a claim that one node mounts at a time; a claim that
    all nodes mount, with one job of a scope at a time; nowhere."""
    cache_path: str = Field(default="/var/lib/stoke", pattern=r"^/[A-Za-z0-9._/-]+$")
    """The nodes' folder, for "hostpath"."""
    cache_shared: bool = False
    """Whether the caches in the nodes' folders are shared by every namespace whose users say so, too;
    without it each namespace has its own."""
    claim_size: str = Field(default="20Gi", pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)?$")
    storage_class: str | None = Field(default=None, pattern=_KUBERNETES_NAME)
    """For claims; without it the cluster's default."""
    by_template: bool = False
    """Jobs refer to a WorkflowTemplate that `stoke setup argo` makes for their scope: for clusters that
    run nothing else (`templateReferencing: Strict` or `Secure`)."""
    template_secrets: tuple[SecretKey, ...] = ()
    """The secrets of the cluster, each as NAME/KEY, that such a WorkflowTemplate lets jobs name."""
    restricted: bool = False
    """Jobs run as user 1000 without anything that Pod Security `restricted` forbids. Without root there
    are no system packages."""
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str | int], ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    start_timeout: Seconds = 300.0
    """Seconds after which a pod that cannot start on its node (no image, no secret) is given up."""
    keep: Seconds = 86400.0
    """Seconds for which a finished workflow, its pod and its log stay: for somebody who comes late, and
    in Argo's own screens."""
    at_most_once: bool = False
    """Whether a job's code must not start a second time where Argo makes its pod again. The job then
    asks the API server before it starts, with the right to create and patch task results."""
    delete_finished: bool = False
    """Whether a job's workflow is deleted as soon as its log and end are saved on this machine, which
    is often before Argo has seen it finish."""


class LogConfig(Section):
    max_size: Memory = 200 * 1024**2
    """How much of one job's log the engine keeps, in bytes, before it drops the oldest part."""
    spool_max: Memory = 2 * 1024**3
    """How much the logs of finished jobs may take on this machine, in bytes. Beyond it the logs of the
    jobs that finished first go; never the newest, and never one that is still written."""


class ScopeConfig(Section):
    """What is said of one scope: `[scopes.NAME]`."""

    max_size: Memory | None = None
    """How much its caches may hold together, in bytes; without it, the budget of every scope."""


class Config(Section):
    """Everything that can be configured. A request's own fields win over these."""

    backend: str = "local"
    scope: Scope = "default"
    lock_ttl: int = Field(default=24 * 3600, ge=0)
    """Seconds for which a stored lock answers without asking the index."""
    stop_grace: float = Field(default=10, ge=0)
    """Seconds between a polite stop and a hard one."""
    theme: str | None = None
    """The screens' colours; without it those chosen last in the program."""
    read_only: bool = False
    """The screens look and change nothing: no submit, stop, remove, clear, prune or warm."""
    mouse: bool = True
    """Whether the screens take the mouse from the terminal; a key switches it as well."""
    bell: Literal["off", "bell", "desktop"] = "bell"
    """How the screens call when a long job ends: not at all, the terminal's bell, or its desktop
    notification (OSC 9) with the bell."""
    bell_after: float = Field(default=30, ge=0)
    """Seconds that a job must have taken to be called for."""
    index: IndexSettings = IndexSettings()
    nix: NixSettings = NixSettings()
    on_cache_trouble: Literal["uncached", "fail"] = "uncached"
    """What a job does whose cache is full, read-only or gone: go on without it, or fail."""
    max_size: Memory | None = None
    """How much each scope's caches may hold together, in bytes: python and system, on one node. What is
    least recently used goes after a job that added to them; without it nothing goes by itself."""
    scopes: dict[Scope, ScopeConfig] = {}
    docker: DockerConfig = Field(default_factory=DockerConfig.model_construct)
    argo: ArgoConfig = Field(default_factory=ArgoConfig.model_construct)
    log: LogConfig = Field(default_factory=LogConfig.model_construct)
    color: Literal["auto", "never"] = "auto"

    def budget(self, scope: str) -> int | None:
        """Bytes that a scope's caches may hold together; None: as much as there is room for."""
        own = self.scopes.get(scope)
        return own.max_size if own and own.max_size is not None else self.max_size

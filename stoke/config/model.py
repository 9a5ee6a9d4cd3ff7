"""The settings, with types and defaults. `stoke.config.loader` reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from stoke.config.pods import KUBERNETES_NAME, ObjectKey, PodSettings
from stoke.config.section import Section
from stoke.errors import RequestError
from stoke.files.paths import config_file
from stoke.request.quantities import Memory, Seconds
from stoke.request.spec import IndexSettings, NixSettings, Scope

_LABEL_VALUE = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"


class LocalConfig(Section):
    """Jobs on this machine."""

    gpus: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,100}$")], ...] | None = None
    """The GPUs that jobs may have, as CUDA_VISIBLE_DEVICES names them: "0" or "GPU-8932f937-...". By
    default those that CUDA_VISIBLE_DEVICES names, else all that nvidia-smi lists."""


class DockerConfig(Section):
    """The Docker engine, and settings of every container."""

    host: str | None = None
    """Address of the engine; by default DOCKER_HOST, the current docker context or the default
    socket."""
    image: str | None = None
    """Image of requests that name none; by default the one that `stoke setup image` built, or else the
    public Python image."""
    network: str | None = None
    """Network of the containers ("none": no network); by default the engine's default."""
    pids_limit: int = Field(default=4096, gt=0)


class ArgoConfig(PodSettings):
    """The cluster and namespace where Argo Workflows runs jobs, and settings of every pod."""

    context: str | None = None
    """Context of the kubeconfig; by default the current one."""
    namespace: str | None = None
    """By default the context's."""
    kubeconfig: str | None = None
    """By default KUBECONFIG, then ~/.kube/config, then the service account of the pod that
    runs stoke."""
    instance_id: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
    )
    """The instance id of the Argo controller that shall run the jobs, for clusters with several."""
    cache: Literal["hostpath", "claim", "shared-claim", "none"] = "hostpath"
    """Storage of the caches: a folder of each node; a claim that one node mounts at a
    time; a claim that all nodes mount, with one job of a scope at a time; none."""
    cache_path: str = Field(default="/var/lib/stoke", pattern=r"^/[A-Za-z0-9._/-]+$")
    """Folder on the nodes, for "hostpath"."""
    cache_shared: bool = False
    """Whether namespaces that set this share the caches in the nodes' folders; otherwise each namespace
    has its own."""
    claim_size: str = Field(default="20Gi", pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)?$")
    storage_class: str | None = Field(default=None, pattern=KUBERNETES_NAME)
    """For claims; by default the cluster's default."""
    by_template: bool = False
    """Whether jobs refer to a WorkflowTemplate that `stoke setup argo` makes for their scope:
    for clusters that run nothing else (`templateReferencing: Strict` or `Secure`)."""
    template_secrets: tuple[ObjectKey, ...] = ()
    """Secrets of the cluster that such a WorkflowTemplate lets jobs name."""
    restricted: bool = False
    """Whether jobs run as user 1000, without anything that Pod Security `restricted` forbids. Without
    root there are no system packages."""
    profiles: dict[Scope, PodSettings] = {}
    """Named sets of settings for the pods of jobs that ask for them with `--profile`."""
    start_timeout: Seconds = 300.0
    """Seconds after which a job fails whose pod cannot start on its node (no image, no secret)."""
    keep: Seconds = 86400.0
    """Seconds for which a finished workflow, its pod and its log stay in the cluster, for
    stoke on other machines and for Argo's own screens."""
    at_most_once: bool = False
    """Whether a job's code must not start a second time when Argo creates its pod again. The job then
    asks the API server before it starts, and needs the right to create and patch task results."""
    delete_finished: bool = False
    """Whether a job's workflow is deleted as soon as its log and end are saved on this machine, which
    is often before Argo has seen it finish."""

    def with_profile(self, name: str | None) -> Self:
        """Return the settings for a job that asks for a profile. `RequestError` if there is none."""
        if name is None:
            return self
        profile = self.profiles.get(name)
        if profile is None:
            raise unknown_profile(name, self.profiles)
        return self.model_copy(update=self.merged_with(profile))


def unknown_profile(name: str, known: Iterable[str]) -> RequestError:
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, 1)
    if near:
        hint = f"did you mean --profile {near[0]}?"
    elif names:
        hint = f"choose one of: {', '.join(names)}"
    else:
        hint = f"write the table [argo.profiles.{name}] into {config_file()}"
    return RequestError("profile", f"the configuration has no profile called {name!r}", hint)


class MountsConfig(Section):
    """What jobs may see of this machine by `--mount` (local and docker)."""

    roots: tuple[str, ...] | None = None
    """Folders that sources have to be in, once links are resolved; by default your home folder and the
    current one."""


class LogConfig(Section):
    max_size: Memory = 200 * 1024**2
    """Bytes of one job's log that the engine keeps before it drops the oldest part."""
    spool_max: Memory = 2 * 1024**3
    """Bytes that the logs of finished jobs may take on this machine. Beyond that the logs of the jobs
    that finished first are removed, but never the newest one and none that is still written."""


class ResultsConfig(Section):
    max_size: Memory = 10 * 1024**3
    """Bytes that the results of one job may take; larger ones stay at the engine."""
    max_inputs: Memory = 1024**3
    """Bytes of results that a job gets of the jobs that it follows; with more it does not start."""
    keep_max: Memory = 20 * 1024**3
    """Bytes that all collected results may take on this machine. Beyond that the results of the jobs
    that finished first are removed, but never the newest ones."""
    keep: Seconds | None = None
    """Seconds after which collected results are removed; by default they are kept."""


class ProjectConfig(Section):
    max_size: Memory = 50 * 1024**2
    """Bytes that the files of a project may take; a larger project is refused."""


class NotifyConfig(Section):
    """What jobs with --notify tell of their end: a program, a web address, or both."""

    command: tuple[str, ...] = ()
    """Program and arguments; it gets the job as JSON on its standard input."""
    webhook: str | None = None
    """Address that gets the job as the JSON body of a POST: https, or http on this machine."""
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]{1,100}$")
    """Header of the request that has the secret."""
    secret: str | None = Field(default=None, pattern=r"^(env|file):.+$")
    """Where the secret is read when a job ends: "file:/path" or "env:NAME"."""
    always: bool = False
    """Whether all jobs tell of their end."""

    @field_validator("webhook")
    @classmethod
    def _webhook(cls, address: str | None) -> str | None:
        from stoke.notify.webhook import is_allowed

        if address is not None and not is_allowed(address):
            raise ValueError(
                "is not an address that jobs may be sent to; write https://host/path, or "
                "http://localhost/path for this machine, without a login"
            )
        return address

    @property
    def is_set(self) -> bool:
        return bool(self.command or self.webhook)


class QueueConfig(Section):
    """The queue of local and Docker jobs that nothing waits for."""

    slots: int | None = Field(default=None, ge=1)
    """How many jobs of a backend run at once; by default one for each core of this machine, and at most
    one for each GiB of its memory."""
    retry_delay: Seconds = 5.0
    """Seconds before the second attempt of a job with retries; each further pause is twice as long, up
    to five minutes."""


class ListenConfig(Section):
    """Where a server listens, and who may use it."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    certificate: str | None = None
    """File with the server's certificate, for TLS; the key is in `key`, or in the same file."""
    key: str | None = None
    hosts: tuple[str, ...] = ()
    """Names by which clients reach the server, beside its address. Requests for others are refused."""
    origins: tuple[str, ...] = ()
    """Web pages whose scripts may use the server: "https://jobs.example.org". By default none may."""


class ServeConfig(ListenConfig):
    """The server of `stoke serve`."""

    port: int = Field(default=8766, ge=0, le=65535)
    sessions: int = Field(default=8, gt=0)
    """Screens that may be open at the same time."""
    linger: float = Field(default=30, ge=0, le=86400)
    """Seconds for which screens wait for their browser to come back, before they are ended."""


class ApiConfig(ListenConfig):
    """The server of `stoke api`."""

    port: int = Field(default=8765, ge=0, le=65535)
    secrets: tuple[str, ...] = ()
    """References that requests may name: "env:HF_TOKEN", "secret:hub/token". By default none."""
    backends: tuple[str, ...] | None = None
    """Backends that requests may name; by default all."""
    max_body: Memory = 16 * 1024**2
    """Bytes of one request."""
    rate: float = Field(default=400, gt=0)
    """Requests a second of one token; twice as many may come at once."""
    streams: int = Field(default=256, gt=0)
    """Logs that are followed and results that are sent at the same time."""
    queue: int = Field(default=5000, gt=0)
    """Jobs that may wait in the queue; further ones are refused."""


class ScopeConfig(Section):
    """Settings of one scope: `[scopes.NAME]`."""

    slots: int | None = Field(default=None, ge=1)
    """How many of its jobs run at once on a backend; by default as many as there are slots."""

    max_size: Memory | None = None
    """Bytes that its caches may hold together; by default `max_size` of the configuration."""


class Config(Section):
    """All settings. The fields of a request win over them."""

    backend: str = "local"
    scope: Scope = "default"
    lock_ttl: int = Field(default=24 * 3600, ge=0)
    """Seconds for which a stored lockfile is used without asking the index."""
    stop_grace: float = Field(default=10, ge=0)
    """Seconds between SIGTERM and SIGKILL when a job is stopped."""
    theme: str | None = None
    """Theme of the screens; by default the one chosen last."""
    read_only: bool = False
    """Whether the screens change nothing: no submit, stop, remove, clear, prune or warm."""
    mouse: bool = True
    """Whether the screens capture the mouse; a key switches this too."""
    bell: Literal["off", "bell", "desktop"] = "bell"
    """Signal of the screens when a long job ends: none, the terminal's bell, or a desktop notification
    (OSC 9) with the bell."""
    bell_after: float = Field(default=30, ge=0)
    """Seconds that a job must have taken for this signal."""
    index: IndexSettings = IndexSettings()
    nix: NixSettings = NixSettings()
    on_cache_trouble: Literal["uncached", "fail"] = "uncached"
    """What a job does when its cache is full, read-only or missing: run without it, or fail."""
    max_size: Memory | None = None
    """Bytes that the caches of each scope may hold together: python and system, on one node.
    After a job that added to them, the least recently used entries are removed; by default none are."""
    scopes: dict[Scope, ScopeConfig] = {}
    local: LocalConfig = Field(default_factory=LocalConfig.model_construct)
    docker: DockerConfig = Field(default_factory=DockerConfig.model_construct)
    argo: ArgoConfig = Field(default_factory=ArgoConfig.model_construct)
    mounts: MountsConfig = Field(default_factory=MountsConfig.model_construct)
    log: LogConfig = Field(default_factory=LogConfig.model_construct)
    results: ResultsConfig = Field(default_factory=ResultsConfig.model_construct)
    project: ProjectConfig = Field(default_factory=ProjectConfig.model_construct)
    queue: QueueConfig = Field(default_factory=QueueConfig.model_construct)
    notify: NotifyConfig = Field(default_factory=NotifyConfig.model_construct)
    api: ApiConfig = Field(default_factory=ApiConfig.model_construct)
    serve: ServeConfig = Field(default_factory=ServeConfig.model_construct)
    color: Literal["auto", "never"] = "auto"

    def budget(self, scope: str) -> int | None:
        """Return the bytes that a scope's caches may hold together; None for no limit."""
        own = self.scopes.get(scope)
        return own.max_size if own and own.max_size is not None else self.max_size

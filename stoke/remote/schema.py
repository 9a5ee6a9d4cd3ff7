"""The types of what travels into jobs. Only type checkers and the side outside of jobs load this."""

from __future__ import annotations

from typing import Any, TypedDict


class IndexPayload(TypedDict):
    """Package indexes, with logins in their addresses, and the network settings for them."""

    url: str | None
    extra: list[str]
    proxy: str | None
    ca_bundle: str | None
    """PEM text that replaces all other certificate authorities."""
    authorities: list[str]
    """Certificate authorities, as PEM, that the submitting machine trusts besides the public ones."""
    proxies: dict[str, str]
    """Lower-case proxy variables of the submitting machine."""
    secrets: list[str]
    """Texts that must not appear in events or logs."""


class SystemPayload(TypedDict):
    """System packages, and where Nix gets them."""

    packages: list[str]
    """In the order in which their programs are on PATH."""
    request: str
    """The hash of this request for system packages."""
    url: str
    sha256: str
    substituters: list[str] | None
    trusted_keys: list[str] | None


class UvSettingsPayload(TypedDict):
    """uv's configuration for one request; `stoke.delivery.uv_config.UvConfig` explains the fields."""

    lock: str
    install: str
    project: str | None
    unnamed: list[str]
    lines: list[str]
    header: list[str]
    build: list[Any]
    indexes: dict[str, str]
    several: bool
    strategy: str | None
    environment: dict[str, str]


class Wheel(TypedDict):
    name: str
    sha256: str


class UvRelease(TypedDict):
    """The uv that a job downloads where its image has none."""

    version: str
    wheels: dict[str, Wheel]
    """By machine, as `platform.machine()` names it."""
    index: str | None


class Start(TypedDict):
    """What the job starts: `code` (that of the payload), or a part of its project."""

    kind: str
    """"code", "script" (a path in the project), "module", "program" (one of the environment) or "shell"
    (the job waits for `stoke.remote.session`)."""
    name: str


class ProjectPayload(TypedDict):
    """The snapshot that the job gets; `stoke.project.manifest` describes its manifest."""

    digest: str
    """The SHA-256 of the manifest."""
    copy: str | None
    """The name of this project's copies on the cache volume, 16 hexadecimal digits; None for none."""
    directory: str
    """The working directory, relative to the project's root."""
    import_path: list[str]
    """Folders of the project, relative to its root, that the interpreter imports from."""
    programs: list[str]
    """Folders of the project, relative to its root, whose programs are on PATH."""
    compiled: list[list[str]]
    """Packages with modules to compile: the folder of each, and that it is imported from."""


class Payload(TypedDict):
    """Everything that a job needs besides the runner; it travels as gzip of JSON.

    Change `stoke.remote.protocol.PAYLOAD_VERSION` together with the meaning of a field.
    """

    version: int
    nonce: str
    """Marks the event frames of this job."""
    program: str
    """The name of the code's file, in sys.argv[0] and in tracebacks."""
    code: str
    encoding: str
    """The encoding that the code declares; its file is written in it."""
    start: Start
    project: ProjectPayload | None
    args: list[str]
    env: dict[str, str]
    """Variables for the code, with secrets resolved."""
    withheld: list[str]
    """Variables that the code must not inherit."""
    python: str | None
    """A version such as "3.12", or bounds such as ">=3.11,<3.14"."""
    system: SystemPayload | None
    requirements: list[str]
    """Lines of a requirements file; an empty list is a job without packages."""
    pre: bool
    constraints: list[str]
    hashes: dict[str, list[str]]
    """Canonical name to the hashes that the user allows."""
    require_hashes: bool
    lock: list[tuple[str, list[str], str | None]] | None
    """(requirement, hashes, index) for each line of the user's own lockfile."""
    request: str | None
    """The hash of this request for Python packages; None without packages."""
    lock_ttl: int
    """Seconds for which a stored lockfile is used."""
    upgrade: bool
    use_cache: bool
    on_cache_trouble: str
    """Where the cache is full, read-only or missing: "uncached" goes on without it, "fail" does not."""
    compile: bool
    """Whether to compile every module of the environment to bytecode."""
    lock_only: bool
    """Print the lockfile; build and run nothing."""
    timeout: float | None
    results: list[str]
    """Patterns of files in the working directory that are results (`stoke.remote.runner.results`)."""
    checkpoint: str | None
    """The name of the checkpoint's folder on the cache volume."""
    hold: float | None
    """Seconds for which the job waits after its code has failed."""
    live_output: str
    """The source of `stoke.remote.live_output`."""
    index: IndexPayload
    settings: UvSettingsPayload
    uv: UvRelease


class Operation(TypedDict, total=False):
    """What housekeeping does: its second argument, as JSON."""

    kind: str
    """The kind of volume: "python" or "system"."""
    do: str
    """"usage", "prune", "clear", "lock", "send-results" or "drop-results"."""
    lock_ttl: float
    """Seconds for which a stored lockfile counts as in use."""
    unused: float | None
    """prune: remove environments unused for this many seconds."""
    max_bytes: int | None
    """prune: remove the least recently used until the volume holds no more than this."""
    dry_run: bool
    """prune: report what would be removed, and remove nothing."""
    key: str
    """lock: the environment."""
    path: str
    """workspace: a path in it."""
    name: str
    """workspace: the name of what is copied."""
    to: str
    """workspace: the folder that it is duplicated into."""
    job: str
    """send-results: the job."""
    offset: int
    """send-results: where the stream begins; `max_bytes` is how much of it is sent."""
    jobs: list[str]
    """drop-results: the jobs."""

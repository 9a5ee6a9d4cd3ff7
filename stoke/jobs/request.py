"""A request: a spec and the choices for one submission of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stoke.cache.keys import RequestKeys
from stoke.delivery.network import NOTHING, Network
from stoke.delivery.payload import make_payload
from stoke.request.spec import JobSpec

if TYPE_CHECKING:
    from stoke.config.model import Config


@dataclass(frozen=True)
class Request:
    """A spec, the job's name, and how the caches are used for it."""

    spec: JobSpec
    name: str = "job"
    program: str | None = None
    """The file name that the code sees in sys.argv[0]. The default is main.py: a script with the job's
    name would hide a package of that name from the code."""
    upgrade: bool = False
    lock_ttl: int = 24 * 3600
    """Seconds for which a stored lockfile is used without asking the index."""
    on_cache_trouble: str = "uncached"
    """If the cache is full, read-only or missing: "uncached" continues without it, "fail" fails."""
    compile_bytecode: bool = False
    """Compile every module of the environment, so that the next job's imports do not."""
    lock_only: bool = False
    """Resolve and print the lockfile; build and run nothing."""
    checkpoint: str | None = None
    """The name of the job whose checkpoint this one continues; by default its own (see
    `stoke.delivery.checkpoints`)."""
    schedule: str | None = None
    """The schedule that the job is a run of."""
    notes: tuple[str, ...] = ()
    """What the user should know about the request before it runs."""
    max_project: int = 50 * 1024**2
    """Bytes that the files of the project may take."""
    needs_project: bool = True
    """Whether the request is refused if its project has too many files or bytes. Otherwise its code
    then runs without them, unless it imports some."""
    project_files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents that the snapshot of the project has besides its files, by path."""

    @classmethod
    def configured(cls, spec: JobSpec, config: Config, **choices: Any) -> Request:
        """Return a request with the settings of the configuration that are not in its spec."""
        return cls(
            spec,
            lock_ttl=config.lock_ttl,
            on_cache_trouble=config.on_cache_trouble,
            max_project=config.project.max_size,
            **choices,
        )

    @property
    def seen_as(self) -> str:
        return self.program or "main.py"

    def payload(
        self,
        spec: JobSpec,
        keys: RequestKeys,
        nonce: str,
        network: Network = NOTHING,
        with_logins: bool = True,
        checkpoint: str | None = None,
    ) -> bytes:
        """Return what travels with the job. `spec` is this request's, or a copy without its secrets."""
        return make_payload(
            spec,
            keys,
            nonce=nonce,
            program=self.seen_as,
            lock_ttl=self.lock_ttl,
            upgrade=self.upgrade,
            on_cache_trouble=self.on_cache_trouble,
            compile_bytecode=self.compile_bytecode,
            lock_only=self.lock_only,
            checkpoint=checkpoint,
            with_logins=with_logins,
            network=network,
        )

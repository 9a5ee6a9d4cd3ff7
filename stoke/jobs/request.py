"""A request: a spec with what is chosen around it for one submission."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.delivery.network import NOTHING, Network
from stoke.delivery.payload import make_payload
from stoke.request.spec import JobSpec


@dataclass(frozen=True)
class Request:
    """A spec with what is chosen around it: name, backend, and whether a stored lock may answer."""

    spec: JobSpec
    name: str = "job"
    program: str | None = None
    """What the code sees as sys.argv[0]; without one, main.py: a script that has the job's name
    would hide a package of that name from the code."""
    upgrade: bool = False
    lock_ttl: int = 24 * 3600
    """Seconds for which a stored lock answers without asking the index."""
    on_cache_trouble: str = "uncached"
    """Where the cache is full, read-only or gone: "uncached" goes on without it, "fail" does not."""
    compile_bytecode: bool = False
    """Compile every module of the environment, so that the next job's imports do not."""
    lock_only: bool = False
    """Resolve and print the lock; build and run nothing."""

    @property
    def seen_as(self) -> str:
        return self.program or "main.py"

    def payload(
        self,
        spec: JobSpec,
        nonce: str,
        network: Network = NOTHING,
        with_logins: bool = True,
    ) -> bytes:
        """What travels with the job; `spec` is this request's, or that without what stays here."""
        return make_payload(
            spec,
            nonce=nonce,
            program=self.seen_as,
            lock_ttl=self.lock_ttl,
            upgrade=self.upgrade,
            on_cache_trouble=self.on_cache_trouble,
            compile_bytecode=self.compile_bytecode,
            lock_only=self.lock_only,
            with_logins=with_logins,
            network=network,
        )

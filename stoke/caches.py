"""The caches: what they saved, told from the history; what they hold; and keeping that in bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stoke.errors import EngineError
from stoke.history import CacheSize
from stoke.job import Job, Phase

if TYPE_CHECKING:
    from stoke.backend import Backend, Volume
    from stoke.history import History


@dataclass(frozen=True)
class Savings:
    """One cache's record: hits among jobs that used it, seconds and bytes not spent again.

    None where nothing is known. What a job saved is what the latest miss with the same request took,
    less what it took itself; a hit whose miss nobody saw counts for nothing.
    """

    hit_rate: float | None = None
    seconds: float | None = None
    bytes: int | None = None


def savings(jobs: Iterable[Job], backend: str, scope: str, kind: str) -> Savings:
    """From the history's jobs, in any order. `kind` is "python" or "system", as the phase is called."""
    hits = 0
    used = 0
    seconds: float | None = None
    received: int | None = None
    misses: dict[str | None, Phase] = {}
    for job in sorted(jobs, key=lambda job: job.submitted_at):
        if (job.backend, job.scope) != (backend, scope):
            continue
        phase = next((phase for phase in job.phases if phase.name == kind), None)
        if phase is None or phase.hit is None or phase.seconds is None:
            continue
        used += 1
        if not phase.hit:
            misses[job.request_hash] = phase
            continue
        hits += 1
        miss = misses.get(job.request_hash)
        if miss is None or miss.seconds is None:
            continue
        seconds = (seconds or 0) + max(0, miss.seconds - phase.seconds)
        if miss.bytes is not None and phase.bytes is not None:
            received = (received or 0) + max(0, miss.bytes - phase.bytes)
    return Savings(hits / used if used else None, seconds, received)


# ---------------------------------------------------------------------------- housekeeping


@dataclass(frozen=True)
class Environment:
    """An environment on a python volume. Times are epoch seconds."""

    key: str
    bytes: int
    """Of all its files, those included that it shares with uv's cache."""
    goes: int
    """What is freed if it is dropped together with the packages that nobody else names."""
    built_at: float | None
    last_used: float
    uses: int
    packages: tuple[str, ...]
    busy: bool
    """A job uses it now."""


@dataclass(frozen=True)
class Usage:
    """What a volume holds. `bytes` are allocated ones, a hard-linked file counted once."""

    bytes: int
    uv_bytes: int
    """How much of it is uv's cache, which environments are hard links into."""
    measured_at: float
    environments: tuple[Environment, ...]


@dataclass(frozen=True)
class Pruned:
    """What went, or in a dry run what would."""

    bytes: int
    left: int
    """Bytes that the volume holds afterwards."""
    entries: int
    """Environments that are left."""
    environments: tuple[str, ...]
    packages: tuple[str, ...]
    busy: tuple[str, ...]
    """Environments that should have gone and are in use."""
    trouble: str | None
    """Why uv's cache was left as it was, if it was; running it again later frees the rest."""


Progress = Callable[[str], None]


class Housekeeper:
    """Measures, prunes and clears the volumes of any backend, and keeps the sizes in the history."""

    def __init__(self, history: History, lock_ttl: int) -> None:
        self._history = history
        self._lock_ttl = lock_ttl

    def volumes(self, backend: Backend) -> list[Volume]:
        """The backend's volumes as they were when they were last measured; costs next to nothing."""
        sizes = {
            (size.node, size.scope, size.kind): size
            for size in self._history.cache_sizes()
            if size.backend == backend.name
        }
        found = []
        for volume in backend.volumes():
            size = sizes.get((volume.node, volume.scope, volume.kind))
            if size is not None:
                volume = replace(
                    volume, bytes=size.bytes, entries=size.entries, measured_at=size.measured_at
                )
            found.append(volume)
        return found

    def usage(self, backend: Backend, volume: Volume, progress: Progress) -> Usage:
        """Measures now. What `progress` raises ends it."""
        operation = {"do": "usage", "kind": volume.kind, "lock_ttl": self._lock_ttl}
        result = self._do(backend, volume, operation, progress)
        environments = tuple(
            Environment(**{**row, "packages": tuple(row["packages"])})
            for row in result["environments"]
        )
        usage = Usage(**{**result, "environments": environments})
        self._remember(volume, usage.bytes, len(environments), usage.measured_at)
        return usage

    def measured(self, backend: Backend, volume: Volume, progress: Progress) -> Volume:
        """The same volume, measured now."""
        usage = self.usage(backend, volume, progress)
        return replace(
            volume,
            bytes=usage.bytes,
            entries=len(usage.environments),
            measured_at=usage.measured_at,
        )

    def prune(
        self,
        backend: Backend,
        volume: Volume,
        progress: Progress,
        *,
        unused: float | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Drops what has not been used for `unused` seconds and, the least recently used first, what
        is beyond `max_bytes`; never what is in use."""
        operation = {
            "do": "prune",
            "kind": volume.kind,
            "unused": unused,
            "max_bytes": max_bytes,
            "lock_ttl": self._lock_ttl,
            "dry_run": dry_run,
        }
        pruned = _pruned(self._do(backend, volume, operation, progress))
        if not dry_run:
            self._remember(volume, pruned.left, pruned.entries, time.time())
        return pruned

    def clear(self, backend: Backend, volume: Volume, progress: Progress) -> Pruned:
        """Empties the volume. `EngineError` while a job holds it."""
        now = [
            one for one in backend.volumes() if (one.name, one.node) == (volume.name, volume.node)
        ]
        holders = sorted({job for one in now for job in one.in_use_by})
        if holders:
            raise EngineError(
                f"the {volume.kind} cache of {volume.scope} is in use by {', '.join(holders)}; "
                "nothing was cleared",
                f"wait for them, or stop them: stoke stop {' '.join(holders)}",
            )
        operation = {"do": "clear", "kind": volume.kind}
        pruned = _pruned(self._do(backend, volume, operation, progress))
        self._remember(volume, pruned.left, pruned.entries, time.time())
        return pruned

    def _do(
        self, backend: Backend, volume: Volume, operation: Mapping[str, object], progress: Progress
    ) -> dict[str, Any]:
        # One that is there, should the backend need an image and the configuration name none.
        image = self._history.last_image(backend.name, volume.scope)
        return backend.housekeep(volume, {**operation, "image": image}, progress)

    def _remember(self, volume: Volume, size: int, entries: int, measured_at: float) -> None:
        self._history.add_cache_size(
            CacheSize(
                volume.backend, volume.node, volume.scope, volume.kind, measured_at, size, entries
            )
        )


def _pruned(result: dict[str, Any]) -> Pruned:
    names = ("environments", "packages", "busy")
    return Pruned(**{**result, **{name: tuple(result[name]) for name in names}})


def read_outcome(lines: Iterable[bytes], progress: Progress) -> dict[str, Any]:
    """The result among the lines that `stoke/housekeeping.py` printed; for backends."""
    for line in lines:
        said = json.loads(line)
        if "progress" in said:
            progress(said["progress"])
        elif "error" in said:
            raise EngineError(said["error"], said["mend"])
        else:
            result: dict[str, Any] = said["result"]
            return result
    raise EngineError("housekeeping ended before its time; the cache is whole, as far as it came")

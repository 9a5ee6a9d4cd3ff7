"""Measure, prune and clear cache volumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from stoke.errors import EngineError
from stoke.files.shapes import EACH, Shape, ShapeError, checked, is_count, is_time
from stoke.files.untrusted import parse_json
from stoke.history.database import CacheSize
from stoke.history.volume_index import VolumeIndex
from stoke.project.stored_contents import forget_stored

if TYPE_CHECKING:
    from stoke.backend.api import Backend, Volume
    from stoke.history.database import History
    from stoke.history.job import Job


@dataclass(frozen=True)
class CachedEnvironment:
    """An environment on a python volume, or a set of packages on a system volume. Times are epoch
    seconds."""

    key: str
    bytes: int
    """The size of all its files, including files that it shares with other environments."""
    reclaimable: int
    """The bytes that removing it frees, together with the packages that only it names."""
    built_at: float | None
    last_used: float
    uses: int
    packages: tuple[str, ...]
    busy: bool
    """Whether a job uses it now."""
    in_use_by: tuple[str, ...] = ()
    """The jobs that use it, as far as this history knows them."""


@dataclass(frozen=True)
class Usage:
    """What a volume holds. `bytes` counts allocated bytes, and a hard-linked file once."""

    bytes: int
    uv_bytes: int
    """The part that is uv's cache, whose files environments hard-link."""
    garbage: int
    """Roughly the part that no environment names; the next prune removes it first."""
    measured_at: float
    environments: tuple[CachedEnvironment, ...]
    requests: Mapping[str, str] = field(default_factory=dict)
    """Request hash to the key of the environment that served it last."""
    snapshot_bytes: int = 0
    """The part that is files of projects."""
    snapshots: tuple[tuple[float, int], ...] = ()
    """For each stored snapshot and each copy of a project its last use, and the bytes that removing it
    frees after those used before it."""


@dataclass(frozen=True)
class Pruned:
    """What a prune removed, or would remove in a dry run."""

    bytes: int
    left: int
    """Bytes that the volume holds afterwards."""
    entries: int
    """The number of environments, or sets of system packages, that are left."""
    environments: tuple[str, ...]
    packages: tuple[str, ...]
    busy: tuple[str, ...]
    """Environments that were to be removed but are in use."""
    trouble: str | None
    """Why uv's cache or Nix's store was not cleaned, if it was not; a later prune frees the rest."""
    snapshots: int = 0
    """The number of projects' snapshots among what was removed."""


Progress = Callable[[str], None]


def group_by_budget(volumes: Iterable[Volume]) -> list[list[Volume]]:
    """Group the volumes that share a budget: those of one scope on one node."""
    groups: dict[tuple[str | None, str], list[Volume]] = {}
    for volume in volumes:
        groups.setdefault((volume.node, volume.scope), []).append(volume)
    return list(groups.values())


def share_out(usages: Sequence[Usage], max_bytes: int) -> list[int | None]:
    """Return the limit of each of a scope's volumes, so that together they hold `max_bytes`.

    The least recently used environments are removed first, on whichever volume they are. None means
    that nothing has to be removed from a volume.
    """
    candidates = [(0.0, number, usage.garbage) for number, usage in enumerate(usages)]
    candidates += [
        (one.last_used, number, one.reclaimable)
        for number, usage in enumerate(usages)
        for one in usage.environments
        if not one.busy
    ]
    candidates += [
        (last_used, number, size)
        for number, usage in enumerate(usages)
        for last_used, size in usage.snapshots
    ]
    removed = [0] * len(usages)
    excess = sum(usage.bytes for usage in usages) - max_bytes
    for _, number, size in sorted(candidates):
        if excess <= 0:
            break
        removed[number] += min(size, excess)
        excess -= size
    if excess > 0:
        # Files that environments share are in none of these figures: remove everything removable.
        return [0] * len(usages)
    return [
        usage.bytes - size if size else None for usage, size in zip(usages, removed, strict=True)
    ]


class Housekeeper:
    """Measure, prune and clear the volumes of any backend, and record their sizes in the history."""

    def __init__(self, history: History, lock_ttl: int) -> None:
        self._history = history
        self._index = VolumeIndex(history)
        self._lock_ttl = lock_ttl

    def volumes(self, backend: Backend) -> list[Volume]:
        """Return the backend's volumes with the sizes of their last measurement."""
        sizes = {
            (size.node, size.scope, size.kind): size
            for size in self._history.cache_sizes()
            if size.backend == backend.name
        }
        found = []
        asked_at = time.time()
        there = backend.volumes()
        self._index.record_volumes(backend.name, there, asked_at)
        for volume in there:
            size = sizes.get((volume.node, volume.scope, volume.kind))
            if size is not None:
                volume = replace(
                    volume, bytes=size.bytes, entries=size.entries, measured_at=size.measured_at
                )
            found.append(volume)
        return found

    def usage(self, backend: Backend, volume: Volume, progress: Progress) -> Usage:
        """Measure a volume. An exception that `progress` raises cancels it."""
        operation = {"do": "usage", "kind": volume.kind, "lock_ttl": self._lock_ttl}
        result = _of_shape(self._do(backend, volume, operation, progress), _USAGE, Usage)
        holders = self._holders(volume)
        environments = tuple(
            CachedEnvironment(
                **{"built_at": None, **row, "packages": tuple(row["packages"])},
                in_use_by=tuple(holders.get(row["key"], ())) if row["busy"] else (),
            )
            for row in result["environments"]
        )
        snapshots = tuple((used_at, size) for used_at, size in result.get("snapshots", ()))
        usage = Usage(**{**result, "environments": environments, "snapshots": snapshots})
        self._remember(volume, usage.bytes, len(environments), usage.measured_at)
        held = {one.key: one.packages for one in environments}
        self._index.record_measurement(volume, held, usage.requests, usage.measured_at)
        return usage

    def measure(self, backend: Backend, volume: Volume, progress: Progress) -> Volume:
        """Measure a volume and return it with its size."""
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
        """Remove environments that were not used for `unused` seconds, and then, least recently used
        first, what exceeds `max_bytes`. Never removes what is in use."""
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
            self._went(volume, pruned)
        return pruned

    def prune_together(
        self,
        backend: Backend,
        volumes: Sequence[Volume],
        progress: Progress,
        *,
        unused: float | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> list[Pruned | EngineError]:
        """Prune volumes that may hold `max_bytes` together. Returns for each volume what was removed,
        or the error."""
        outcomes: list[Pruned | EngineError] = []
        limits: list[int | None] = [max_bytes] * len(volumes)
        sizes = [0] * len(volumes)
        if max_bytes is not None and len(volumes) > 1:
            try:
                usages = [self.usage(backend, volume, progress) for volume in volumes]
            except EngineError as error:
                return [error for _ in volumes]
            limits = share_out(usages, max_bytes)
            sizes = [usage.bytes for usage in usages]
        for number, volume in enumerate(volumes):
            limit = limits[number]
            if max_bytes is not None and number == len(volumes) - 1:
                # The last volume gets what the others leave, more or less than its share.
                limit = max(0, max_bytes - sum(sizes[:number]))
            try:
                pruned = self.prune(
                    backend, volume, progress, unused=unused, max_bytes=limit, dry_run=dry_run
                )
            except EngineError as error:
                outcomes.append(error)
            else:
                outcomes.append(pruned)
                sizes[number] = pruned.left
        return outcomes

    def clear(self, backend: Backend, volume: Volume, progress: Progress) -> Pruned:
        """Empty a volume. Raises `EngineError` while a job uses it."""
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
        self._went(volume, pruned)
        return pruned

    def lock(self, backend: Backend, volume: Volume, key: str) -> str:
        """Return the text of the lockfile that an environment was built from."""
        operation = {"do": "lock", "kind": volume.kind, "key": key}
        text = self._do(backend, volume, operation, lambda _: None).get("lock")
        if not isinstance(text, str):
            raise EngineError("housekeeping answered without the lockfile")
        return text

    def _holders(self, volume: Volume) -> dict[str, list[str]]:
        """Return environment key to the unfinished jobs that use it."""
        holders: dict[str, list[str]] = {}
        for job in self._history.list(unfinished=True, tasks=True):
            if (job.backend, job.scope) == (volume.backend, volume.scope):
                for phase in job.phases:
                    if phase.name == volume.kind and phase.key is not None:
                        holders.setdefault(phase.key, []).append(job.id)
        return holders

    def lock_of(self, backend: Backend, job: Job) -> str:
        """Return the lockfile that a job's environment was built from, read from the environment."""
        again = f"run it again, then ask again: stoke rerun {job.id}"
        key = next((phase.key for phase in job.phases if phase.name == "python"), None)
        if key is None:
            raise EngineError(f"no cache holds the environment of {job.id}", again)
        trouble = EngineError(
            f"the python cache of scope {job.scope} on {job.backend} no longer exists", again
        )
        for volume in self.volumes(backend):
            if (volume.scope, volume.kind) == (job.scope, "python"):
                try:
                    return self.lock(backend, volume, key)
                except EngineError as error:
                    trouble = EngineError(f"{volume.name}: {error.what}", error.hint or again)
        raise trouble

    def _do(
        self, backend: Backend, volume: Volume, operation: Mapping[str, object], progress: Progress
    ) -> dict[str, Any]:
        # A known image, for a backend that needs one and a configuration that names none.
        image = self._history.last_image(backend.name, volume.scope)
        return backend.housekeep(volume, {**operation, "image": image}, progress)

    def _went(self, volume: Volume, pruned: Pruned) -> None:
        self._remember(volume, pruned.left, pruned.entries, time.time())
        self._index.record_removal(volume, pruned.environments, time.time())
        if volume.kind == "python":
            forget_stored(volume.backend, volume.scope)

    def _remember(self, volume: Volume, size: int, entries: int, measured_at: float) -> None:
        self._history.add_cache_size(
            CacheSize(
                volume.backend, volume.node, volume.scope, volume.kind, measured_at, size, entries
            )
        )


def _pruned(result: dict[str, Any]) -> Pruned:
    found = _of_shape(result, _PRUNED, Pruned)
    lists = {name: tuple(found[name]) for name in ("environments", "packages", "busy")}
    return Pruned(**{"trouble": None, **found, **lists})


def _of_shape(result: dict[str, Any], shape: Shape, kind: type) -> dict[str, Any]:
    """Return the fields of `kind` in a result. `EngineError` if it has another shape.

    The program that printed it is ours, but what ran it may be an engine that changes it.
    """
    try:
        found = checked(result, shape)
    except ShapeError as error:
        raise _unexpected(error) from error
    known = {one.name for one in fields(kind)}
    return {name: value for name, value in found.items() if name in known}


def _unexpected(error: ValueError) -> EngineError:
    return EngineError(f"housekeeping printed something else than its result: {str(error)[:200]}")


_LINE: Shape = {"progress": str, "error": str, "hint": str, "result": {}}
_ENVIRONMENT: Shape = {
    "key!": str,
    "bytes!": is_count,
    "reclaimable!": is_count,
    "built_at": is_time,
    "last_used!": is_time,
    "uses!": is_count,
    "packages!": [str],
    "busy!": bool,
}
_USAGE: Shape = {
    "bytes!": is_count,
    "uv_bytes!": is_count,
    "garbage!": is_count,
    "measured_at!": is_time,
    "environments!": [_ENVIRONMENT],
    "requests": {EACH: str},
    "snapshot_bytes": is_count,
    "snapshots": [
        lambda pair: isinstance(pair, list) and len(pair) == 2 and all(map(is_time, pair[:1]))
        and is_count(pair[1])
    ],
}  # fmt: skip
_PRUNED: Shape = {
    "bytes!": is_count,
    "left!": is_count,
    "entries!": is_count,
    "environments!": [str],
    "packages!": [str],
    "busy!": [str],
    "trouble": str,
    "snapshots": is_count,
}
MOST_LINES = 1_000_000
"""It reports its progress ten times a second."""
LONGEST_ANSWER = 128 * 1024**2


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines that `stoke.remote.housekeeping` prints. `EngineError` for one without an end."""
    rest: list[bytes] = []
    size = 0
    for piece in pieces:
        *lines, last = piece.split(b"\n")
        for line in lines:
            yield b"".join([*rest, line])
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > LONGEST_ANSWER:
            raise EngineError(f"housekeeping answered more than {LONGEST_ANSWER // 1024**2} MiB")


def read_outcome(lines: Iterable[bytes], progress: Progress) -> dict[str, Any]:
    """Return the result among the lines that `stoke.remote.housekeeping` printed."""
    for line in islice(lines, MOST_LINES):
        try:
            said = checked(parse_json(line), _LINE)
        except ValueError as error:
            raise _unexpected(error) from error
        if "progress" in said:
            progress(said["progress"])
        elif "error" in said:
            raise EngineError(said["error"], said.get("hint"))
        elif "result" in said:
            result: dict[str, Any] = said["result"]
            return result
    raise EngineError("housekeeping ended early; the cache is intact, but the work is not complete")

"""An index of the cache volumes, so that no backend has to be asked: environments, packages, requests.

Jobs report what they used and built, housekeeping reports what it found, pruned and cleared. Changes
that other users make to a shared volume are known after the next measurement. Of two reports the one
about the later time wins, in whatever order they arrive: a job may be finalized long after its
environment was pruned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoke.history.database import History
from stoke.history.job import Counts

if TYPE_CHECKING:
    from stoke.backend.api import Volume

FORGOTTEN_AFTER = 90 * 86400.0
"""How many seconds the index remembers a removed environment, for the packages of its lockfile."""


@dataclass(frozen=True)
class ScopeCache:
    """The volumes where the jobs of a scope look for packages of one kind, on any node."""

    backend: str
    scope: str
    kind: str


@dataclass(frozen=True)
class KnownEnvironment:
    """The environment that last served a request: its key, and whether it is still there."""

    key: str
    present: bool


class VolumeIndex:
    """Read and write the index, which is stored in the history. Times are epoch seconds."""

    def __init__(self, history: History) -> None:
        self._history = history

    # --- reports of jobs and housekeeping ---------------------------------------------------------

    def record_use(
        self,
        place: ScopeCache,
        key: str,
        at: float,
        request: str | None,
        packages: Iterable[str] = (),
    ) -> None:
        """Record that a job used or built an environment, and its packages if they are known."""
        with self._history.transaction():
            self._set(place, "", {key: packages}, True, at)
            if request is not None:
                self._answers(place, "", {request: key}, at)

    def record_measurement(
        self,
        volume: Volume,
        environments: Mapping[str, Iterable[str]],
        requests: Mapping[str, str],
        at: float,
    ) -> None:
        """Record everything that a volume holds: {key: packages} and {request hash: key}."""
        place, node = _place(volume), volume.node or ""
        with self._history.transaction():
            self._history.query(
                "UPDATE held_environments SET present = 0, changed_at = ?5 WHERE backend = ?1 "
                "AND scope = ?2 AND kind = ?3 AND node IN (?4, '') AND present AND changed_at < ?5 "
                # An environment that a job reported may be on another node.
                "AND (node = ?4 OR key IN (SELECT value FROM json_each(?6)))",
                (*_row(place), node, at, json.dumps(list(environments))),
            )
            self._set(place, node, environments, True, at)
            self._answers(place, node, requests, at)
            self._forget(at - FORGOTTEN_AFTER)

    def record_removal(self, volume: Volume, keys: Iterable[str], at: float) -> None:
        """Record that environments were removed from a volume."""
        gone: dict[str, Iterable[str]] = dict.fromkeys(keys, ())
        with self._history.transaction():
            for node in {volume.node or "", ""}:
                self._set(_place(volume), node, gone, False, at)

    def forget_scope(self, backend: str, scope: str) -> None:
        """Delete all that is recorded of a scope, including its measured sizes."""
        for table in ("held_environments", "held_packages", "held_requests", "cache_sizes"):
            self._history.query(
                f"DELETE FROM {table} WHERE backend = ? AND scope = ?",  # noqa: S608
                (backend, scope),
            )

    def record_volumes(self, backend: str, volumes: Iterable[Volume], at: float) -> None:
        """Record all volumes of a backend. Environments on any other volume count as removed."""
        there = json.dumps([[volume.scope, volume.kind] for volume in volumes])
        self._history.query(
            "UPDATE held_environments SET present = 0, changed_at = ?2 WHERE backend = ?1 AND present "
            "AND changed_at < ?2 AND json_array(scope, kind) NOT IN (SELECT value FROM json_each(?3))",
            (backend, at, there),
        )

    # --- questions of predictions -----------------------------------------------------------------

    def environment_for(self, place: ScopeCache, request: str) -> KnownEnvironment | None:
        """Return the environment that served the request last; None if no job has made it yet."""
        rows = self._history.query(
            "SELECT key, max(present) AS present FROM held_requests AS asked "
            "LEFT JOIN held_environments USING (backend, scope, kind, key) "
            "WHERE backend = ? AND scope = ? AND kind = ? AND request = ? "
            "GROUP BY key ORDER BY max(asked.changed_at) DESC LIMIT 1",
            (*_row(place), request),
        )
        if not rows or not isinstance(rows[0]["key"], str):
            return None
        return KnownEnvironment(rows[0]["key"], bool(rows[0]["present"]))

    def count_of_lock(self, place: ScopeCache, key: str) -> Counts | None:
        """Count how many of an environment's packages are there; None if they are not known."""
        packages = self.packages(place, key)
        return (
            Counts(self.count_packages(place, packages), len(packages), False) if packages else None
        )

    def packages(self, place: ScopeCache, key: str) -> list[str]:
        """Return an environment's packages, sorted; an empty list if they are not known."""
        rows = self._history.query(
            "SELECT DISTINCT package FROM held_packages "
            "WHERE backend = ? AND scope = ? AND kind = ? AND key = ? ORDER BY package",
            (*_row(place), key),
        )
        return [row["package"] for row in rows if isinstance(row["package"], str)]

    def count_names(self, place: ScopeCache, names: Iterable[str]) -> int:
        """Count how many of these canonical names are there, in any version."""
        return self._count(
            "SELECT count(*) FROM json_each(?4) AS wanted WHERE EXISTS (SELECT 1 "
            "FROM held_packages AS one CROSS JOIN held_environments USING "
            "(backend, scope, kind, key, node) WHERE one.backend = ?1 AND one.scope = ?2 "
            "AND one.kind = ?3 AND one.name = wanted.value AND present)",
            place,
            sorted(set(names)),
        )

    def count_packages(self, place: ScopeCache, packages: Iterable[str]) -> int:
        """Count how many of these packages are there, exactly as written."""
        return self._count(
            "SELECT count(*) FROM json_each(?4) AS wanted WHERE EXISTS (SELECT 1 "
            "FROM held_packages AS one CROSS JOIN held_environments USING "
            "(backend, scope, kind, key, node) WHERE one.backend = ?1 AND one.scope = ?2 "
            "AND one.kind = ?3 AND one.name = json_extract(wanted.value, '$[0]') "
            "AND one.package = json_extract(wanted.value, '$[1]') AND present)",
            place,
            [(canonical_name(place.kind, package), package) for package in sorted(set(packages))],
        )

    def has_environment_of(self, place: ScopeCache, packages: Iterable[str]) -> bool:
        """Return whether there is an environment of exactly these packages."""
        wanted = sorted(set(packages))
        rows = self._history.query(
            # Environments that have the first package, the same number of packages, and no other.
            "SELECT 1 FROM held_packages AS one CROSS JOIN held_environments USING "
            "(backend, scope, kind, key, node) WHERE one.backend = ?1 AND one.scope = ?2 "
            "AND one.kind = ?3 AND one.name = ?4 AND one.package = ?5 AND present "
            "AND (SELECT count(*) FROM held_packages AS other WHERE other.backend = ?1 "
            "AND other.scope = ?2 AND other.kind = ?3 AND other.key = one.key "
            "AND other.node = one.node) = ?6 "
            "AND NOT EXISTS (SELECT 1 FROM held_packages AS other WHERE other.backend = ?1 "
            "AND other.scope = ?2 AND other.kind = ?3 AND other.key = one.key "
            "AND other.node = one.node AND other.package NOT IN (SELECT value FROM json_each(?7))) "
            "LIMIT 1",
            (
                *_row(place), canonical_name(place.kind, wanted[0]), wanted[0], len(wanted),
                json.dumps(wanted),
            ),
        )  # fmt: skip
        return bool(rows)

    def _count(self, sql: str, place: ScopeCache, wanted: object) -> int:
        # CROSS JOIN makes SQLite look up the name first, and then whether its environment is there.
        return int(self._history.query(sql, (*_row(place), json.dumps(wanted)))[0][0])

    # ----------------------------------------------------------------------------------------------

    def _set(
        self,
        place: ScopeCache,
        node: str,
        environments: Mapping[str, Iterable[str]],
        present: bool,
        at: float,
    ) -> None:
        self._history.query_many(
            "INSERT INTO held_environments (backend, scope, kind, node, key, present, changed_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET present = excluded.present, changed_at = excluded.changed_at "
            "WHERE excluded.changed_at >= changed_at",
            [(*_row(place), node, key, present, at) for key in environments],
        )
        # An environment never changes, so known packages stay right.
        known = self._history.query(
            "SELECT DISTINCT key FROM held_packages WHERE backend = ? AND scope = ? AND kind = ? "
            "AND node = ? AND key IN (SELECT value FROM json_each(?))",
            (*_row(place), node, json.dumps(list(environments))),
        )
        self._history.query_many(
            "INSERT OR IGNORE INTO held_packages (backend, scope, kind, node, key, name, package) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*_row(place), node, key, canonical_name(place.kind, package), package)
                for key in environments.keys() - {row["key"] for row in known}
                for package in environments[key]
            ],
        )

    def _answers(
        self, place: ScopeCache, node: str, requests: Mapping[str, str], at: float
    ) -> None:
        self._history.query_many(
            "INSERT INTO held_requests (backend, scope, kind, node, request, key, changed_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET key = excluded.key, changed_at = excluded.changed_at "
            "WHERE excluded.changed_at >= changed_at",
            [(*_row(place), node, request, key, at) for request, key in requests.items()],
        )

    def _forget(self, before: float) -> None:
        for table in ("held_packages", "held_requests"):
            self._history.query(
                f"DELETE FROM {table} WHERE (backend, scope, kind, key) IN (SELECT backend, scope, "  # noqa: S608
                "kind, key FROM held_environments GROUP BY backend, scope, kind, key "
                "HAVING max(present) = 0 AND max(changed_at) < ?)",
                (before,),
            )
        self._history.query(
            "DELETE FROM held_environments WHERE NOT present AND changed_at < ?", (before,)
        )


def _row(place: ScopeCache) -> tuple[str, str, str]:
    return place.backend, place.scope, place.kind


def _place(volume: Volume) -> ScopeCache:
    return ScopeCache(volume.backend, volume.scope, volume.kind)


def canonical_name(kind: str, package: str) -> str:
    """Return the canonical name in `Foo_Bar==1` or `foo @ url`; a system package is its own name."""
    if kind == "system":
        return package
    name = re.split(r"[\s\[<>=!~;@(]", package, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()

"""Housekeeping of a system volume: measuring, pruning and clearing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time

from stoke.remote.common.files import is_lock_file
from stoke.remote.common.nix import NIX_DATABASE_ERROR
from stoke.remote.common.trees import remove_tree
from stoke.remote.housekeeping.errors import RefusedError
from stoke.remote.housekeeping.exclusive import ExclusiveRun
from stoke.remote.housekeeping.file_locks import is_held, try_lock
from stoke.remote.housekeeping.files import (
    is_folder,
    is_small,
    names_in,
    package_names,
    point_in_time,
    read_json,
)
from stoke.remote.housekeeping.limits import (
    ENVIRONMENT_KEY,
    MAX_ENVIRONMENTS,
    MAX_LOCKS,
    MAX_REPORTED,
    MAX_TEXT,
    NAMES_AT_ONCE,
    STORE_NAME,
    SYSTEM_LOCK_NAME,
)
from stoke.remote.housekeeping.references import StoredEnvironment
from stoke.remote.housekeeping.sizes import ReclaimableBytes, allocated, walk
from stoke.remote.housekeeping.volume import KEPT_BY_CLEAR, TRASH, CacheVolume, short_reason
from stoke.remote.protocol import (
    LOCK_SUFFIX,
    METADATA,
    UNFINISHED_SUFFIX,
    SystemLayout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from stoke.remote.housekeeping.volume import Progress

CLEAR_HINT = "empty the volume: stoke cache clear --kind system"
BUILDERS_SECONDS = 5.0
"""How long collecting waits for builds in the store; they may take hours."""


class StoredPackageSet(StoredEnvironment):
    """A set of system packages; `paths` are the names in the store that it needs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.paths: list[str] = []


class SystemVolume(CacheVolume):
    """A scope's system volume, mounted at /nix: Nix's store, and sets of packages as roots of it."""

    FOLDERS = (
        "store",
        "var",
        "var/nix",
        "var/nix/gcroots",
        SystemLayout.SETS,
        SystemLayout.DATABASE,
        SystemLayout.STATE,
        SystemLayout.STATE + "/" + SystemLayout.REQUESTS,
    )

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        super().__init__(top, uv, progress)
        self.sets: list[StoredPackageSet] = []
        self.store: dict[str, int] = {}  # name in the store -> bytes
        self.users: dict[str, int] = {}  # name in the store -> how many sets need it
        self.find_paths()

    def repair_folders(self) -> None:
        super().repair_folders()
        if is_folder(self.own_path(*SystemLayout.SETS.split("/"))):
            # The locks of sets are in this folder.
            os.makedirs(self.path(SystemLayout.STATE), exist_ok=True)

    def find_paths(self) -> None:
        """Find the paths of the volume; links to other places may have been removed since."""
        self.roots = self.own_path(*SystemLayout.SETS.split("/"))
        self.state = self.own_path(*SystemLayout.STATE.split("/"))
        self.database = self.own_path(*SystemLayout.DATABASE.split("/"))
        # Nix removes this file to collect garbage, so that its database has space to grow.
        self.reserve = os.path.join(self.database, "reserved")
        # Nix makes these again: the index of its downloads, and the logs of builds.
        spare = [os.path.join(self.state, "cache"), self.path("var", "log", "nix", "drvs")]
        self.spare = [path for path in spare if not self.leads_out(path)]

    # ------------------------------------------------------------------ measuring

    def usage(self, lock_ttl: float) -> dict[str, Any]:  # noqa: ARG002
        total = self.measure()
        garbage = ReclaimableBytes(self.tick)
        for path in self.spare:
            garbage.add(path)
        return {
            "bytes": total,
            "uv_bytes": 0,
            "garbage": garbage.bytes
            + sum(size for path, size in self.store.items() if path not in self.users),
            "measured_at": time.time(),
            "environments": [
                {
                    "key": one.name,
                    "bytes": one.own + one.linked,
                    "reclaimable": one.own,
                    "built_at": one.built_at,
                    "last_used": one.last_used,
                    "uses": one.uses,
                    "packages": one.packages,
                    "busy": is_held(self.lock_path(one.name)),
                }
                for one in self.sets
            ],
            "requests": self.requests(
                os.path.join(self.state, SystemLayout.REQUESTS), names_in(self.roots)
            ),
        }

    def measure(self) -> int:
        """Read the whole volume; return its bytes."""
        store = self.path("store")
        for name in names_in(store):
            if name[0] != ".":
                self.store[name] = self.size_of(os.path.join(store, name))
        self.read_sets()
        self.index.save()
        self.set_activity("adding up")
        if names_in(os.path.join(store, ".links")):
            # Nix was told to link equal files to each other, so walk them all.
            return allocated(walk(self._top, self.tick))
        paths = [os.path.join(store, name) for name in self.store]
        return allocated(walk(self._top, self.tick, paths)) + sum(self.store.values())

    def size_of(self, path: str) -> int:
        self.set_activity("measuring the store")
        try:
            status = os.lstat(path)
        except OSError:  # a lock file of Nix, or an unfinished path
            return 0
        name = "store/" + os.path.basename(path)
        fingerprint = [status.st_ino, status.st_mtime_ns]
        values = self.index.get(name, fingerprint, (int,))
        if values is None:
            values = [allocated(walk(path, self.tick))]
            # Nix sets this time once a path is complete, and never changes the path again.
            if int(status.st_mtime) == 1:
                self.index.put(name, fingerprint, values)
        size: int = values[0]
        return size

    def read_sets(self) -> None:
        """Read every set: `own` is the bytes of paths that only it needs, `linked` those of others."""
        self.sets = [
            self.read_set(name)
            for name in names_in(self.roots)[:MAX_ENVIRONMENTS]
            if ENVIRONMENT_KEY.fullmatch(name)
        ]
        for one in self.sets:
            for path in one.paths:
                self.users[path] = self.users.get(path, 0) + 1
        for one in self.sets:
            sizes = {path: self.store.get(path, 0) for path in one.paths}
            one.own = sum(size for path, size in sizes.items() if self.users[path] == 1)
            one.linked = sum(sizes.values()) - one.own

    def read_set(self, name: str) -> StoredPackageSet:
        one = StoredPackageSet(name)
        used = 0.0
        with contextlib.suppress(OSError):
            status = os.lstat(self.lock_path(name))
            used = point_in_time(status.st_mtime)
            one.uses = status.st_size if is_lock_file(status) else 0
        try:
            metadata = read_json(os.path.join(self.roots, name, METADATA))
            paths = {
                os.path.basename(str(path)) for path in (*metadata["paths"], metadata["source"])
            }
            packages = sorted(package_names(metadata["programs"]))
            self._text += sum(map(len, packages)) + sum(map(len, paths))
            if self._text > MAX_TEXT:
                return one
            one.built_at = point_in_time(metadata["built_at"])
        except (ValueError, TypeError, KeyError, OverflowError):
            return one  # damaged and of no use, so it was last used in 1970
        one.paths = sorted(path for path in paths if STORE_NAME.fullmatch(path))
        one.packages = packages
        one.last_used = max(one.built_at, used)
        return one

    def leads_out(self, path: str) -> bool:
        """Return whether a folder above this path is a link."""
        above = os.path.dirname(os.path.relpath(path, self._top))
        real = os.path.join(os.path.realpath(self._top), above)
        return os.path.realpath(real) != real

    def lock_path(self, name: str) -> str:
        return os.path.join(self.state, name + LOCK_SUFFIX)

    # ------------------------------------------------------------------ pruning

    def prune(
        self,
        unused: float | None,
        max_bytes: int | None,
        lock_ttl: float,  # noqa: ARG002
        dry_run: bool,
    ) -> dict[str, Any]:
        with contextlib.nullcontext() if dry_run else ExclusiveRun(self):
            return self._prune_exclusively(unused, max_bytes, dry_run)

    def _prune_exclusively(
        self, unused: float | None, max_bytes: int | None, dry_run: bool
    ) -> dict[str, Any]:
        if not dry_run:
            self.repair_folders()
            self.find_paths()
        total = self.measure()
        now = time.time()
        reclaimable = ReclaimableBytes(self.tick)
        for name in names_in(self.path(TRASH)):
            reclaimable.add(self.path(TRASH, name))

        def is_over_limit() -> bool:
            return max_bytes is not None and total - reclaimable.bytes - from_store > max_bytes

        packages: list[str] = []
        from_store = 0
        dropped: list[str] = []
        busy: list[str] = []
        collects = bool(self.store) and (unused is not None or is_over_limit())
        # This fails if Nix cannot collect garbage, before anything is changed.
        kept = self.paths_of_other_roots() if collects else set()
        for key in self.unfinished():
            self.drop(key, UNFINISHED_SUFFIX, reclaimable, dry_run)
        if collects:
            packages = [path for path in self.store if path not in self.users and path not in kept]
            from_store = sum(self.store[path] for path in packages)
            for path in (*self.spare, self.reserve):
                reclaimable.add(path)
            for one in sorted(self.sets, key=lambda one: one.last_used):
                self.set_activity("choosing what to remove: %d sets" % len(dropped))
                is_old = unused is not None and one.last_used < now - unused
                if not (is_old or is_over_limit()):
                    break  # the others were used later
                if not self.drop(one.name, "", reclaimable, dry_run, one.uses):
                    busy.append(one.name)
                    continue
                dropped.append(one.name)
                for path in one.paths:
                    self.users[path] -= 1
                    if not self.users[path] and path not in kept:
                        packages.append(path)
                        from_store += self.store.get(path, 0)
        trouble = None
        freed = reclaimable.bytes + from_store
        if not dry_run:
            freed = allocated(walk(self.database, self.tick))
            if collects:
                trouble = self.collect_garbage()
            freed -= allocated(walk(self.database, self.tick))
            remaining = set(names_in(self.path("store")))
            packages = [path for path in self.store if path not in remaining]
            freed += self.trash_bytes() + sum(self.store[path] for path in packages)
            for path in self.stale_requests(
                os.path.join(self.state, SystemLayout.REQUESTS), self.roots, dropped
            ):
                remove_tree(path)
            self.empty_trash()
        # Jobs that run meanwhile write to the database, and to what was measured.
        freed = max(0, freed)
        return {
            "bytes": freed,
            "left": max(0, total - freed),
            "entries": len(self.sets) - len(dropped),
            "environments": dropped,
            "packages": store_package_names(packages),
            "busy": busy,
            "trouble": trouble,
        }

    def unfinished(self) -> list[str]:
        """Return the keys of sets that are being built, or whose build was killed."""
        names = [name.partition(".") for name in names_in(self.roots)]
        return [
            key
            for key, _, end in names
            if "." + end == UNFINISHED_SUFFIX and ENVIRONMENT_KEY.fullmatch(key)
        ]

    def drop(
        self,
        key: str,
        end: str,
        reclaimable: ReclaimableBytes,
        dry_run: bool,
        uses: int | None = None,
    ) -> bool:
        """Move a set to the trash, where Nix does not look for roots; `end` is a suffix of its folder.

        Return False if a job uses it, or did since `uses` were counted.
        """
        path = self.lock_path(key)
        lock = try_lock(path, self.move_to_trash)
        if lock is None:
            return False
        try:
            if uses not in (None, os.fstat(lock).st_size):
                return False
            folder = os.path.join(self.roots, key + end)
            reclaimable.add(folder)
            reclaimable.add(path)
            if not dry_run and os.path.lexists(folder):
                self.move_to_trash(folder)
                # A job that waits for this lock then finds another file, and locks that.
                os.unlink(path)
        finally:
            os.close(lock)
        return True

    def lock(self, _key: str) -> dict[str, Any]:
        raise RefusedError("only Python environments have a lockfile")

    # ------------------------------------------------------------------ Nix

    def paths_of_other_roots(self) -> set[str]:
        """Return what Nix keeps for other roots than complete sets: roots made by jobs or by hand.

        Also fill in the paths of damaged sets.
        """
        complete = {one.name for one in self.sets if one.built_at is not None}
        damaged = {one.name: one for one in self.sets if one.built_at is None}
        targets: dict[str, list[str]] = {}
        for line in self.run_nix_store("--gc", "--print-roots").splitlines():
            link, _, target = line.partition(" -> ")
            if link.startswith("{temp:"):
                continue  # an unfinished path; nothing is collected while it is built
            folder, key = os.path.split(os.path.dirname(link))
            ours = folder == self.roots and (key in complete or key in damaged)
            if key not in complete or not ours:
                targets.setdefault(key if ours else "", []).append(target)
        for key, one in damaged.items():
            one.paths = self.closure(targets.get(key, []))
            for path in one.paths:
                self.users[path] = self.users.get(path, 0) + 1
        return set(self.closure(targets.get("", [])))

    def closure(self, targets: list[str]) -> list[str]:
        found: set[str] = set()
        for start in range(0, len(targets), NAMES_AT_ONCE):
            listed = self.run_nix_store(
                "--query", "--requisites", *targets[start : start + NAMES_AT_ONCE]
            )
            found.update(os.path.basename(path) for path in listed.split())
        return sorted(found)

    def collect_garbage(self) -> str | None:
        """Make Nix collect garbage; return why it could not, or None."""
        began = time.monotonic()
        while True:
            lock = try_lock(os.path.join(self.state, SystemLayout.COLLECT_LOCK), self.move_to_trash)
            if lock is not None:
                break
            if time.monotonic() - began > BUILDERS_SECONDS:
                return "a job is making system packages, so nothing was collected from the store"
            self.set_activity("waiting for jobs that make system packages")
            time.sleep(0.05)
        try:
            for path in self.spare:
                if names_in(path):
                    self.move_to_trash(path)
            self.set_activity("collecting what no set needs")
            self.run_nix_store("--gc")
        except RefusedError as error:
            return error.text
        finally:
            os.close(lock)
        return None

    def run_nix_store(self, *arguments: str) -> str:
        """Run `nix-store` and return its output. `RefusedError` if it fails."""
        program = shutil.which("nix-store")
        if program is None:
            raise RefusedError(
                "the image for housekeeping has no Nix, which knows what the store still needs",
                "build an image that has it: stoke setup image; or set docker.image to one",
            )
        if not os.path.exists(os.path.join(self.database, "db.sqlite")):
            raise RefusedError("the volume's Nix database is missing", CLEAR_HINT)
        try:
            reserved = os.lstat(self.reserve).st_size
        except FileNotFoundError:
            reserved = 0
        settings = [
            "build-users-group =",
            "substituters =",
            "keep-outputs = false",
            "keep-derivations = false",
            "gc-reserved-space = %d" % reserved,  # otherwise a query would make the file again
        ]
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "NIX_CONFIG": "\n".join(settings),
            "NIX_REMOTE": "local",
            "XDG_CACHE_HOME": os.path.join(self.state, "cache"),
        }
        code, out, err = self.run([program, *arguments], env)
        if code != 0:
            reason = short_reason(err.rpartition("error:")[2], code)
            # Names and paths may contain any of these words.
            if NIX_DATABASE_ERROR.search(re.sub(r"'[^'\n]*'", "''", reason)):
                raise RefusedError(
                    "the volume's Nix database cannot be used: " + reason, CLEAR_HINT
                )
            raise RefusedError("nix-store %s failed: %s" % (arguments[0], reason))
        return out

    # ------------------------------------------------------------------ clearing

    def clear(self) -> dict[str, Any]:
        """Remove everything, except file locks of sets that jobs wait to build."""
        with ExclusiveRun(self):
            self.repair_folders()
            self.find_paths()
            locks = self.lock_everything()
            try:
                keys = names_in(self.roots)
                packages = store_package_names(names_in(self.path("store")))
                for folder, is_kept in (
                    (self._top, self.is_kept_by_clear),
                    (self.path("var"), lambda name: name == "stoke"),
                    (self.state, lambda name: self.is_held_lock(name, locks)),
                ):
                    self.move_all_to_trash(folder, is_kept)
                for path in locks:
                    if os.path.basename(path) != SystemLayout.COLLECT_LOCK or not is_small(path):
                        os.unlink(path)
            finally:
                # Jobs that wait can begin on the empty volume, before everything is deleted.
                for lock in locks.values():
                    os.close(lock)
            freed = self.empty_trash()
        environments = [name for name in keys if ENVIRONMENT_KEY.fullmatch(name)]
        return self.clear_result(freed, environments, packages)

    def is_kept_by_clear(self, name: str) -> bool:
        """Return whether clearing keeps what has this name at the top of the volume."""
        path = self.path(name)
        return name in (TRASH, "var") or (name in KEPT_BY_CLEAR and is_small(path))

    def is_held_lock(self, name: str, taken: dict[str, int]) -> bool:
        """Return whether this process holds the lock of that name, or a job has taken it since."""
        path = os.path.join(self.state, name)
        return path in taken or (SYSTEM_LOCK_NAME.fullmatch(name) is not None and is_held(path))

    def lock_everything(self) -> dict[str, int]:
        """Take all locks of the volume; return path to descriptor. `RefusedError` if one is held."""
        found = [name for name in names_in(self.state) if SYSTEM_LOCK_NAME.fullmatch(name)]
        keys = [name for name in names_in(self.roots) if ENVIRONMENT_KEY.fullmatch(name)]
        if not found and not keys:
            return {}
        # Those of sets first: beyond `MAX_LOCKS`, only check that a lock is free.
        wanted = dict.fromkeys(
            [SystemLayout.COLLECT_LOCK, *(key + LOCK_SUFFIX for key in keys), *found]
        )
        locks: dict[str, int] = {}
        try:
            for name in wanted:
                path = os.path.join(self.state, name)
                if len(locks) < MAX_LOCKS:
                    lock = try_lock(path, self.move_to_trash)
                    if lock is not None:
                        locks[path] = lock
                        continue
                elif not is_held(path):
                    continue
                raise RefusedError("a running job uses this cache; nothing was cleared")
        except BaseException:
            for lock in locks.values():
                os.close(lock)
            raise
        return locks


def store_package_names(paths: Iterable[str]) -> list[str]:
    """Return names of packages in the store, without its hash and without derivations."""
    names = (path[33:] for path in paths if not path.endswith(".drv") and path.isprintable())
    return sorted(name for name in names if name)[:MAX_REPORTED]

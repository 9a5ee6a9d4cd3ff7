"""Housekeeping of a Python volume: measuring, pruning and clearing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time

from stoke.remote.common.files import is_lock_file
from stoke.remote.common.names import canonical
from stoke.remote.common.seal import unsealed
from stoke.remote.common.trees import remove_tree
from stoke.remote.housekeeping.errors import RefusedError
from stoke.remote.housekeeping.exclusive import ExclusiveRun
from stoke.remote.housekeeping.file_locks import is_held, try_lock
from stoke.remote.housekeeping.files import (
    is_small,
    names_in,
    package_names,
    point_in_time,
    read_json,
    read_text,
)
from stoke.remote.housekeeping.job_folders import JOB_FOLDERS, old_folders
from stoke.remote.housekeeping.limits import (
    ENVIRONMENT_KEY,
    MAX_ENVIRONMENTS,
    MAX_PACKAGES,
    MAX_REPORTED,
    MAX_TEXT,
    NAMES_AT_ONCE,
)
from stoke.remote.housekeeping.references import (
    PackageReferences,
    StoredEnvironment,
    StoredLockfile,
    digest_of,
)
from stoke.remote.housekeeping.sizes import ReclaimableBytes, allocated, has_other_links, walk
from stoke.remote.housekeeping.snapshots import Snapshots, StoredCopy, StoredSnapshot
from stoke.remote.housekeeping.uv_cache import UvCache
from stoke.remote.housekeeping.volume import KEPT_BY_CLEAR, TRASH, CacheVolume, short_reason
from stoke.remote.protocol import LOCK_SUFFIX, METADATA, UNFINISHED_SUFFIX, PythonLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from stoke.remote.housekeeping.volume import Progress

UV_LOCK_SECONDS = "5"
"""How long `uv cache clean` waits until no other uv uses the cache."""
ABANDONED_AGE = 86400.0
"""Seconds after which a temporary file was left behind by a killed writer."""


class PythonVolume(CacheVolume):
    """A scope's Python volume: environments, and uv's cache, to which they have hard links."""

    FOLDERS = (
        PythonLayout.ENVIRONMENTS,
        PythonLayout.LOCKFILES,
        PythonLayout.REQUESTS,
        PythonLayout.UV_CACHE,
        PythonLayout.PROGRAMS,
        PythonLayout.INTERPRETERS,
        PythonLayout.SNAPSHOTS,
        PythonLayout.SNAPSHOT_OBJECTS,
        PythonLayout.SNAPSHOT_USES,
        PythonLayout.PROJECT_COPIES,
        # The kubelet mounts these in every pod of the scope, and refuses anything but folders.
        *JOB_FOLDERS,
    )

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        super().__init__(top, uv, progress)
        self.environments: list[StoredEnvironment] = []
        self.lockfiles: list[StoredLockfile] = []
        self.uv_cache = UvCache(self)
        self.environments_folder = self.path(PythonLayout.ENVIRONMENTS)
        self.lockfiles_folder = self.path(PythonLayout.LOCKFILES)

    def environment_path(self, key: str) -> str:
        return os.path.join(self.environments_folder, key)

    def lock_path(self, key: str) -> str:
        return os.path.join(self.environments_folder, key + LOCK_SUFFIX)

    # ------------------------------------------------------------------ measuring

    def usage(self, lock_ttl: float) -> dict[str, Any]:
        total, uv_bytes = self.measure()
        snapshots = Snapshots(self)
        snapshots.read()
        references = PackageReferences(self.environments, self.lockfiles, time.time() - lock_ttl)
        reclaimable = self.reclaimable_by_environment(references)
        garbage = ReclaimableBytes(self.tick)
        self.uv_cache.add_packages(garbage, references.unreferenced(self.uv_cache.packages))
        return {
            "bytes": total,
            "uv_bytes": uv_bytes,
            "snapshot_bytes": snapshots.total_bytes(),
            "snapshots": [[one.last_used, one.bytes] for one in snapshots.stored]
            + [[one.last_used, one.bytes] for one in snapshots.copies],
            "garbage": garbage.bytes + snapshots.unneeded_bytes,
            "measured_at": time.time(),
            "environments": [
                {
                    "key": one.name,
                    "bytes": one.own + one.linked,
                    "reclaimable": reclaimable[one.name],
                    "built_at": one.built_at,
                    "last_used": one.last_used,
                    "uses": one.uses,
                    "packages": one.packages,
                    "busy": self.is_busy(one),
                }
                for one in self.environments
            ],
            "requests": self.requests(
                self.path(PythonLayout.REQUESTS), [one.name for one in self.environments]
            ),
        }

    def measure(self) -> tuple[int, int]:
        """Read the whole volume; return (its bytes, bytes of uv's cache)."""
        self.read_lockfiles()
        self.uv_cache.read()
        self.read_environments()
        self.index.save()
        self.set_activity("adding up")
        uv_bytes = self.uv_cache.bytes()
        counted = {
            self.uv_cache.folder,
            *(self.environment_path(one.name) for one in self.environments),
        }
        if any(
            one.linked and not one.names <= self.uv_cache.packages.keys()
            for one in self.environments
        ):
            # uv's cache was emptied, so environments share files only with each other: walk them all.
            return allocated(walk(self._top, self.tick)), uv_bytes
        rest = allocated(walk(self._top, self.tick, counted))
        return rest + uv_bytes + sum(one.own for one in self.environments), uv_bytes

    def read_environments(self) -> None:
        names = [
            name for name in names_in(self.environments_folder) if ENVIRONMENT_KEY.fullmatch(name)
        ]
        for number, name in enumerate(names[:MAX_ENVIRONMENTS]):
            self.set_activity("measured %d of %d environments" % (number, len(names)))
            one = self.read_environment(name)
            if one is not None:
                self.environments.append(one)

    def read_environment(self, name: str) -> StoredEnvironment | None:
        folder = self.environment_path(name)
        one = StoredEnvironment(name)
        try:
            status = os.lstat(folder)
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        with contextlib.suppress(OSError):
            # Without metadata it is damaged and of no use, so it was last used in 1970.
            status = os.lstat(os.path.join(folder, METADATA))
            one.last_used = point_in_time(status.st_mtime)
        with contextlib.suppress(OSError):
            used = os.lstat(folder + LOCK_SUFFIX)
            one.uses = used.st_size if is_lock_file(used) else 0
            if one.last_used:
                one.last_used = max(one.last_used, point_in_time(used.st_mtime))
        # Only jobs that use an environment change it (Python writes bytecode), and uses are counted.
        fingerprint = [status.st_ino, status.st_mtime_ns, one.uses]
        kinds = (float, list, str, int, int)
        values = self.index.get("venvs/" + name, fingerprint, kinds)
        if values is None:
            values = [*self.read_metadata(folder, status.st_mtime), *self.size_of(folder)]
            if not self.is_busy(one):
                self.index.put("venvs/" + name, fingerprint, values)
        one.built_at, one.packages, one.lockfile, one.own, one.linked = values
        self._text += sum(map(len, one.packages))
        if self._text > MAX_TEXT:
            one.packages = []
        return one

    def read_metadata(self, folder: str, default_time: float) -> list[Any]:
        """Return [time of the build, packages, digest of the lockfile]."""
        try:
            metadata = read_json(os.path.join(folder, METADATA))
            packages = package_names(metadata["packages"])
            return [point_in_time(metadata["built_at"]), packages, digest_of(str(metadata["lock"]))]
        except (ValueError, TypeError, KeyError, OverflowError):
            return [point_in_time(default_time), [], ""]

    def size_of(self, folder: str) -> list[int]:
        """Return [bytes of folders and of files with one link, bytes of other files]."""
        own = 0

        def linked() -> Iterator[os.stat_result]:
            nonlocal own
            for status in walk(folder, self.tick):
                if has_other_links(status):
                    yield status
                else:
                    own += status.st_blocks * 512

        others = allocated(linked())
        return [own, others]

    def is_busy(self, one: StoredEnvironment) -> bool:
        return is_held(self.lock_path(one.name))

    def read_lockfiles(self) -> None:
        for name in names_in(self.lockfiles_folder):
            path = os.path.join(self.lockfiles_folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if not name.endswith(".txt") or not stat.S_ISREG(status.st_mode):
                continue
            fingerprint = [status.st_ino, status.st_mtime_ns, status.st_size]
            values = self.index.get("locks/" + name, fingerprint, (str, list))
            if values is None:
                text = unsealed(read_text(path)) or ""
                found = re.findall(r"(?m)^[A-Za-z0-9][^\s\[<>=!~;@(]*", text)
                names = {canonical(package) for package in found[:MAX_PACKAGES]}
                values = [digest_of(text), sorted(names)]
                self.index.put("locks/" + name, fingerprint, values)
            written_at = point_in_time(status.st_mtime)
            self.lockfiles.append(StoredLockfile(name[:-4], written_at, *values))

    def reclaimable_by_environment(self, references: PackageReferences) -> dict[str, int]:
        """Return for each environment the bytes of itself and of packages that only it needs."""
        counts = references.counts
        sizes: dict[str, int] = {}
        for name in self.uv_cache.packages:
            if list(counts.get(name, {}).values()) == [1]:
                sizes[name] = self.uv_cache.package_bytes(name)
        return {
            one.name: one.own + sum(sizes.get(name, 0) for name in one.names)
            for one in self.environments
        }

    # ------------------------------------------------------------------ pruning

    def prune(
        self, unused: float | None, max_bytes: int | None, lock_ttl: float, dry_run: bool
    ) -> dict[str, Any]:
        with contextlib.nullcontext() if dry_run else ExclusiveRun(self):
            return self._prune_exclusively(unused, max_bytes, lock_ttl, dry_run)

    def _prune_exclusively(
        self, unused: float | None, max_bytes: int | None, lock_ttl: float, dry_run: bool
    ) -> dict[str, Any]:
        if not dry_run:
            self.repair_folders()
        total, _ = self.measure()
        now = time.time()
        reclaimable = ReclaimableBytes(self.tick)
        for path in [*self.leftovers(), *old_folders(self.path())]:
            reclaimable.add(path)
            if not dry_run:
                self.move_to_trash(path)

        def is_over_limit() -> bool:
            return max_bytes is not None and total - reclaimable.bytes > max_bytes

        dropped: list[str] = []
        busy: list[str] = []
        packages: list[str] = []
        dropped_snapshots = 0
        references = PackageReferences(self.environments, self.lockfiles, now - lock_ttl)
        if unused is not None or is_over_limit():
            packages = references.unreferenced(self.uv_cache.packages) if self.find_uv() else []
            self.uv_cache.add_packages(reclaimable, packages)
            snapshots = Snapshots(self)
            with contextlib.nullcontext(True) if dry_run else snapshots.locked() as is_locked:
                if is_locked:
                    snapshots.read()
                    snapshots.remove(snapshots.unneeded, reclaimable, dry_run)
                candidates: list[StoredEnvironment | StoredSnapshot | StoredCopy] = [
                    *self.environments,
                    *snapshots.stored,
                    *snapshots.copies,
                ]
                for one in sorted(candidates, key=lambda one: one.last_used):
                    self.set_activity("choosing what to remove: %d environments" % len(dropped))
                    is_old = unused is not None and one.last_used < now - unused
                    if not (is_old or is_over_limit()):
                        break  # the others were used later
                    if isinstance(one, StoredSnapshot):
                        snapshots.drop(one, reclaimable, dry_run)
                        dropped_snapshots += 1
                        continue
                    if isinstance(one, StoredCopy):
                        snapshots.drop_copy(one, reclaimable, dry_run)
                        continue
                    if not self.drop(one, reclaimable, dry_run):
                        busy.append(one.name)
                        continue
                    dropped.append(one.name)
                    unreferenced = references.drop(one)
                    if self.find_uv():
                        cached = self.uv_cache.packages
                        packages += [name for name in unreferenced if name in cached]
                        self.uv_cache.add_packages(reclaimable, unreferenced)
            for lockfile in references.unused_lockfiles:
                self.drop_lockfile(lockfile, reclaimable, dry_run)
            for path in self.stale_requests(
                self.path(PythonLayout.REQUESTS), self.environments_folder, dropped
            ):
                reclaimable.add(path)
                if not dry_run:
                    remove_tree(path)
        trouble = None
        freed = reclaimable.bytes
        if not dry_run:
            trouble = self.clean_uv(lock_ttl) if packages else None
            if trouble is not None:
                # Packages that stay in uv's cache keep the bytes of files with links there.
                freed, packages = self.trash_bytes(), []
            self.empty_trash()
        return {
            "bytes": freed,
            "left": max(0, total - freed),  # A job may have written meanwhile.
            "entries": len(self.environments) - len(dropped),
            "environments": dropped,
            "packages": sorted(packages)[:MAX_REPORTED],
            "snapshots": dropped_snapshots,
            "busy": busy,
            "trouble": trouble,
        }

    def drop(self, one: StoredEnvironment, reclaimable: ReclaimableBytes, dry_run: bool) -> bool:
        """Move an environment to the trash; return False if a job uses it, or did since `measure`."""
        folder = self.environment_path(one.name)
        lock = try_lock(folder + LOCK_SUFFIX, self.move_to_trash)
        if lock is None:
            return False
        try:
            if os.fstat(lock).st_size != one.uses:
                return False
            reclaimable.add(folder)
            reclaimable.add(folder + LOCK_SUFFIX)
            if not dry_run:
                self.move_to_trash(folder)
                # A job that waits for this lock then finds another file, and locks that.
                os.unlink(folder + LOCK_SUFFIX)
        finally:
            os.close(lock)
        return True

    def drop_lockfile(
        self, lockfile: StoredLockfile, reclaimable: ReclaimableBytes, dry_run: bool
    ) -> None:
        path = os.path.join(self.lockfiles_folder, lockfile.name)
        held = try_lock(path + LOCK_SUFFIX, self.move_to_trash)
        if held is None:
            return
        try:
            reclaimable.add(path + ".txt")
            reclaimable.add(path + LOCK_SUFFIX)
            if not dry_run:
                remove_tree(path + ".txt")
                os.unlink(path + LOCK_SUFFIX)
        finally:
            os.close(held)

    def lock(self, key: str) -> dict[str, Any]:
        """Return the lockfile of an environment; `RefusedError` if it has been removed."""
        try:
            if not ENVIRONMENT_KEY.fullmatch(key):
                raise ValueError
            lock = read_json(os.path.join(self.own_path(PythonLayout.ENVIRONMENTS, key), METADATA))[
                "lock"
            ]
            if not isinstance(lock, str):
                raise ValueError
            lock.encode()  # raises ValueError for lone surrogates
            return {"lock": lock}
        except (ValueError, TypeError, KeyError):
            raise RefusedError("there is no environment %s any more" % key[:32]) from None

    def leftovers(self) -> list[str]:
        """Return what killed builds and writers left: unlocked, or older than `ABANDONED_AGE`."""
        found = [self.path(TRASH, name) for name in names_in(self.path(TRASH))]
        for name in names_in(self.environments_folder):
            key, _, end = name.partition(".")
            lock = self.lock_path(key)
            if (
                "." + end == UNFINISHED_SUFFIX
                and ENVIRONMENT_KEY.fullmatch(key)
                and not is_held(lock)
            ):
                found.append(self.environment_path(name))
        parts = (PythonLayout.LOCKFILES, PythonLayout.ENVIRONMENTS, PythonLayout.REQUESTS)
        for folder in ("", *parts):
            for name in names_in(self.path(folder)):
                path = self.path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    old = os.lstat(path).st_mtime < time.time() - ABANDONED_AGE
                    if name.endswith(".new") and old:
                        found.append(path)
        return found

    # ------------------------------------------------------------------ uv

    def find_uv(self) -> str | None:
        """Return the path of uv: the given one, that on PATH, or the runner's on the volume."""
        if self._uv is None:
            self._uv = shutil.which("uv")
        if self._uv is None:
            names = [
                name
                for name in names_in(self.path(PythonLayout.PROGRAMS))
                if re.fullmatch(r"uv-[^/]*\w", name)
            ]
            programs = [
                self.path(PythonLayout.PROGRAMS, name)
                for name in names
                if not name.endswith((LOCK_SUFFIX, UNFINISHED_SUFFIX))
            ]
            self._uv = programs[-1] if programs else None
        return self._uv

    def clean_uv(self, lock_ttl: float) -> str | None:
        """Remove the packages that nothing needs from uv's cache; return what went wrong, or None.

        Read the volume again first, because a job may have begun to use a package. uv waits until no
        other uv uses its cache. A package that is needed after all is downloaded again.
        """
        now = PythonVolume(self._top, self._uv, self._progress)
        now.read_lockfiles()
        now.uv_cache.read()
        now.read_environments()
        references = PackageReferences(now.environments, now.lockfiles, time.time() - lock_ttl)
        names = references.unreferenced(now.uv_cache.packages)
        uv = self.find_uv()
        assert uv is not None
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "UV_CACHE_DIR": self.uv_cache.folder,
            "UV_LOCK_TIMEOUT": UV_LOCK_SECONDS,
            "UV_NO_CONFIG": "1",
            "NO_COLOR": "1",
        }
        for start in range(0, len(names), NAMES_AT_ONCE):
            self.set_activity("cleaning %d packages out of uv's cache" % len(names))
            argv = [uv, "cache", "clean", "--quiet", *names[start : start + NAMES_AT_ONCE]]
            code, _, err = self.run(argv, env)
            if code != 0:
                causes = re.findall(r"(?m)^(?:error|  cause|  Caused by): (.*)", err)
                return "uv did not clean its cache: " + short_reason(": ".join(causes) or err, code)
        return None

    # ------------------------------------------------------------------ clearing

    def clear(self) -> dict[str, Any]:
        with ExclusiveRun(self):
            self.repair_folders()
            lock = try_lock(self.path(PythonLayout.IN_USE_LOCK), self.move_to_trash)
            if lock is None:
                raise RefusedError("a running job uses this cache; nothing was cleared")
            try:
                found = names_in(self.environments_folder)
                environments = [name for name in found if ENVIRONMENT_KEY.fullmatch(name)]
                held = [name for name in environments if is_held(self.lock_path(name))]
                if held:
                    raise RefusedError("environments in use: %s" % ", ".join(held[:20]))
                packages = self.uv_cache.package_names()
                self.move_all_to_trash(self._top, self.is_kept_by_clear)
            finally:
                # Jobs that wait can begin on the empty volume, before everything is deleted.
                os.close(lock)
            freed = self.empty_trash()
        return self.clear_result(freed, environments, packages)

    def is_kept_by_clear(self, name: str) -> bool:
        """Return whether clearing keeps what has this name at the top of the volume."""
        path = self.path(name)
        return name in (TRASH, *JOB_FOLDERS) or (name in KEPT_BY_CLEAR and is_small(path))

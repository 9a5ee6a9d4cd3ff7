"""Snapshots of projects on a Python volume: which contents each needs, and what nothing needs."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time

from stoke.remote.common.files import read_regular
from stoke.remote.housekeeping.file_locks import try_lock
from stoke.remote.housekeeping.files import names_in, point_in_time
from stoke.remote.housekeeping.limits import MAX_ENVIRONMENTS, MAX_FILE
from stoke.remote.housekeeping.sizes import allocated, walk
from stoke.remote.protocol import LOCK_SUFFIX, PROJECT_COPY, PythonLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stoke.remote.housekeeping.sizes import ReclaimableBytes
    from stoke.remote.housekeeping.volume import CacheVolume

LOCK_SECONDS = 10.0
"""How long to wait for jobs that take their files; each needs less than a second."""
HASH = re.compile("[0-9a-f]{64}")
COPY = re.compile(PROJECT_COPY + r"(|\.json|\.lock)")
HASH_IN_MANIFEST = re.compile(rb'"([0-9a-f]{64})"')


class StoredSnapshot:
    """A snapshot; `contents` are those that no later used one needs."""

    def __init__(self, name: str, last_used: float) -> None:
        self.name = name
        self.last_used = last_used
        self.contents: list[str] = []  # paths
        self.bytes = 0


class StoredCopy:
    """A copy of a project, which a job has or the next one takes over."""

    def __init__(self, name: str, last_used: float, size: int) -> None:
        self.name = name
        self.last_used = last_used
        self.bytes = size


class Snapshots:
    """All snapshots of a volume, and the copies of projects; `read` fills them in, the least recently
    used first."""

    def __init__(self, volume: CacheVolume) -> None:
        self.folder = volume.path(PythonLayout.SNAPSHOTS)
        self.stored: list[StoredSnapshot] = []
        self.copies: list[StoredCopy] = []
        self.unneeded: list[str] = []  # paths of everything that no snapshot needs
        self.unneeded_bytes = 0
        self._volume = volume
        self._uses = volume.own_path(*PythonLayout.SNAPSHOT_USES.split("/"))
        self._copies = volume.own_path(*PythonLayout.PROJECT_COPIES.split("/"))
        self._objects = volume.own_path(*PythonLayout.SNAPSHOT_OBJECTS.split("/"))

    def total_bytes(self) -> int:
        """Return the bytes of all snapshots."""
        return allocated(walk(self.folder, self._volume.tick))

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Keep jobs from taking or storing files; give False if one has held the lock for too long."""
        path = self._volume.path(PythonLayout.SNAPSHOT_LOCK)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            lock = try_lock(path, self._volume.move_to_trash)
            if lock is not None or time.monotonic() > deadline:
                break
            self._volume.set_activity("waiting for jobs that take their files")
            time.sleep(0.05)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def read(self) -> None:
        """Read what is stored, and divide it among the snapshots."""
        self._volume.set_activity("reading snapshots")
        self._read_copies()
        sizes = self._read_contents()
        for name in names_in(self._uses)[:MAX_ENVIRONMENTS]:
            path = os.path.join(self._uses, name)
            status = _status(path)
            if HASH.fullmatch(name) and status is not None:
                self.stored.append(StoredSnapshot(name, point_in_time(status.st_mtime)))
            else:
                self.unneeded.append(path)
        self.stored.sort(key=lambda one: one.last_used)
        # A content goes with the last snapshot that needs it, in the order in which they are removed.
        for one in reversed(self.stored):
            self._volume.tick()
            manifest = self._manifest(one.name)
            if manifest is None:
                one.last_used = 0.0  # of no use
                continue
            for name in {one.name, *map(_decoded, HASH_IN_MANIFEST.findall(manifest))}:
                size = sizes.pop(name, None)
                if size is not None:
                    one.contents.append(self._path(name))
                    one.bytes += size
        self.stored.sort(key=lambda one: one.last_used)
        self.unneeded += map(self._path, sizes)
        self.unneeded_bytes = sum(sizes.values())

    def _read_copies(self) -> None:
        for name in names_in(self._copies)[:MAX_ENVIRONMENTS]:
            path = os.path.join(self._copies, name)
            found = COPY.fullmatch(name)
            if found is None:
                self.unneeded.append(path)
            elif found[1] == LOCK_SUFFIX:
                used = _status(path)
                last_used = point_in_time(used.st_mtime) if used is not None else 0.0
                size = allocated(walk(path[: -len(LOCK_SUFFIX)], self._volume.tick))
                self.copies.append(StoredCopy(name[: -len(LOCK_SUFFIX)], last_used, size))
        self.copies.sort(key=lambda one: one.last_used)

    def _read_contents(self) -> dict[str, int]:
        """Return the bytes of each content; add everything else to `unneeded`."""
        sizes: dict[str, int] = {}
        for beginning in names_in(self._objects):
            folder = os.path.join(self._objects, beginning)
            if not re.fullmatch("[0-9a-f]{2}", beginning) or os.path.islink(folder):
                self.unneeded.append(folder)
                continue
            for name in names_in(folder):
                self._volume.tick()
                path = os.path.join(folder, name)
                status = _status(path)
                if HASH.fullmatch(beginning + name) and status is not None:
                    sizes[beginning + name] = status.st_blocks * 512
                else:
                    self.unneeded.append(path)
        return sizes

    def _manifest(self, digest: str) -> bytes | None:
        try:
            return read_regular(self._path(digest), MAX_FILE)
        except OSError:
            return None

    def _path(self, sha256: str) -> str:
        return os.path.join(self._objects, sha256[:2], sha256[2:])

    def drop(self, one: StoredSnapshot, reclaimable: ReclaimableBytes, dry_run: bool) -> None:
        """Move a snapshot to the trash, with the contents that only it needs."""
        self.remove([os.path.join(self._uses, one.name), *one.contents], reclaimable, dry_run)

    def drop_copy(self, one: StoredCopy, reclaimable: ReclaimableBytes, dry_run: bool) -> None:
        """Move a copy to the trash unless a job has it."""
        folder = os.path.join(self._copies, one.name)
        lock = try_lock(folder + LOCK_SUFFIX, self._volume.move_to_trash)
        if lock is None:
            return
        try:
            self.remove([folder, folder + ".json", folder + LOCK_SUFFIX], reclaimable, dry_run)
        finally:
            os.close(lock)

    def remove(self, paths: list[str], reclaimable: ReclaimableBytes, dry_run: bool) -> None:
        for path in paths:
            self._volume.tick()
            reclaimable.add(path)
            if not dry_run:
                with contextlib.suppress(FileNotFoundError):
                    self._volume.move_to_trash(path)


def _status(path: str) -> os.stat_result | None:
    """Return the status of a regular file; None for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _decoded(sha256: bytes) -> str:
    return sha256.decode()

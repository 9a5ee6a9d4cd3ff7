"""The file that looks after a cache volume, run where it is mounted; standard library, Python 3.9+.

    python3 -I -S housekeeping.py VOLUME OPERATION [--uv PATH]

OPERATION is a JSON object with `kind` ("python", "system") and `do`:
    usage   what the volume holds
    prune   drops environments: with `unused` those unused for so many seconds, with `max_bytes` the
            least recently used until no more is left; never one in use. Then the packages that no
            environment names go from uv's cache. `dry_run` says what would go and touches nothing.
    clear   drops everything; refuses while a job uses the volume
    lock    the text of the lock that the environment `key` was built from
A stored lock younger than `lock_ttl` seconds names packages too: a job may be about to build from it.

stdout is JSON, a line each: {"progress": text} any number of times, at least every second, then
{"result": object} or {"error": text, "mend": text or null}. SIGTERM ends it at any point and leaves
the volume whole: what goes is renamed into trash/ first, and the next run empties that.

Symbolic links are never followed, neither when measuring nor when deleting. Bytes are allocated
ones, and a hard-linked file counts once. `stoke/runner.py` says what lies where on the volume;
besides, there are
    housekeeping.lock  held while something is dropped: one run at a time
    housekeeping.json  sizes of what does not change, so that measuring again is quick
    trash/             what is on its way out
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Progress = Callable[[str], None]

MARK = "stoke-environment.json"
MAX_MARK = 32 * 1024**2
ENVIRONMENT = re.compile(r"[0-9a-f]{32}")
REQUEST = re.compile(r"[0-9a-f]{64}")
PACKAGE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KEPT_BY_CLEAR = ("CACHEDIR.TAG", "in-use.lock", "housekeeping.lock", "trash")
# For how long uv waits for other uvs to leave its cache.
UV_PATIENCE = "5"
NAMES_AT_ONCE = 500
PROGRESS_SECONDS = 0.25
FOREIGN_AGE = 86400.0  # what a killed writer left aside is nobody's after a day


class RefusedError(Exception):
    """Nothing is done: why, and what mends it."""

    def __init__(self, text: str, mend: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.mend = mend


# ---------------------------------------------------------------------------- trees


def walk(top: str, tick: Callable[[], None], skip: Iterable[str] = ()) -> Iterator[os.stat_result]:
    """The status of `top` and everything below it on the same filesystem, except paths in `skip`."""
    skipped = frozenset(skip)
    try:
        status = os.lstat(top)
    except OSError:
        return
    yield status
    device = status.st_dev
    folders = [top] if stat.S_ISDIR(status.st_mode) else []
    while folders:
        tick()
        try:
            entries = os.scandir(folders.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.path in skipped:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if status.st_dev != device:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.path)
                yield status


def allocated(statuses: Iterable[os.stat_result]) -> int:
    """Bytes on disk of all of them, each inode once."""
    seen = set()
    total = 0
    for status in statuses:
        if has_more_links(status):
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        total += status.st_blocks * 512
    return total


def has_more_links(status: os.stat_result) -> bool:
    return status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)


class Going:
    """Adds up what is freed when trees go: an inode's bytes go with its last link."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.bytes = 0
        self._tick = tick
        self._links: dict[int, int] = {}
        self._added: set[str] = set()

    def add(self, path: str) -> None:
        if path in self._added:
            return
        self._added.add(path)
        for status in walk(path, self._tick):
            if has_more_links(status):
                links = self._links.get(status.st_ino, status.st_nlink) - 1
                self._links[status.st_ino] = links
                if links:
                    continue
            self.bytes += status.st_blocks * 512


def names_in(folder: str) -> list[str]:
    """Sorted names in a folder; none if it is not one, or a symbolic link to one."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return []
        return sorted(os.listdir(folder))
    except OSError:
        return []


def remove(path: str) -> None:
    """Removes a file or a tree; what a job made unreadable to its owner is made readable first."""
    if not os.path.isdir(path) or os.path.islink(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        return
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        for folder, _, _ in os.walk(path):
            try:
                os.chmod(folder, 0o700)
            except OSError:
                pass
        shutil.rmtree(path, ignore_errors=True)


def read_text(path: str) -> str | None:
    """A regular file's text, never through a symbolic link; None if there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(file, encoding="utf-8", errors="replace") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_MARK:
            return None
        return stream.read()


# ---------------------------------------------------------------------------- locks


def take(path: str) -> int | None:
    """The exclusive lock of a lock file, or None while somebody holds it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if is_the_file(lock, path):
            return lock
        os.close(lock)  # of a file that was removed in between


def is_the_file(file: int, path: str) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(file)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def is_held(path: str) -> bool:
    """Whether somebody holds the lock; one that is not there is not held."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


# ---------------------------------------------------------------------------- what a volume holds


class Environment:
    """An environment as it stands on the volume. `name` is its key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.built_at: float | None = None
        self.last_used = 0.0
        self.uses = 0
        self.packages: list[str] = []
        self.lock = ""  # the digest of the lock it was built from
        self.own = 0  # bytes of files that have no other link
        self.linked = 0  # bytes of files that uv's cache or another environment has too

    @property
    def names(self) -> set[str]:
        return {canonical(package) for package in self.packages}


class StoredLock:
    """A lock in locks/."""

    def __init__(self, name: str, written_at: float, digest: str, names: list[str]) -> None:
        self.name = name
        self.written_at = written_at
        self.digest = digest
        self.names = names


class Naming:
    """Who names a package: environments, and stored locks that somebody may be about to build from.

    A lock counts while an environment was built from it, or while it is fresh (written after
    `since`); it goes with the last of its environments. `counts` holds for each package who names
    it: the digests of their locks, which an environment and its own lock share.
    """

    def __init__(
        self, environments: list[Environment], locks: list[StoredLock], since: float
    ) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.going_locks: list[StoredLock] = []
        self._environments: dict[str, int] = {}
        self._locks: dict[str, list[StoredLock]] = {}
        for one in environments:
            self._environments[one.lock] = self._environments.get(one.lock, 0) + 1
            self._count(one.names, one.lock)
        for lock in locks:
            if lock.digest in self._environments:
                self._locks.setdefault(lock.digest, []).append(lock)
            elif lock.written_at >= since:
                self._count(lock.names, lock.digest)
            else:
                self.going_locks.append(lock)

    def _count(self, names: Iterable[str], who: str) -> None:
        for name in names:
            counts = self.counts.setdefault(name, {})
            counts[who] = counts.get(who, 0) + 1

    def unnamed(self, packages: Iterable[str]) -> list[str]:
        return sorted(name for name in packages if name not in self.counts)

    def drop(self, one: Environment) -> list[str]:
        """Takes an environment out; the packages that nobody names any more."""
        gone = []
        self._environments[one.lock] -= 1
        if not self._environments[one.lock]:
            self.going_locks += self._locks.pop(one.lock, [])
        for name in one.names:
            counts = self.counts[name]
            counts[one.lock] -= 1
            if not counts[one.lock]:
                del counts[one.lock]
            if not counts:
                del self.counts[name]
                gone.append(name)
        return sorted(gone)


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@(]", package, maxsplit=1)[0]).lower()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Index:
    """What is known of things that do not change, by what they looked like from outside. Jobs can
    write to the volume, so whatever is wrong with this file, it then just knows nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            stored = json.loads(read_text(path) or "")
            self._before = {str(name): tuple(row) for name, row in stored.items()}
        except (ValueError, TypeError, AttributeError):
            self._before = {}
        self._now: dict[str, tuple[Any, ...]] = {}

    def get(self, name: str, looks: list[Any], kinds: tuple[type, ...]) -> list[Any] | None:
        """The values kept for `name`, if it still looks as it did then."""
        row = self._before.get(name)
        if row is None or len(row) != 2 or row[0] != looks or not isinstance(row[1], list):
            return None
        values: list[Any] = row[1]
        if [type(value) for value in values] != list(kinds):
            return None
        self._now[name] = (looks, values)
        return values

    def put(self, name: str, looks: list[Any], values: list[Any]) -> None:
        self._now[name] = (looks, values)

    def save(self) -> None:
        if self._now == self._before:
            return
        aside = "%s.%d" % (self._path, os.getpid())
        try:
            with open(aside, "w") as file:
                json.dump(self._now, file, separators=(",", ":"))
            os.rename(aside, self._path)
        except OSError:  # full or read-only: measured again next time
            try:
                os.unlink(aside)
            except OSError:
                pass


class Volume:
    """What housekeeping of every kind of volume needs: progress, an index, a trash folder."""

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        self._top = top
        self._uv = uv
        self._progress = progress
        self._said_at = 0.0
        self._doing = "looking"
        self._index = Index(self.path("housekeeping.json"))

    def path(self, *names: str) -> str:
        return os.path.join(self._top, *names)

    def do(self, doing: str) -> None:
        self._doing = doing
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            self._progress(self._doing)

    def throw_away(self, path: str) -> None:
        """Out of everybody's sight at once; `empty_trash` does what takes long."""
        trash = self.path("trash")
        if os.path.islink(trash):
            os.unlink(trash)
        if os.path.dirname(path) == trash:
            return
        os.makedirs(trash, exist_ok=True)
        aside = "%s-%d-%d" % (os.path.basename(path), os.getpid(), time.monotonic_ns())
        os.rename(path, os.path.join(trash, aside))

    def requests(self, folder: str, keys: Iterable[str]) -> dict[str, str]:
        """Request hash to the environment, of those in `keys`, that last answered it."""
        known = frozenset(keys)
        found = {}
        for name in names_in(folder):
            self.do("reading what was asked for")
            key = read_text(os.path.join(folder, name)) or ""
            if REQUEST.fullmatch(name) and key in known:
                found[name] = key
        return found

    def stale_requests(self, folder: str, environments: str, going: Iterable[str]) -> list[str]:
        """Files of requests whose environment is gone, or among those `going`."""
        gone = frozenset(going)
        found = []
        for name in names_in(folder):
            key = read_text(os.path.join(folder, name)) or ""
            there = ENVIRONMENT.fullmatch(key) and os.path.lexists(os.path.join(environments, key))
            if REQUEST.fullmatch(name) and (key in gone or not there):
                found.append(os.path.join(folder, name))
        return found

    def empty_trash(self) -> None:
        names = names_in(self.path("trash"))
        for number, name in enumerate(names):
            self.do("removed %d of %d" % (number, len(names)))
            remove(self.path("trash", name))


class PythonVolume(Volume):
    """A scope's python volume: environments, and uv's cache that they are hard links into."""

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        super().__init__(top, uv, progress)
        self.environments: list[Environment] = []
        self.locks: list[StoredLock] = []
        self.archives: dict[str, int] = {}  # path -> bytes
        self.packages: dict[str, list[str]] = {}  # name -> all of its paths in uv's cache

    # ------------------------------------------------------------------ measuring

    def usage(self, lock_ttl: float) -> dict[str, Any]:
        total, uv_bytes = self.measure()
        goes = self.would_go(lock_ttl)
        return {
            "bytes": total,
            "uv_bytes": uv_bytes,
            "measured_at": time.time(),
            "environments": [
                {
                    "key": one.name,
                    "bytes": one.own + one.linked,
                    "goes": goes[one.name],
                    "built_at": one.built_at,
                    "last_used": one.last_used,
                    "uses": one.uses,
                    "packages": one.packages,
                    "busy": self.is_busy(one),
                }
                for one in self.environments
            ],
            "requests": self.requests(
                self.path("requests"), [one.name for one in self.environments]
            ),
        }

    def measure(self) -> tuple[int, int]:
        """Fills in everything; returns (bytes of the volume, bytes of uv's cache)."""
        self.read_locks()
        self.read_uv()
        self.read_environments()
        self._index.save()
        self.do("adding up")
        uv = self.path("uv")
        uv_bytes = allocated(walk(uv, self.tick, self.archives)) + sum(self.archives.values())
        apart = {uv, *(self.path("venvs", one.name) for one in self.environments)}
        if any(one.linked and not one.names <= self.packages.keys() for one in self.environments):
            # Somebody emptied uv's cache: its environments' files are nobody else's, or only of other
            # environments, and only looking at every one tells.
            return allocated(walk(self._top, self.tick)), uv_bytes
        rest = allocated(walk(self._top, self.tick, apart))
        return rest + uv_bytes + sum(one.own for one in self.environments), uv_bytes

    def read_environments(self) -> None:
        names = [name for name in names_in(self.path("venvs")) if ENVIRONMENT.fullmatch(name)]
        for number, name in enumerate(names):
            self.do("measured %d of %d environments" % (number, len(names)))
            one = self.read_environment(name)
            if one is not None:
                self.environments.append(one)

    def read_environment(self, name: str) -> Environment | None:
        folder = self.path("venvs", name)
        one = Environment(name)
        try:
            looked_at = os.lstat(folder)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(looked_at.st_mode):
            return None
        try:
            looked_at = os.lstat(os.path.join(folder, MARK))
            one.last_used = looked_at.st_mtime
        except FileNotFoundError:
            pass  # damaged: nobody can use it, so it was last used in 1970
        try:
            used = os.lstat(folder + ".lock")
            one.uses = used.st_size
            one.last_used = max(one.last_used, used.st_mtime) if one.last_used else 0.0
        except FileNotFoundError:
            pass
        # Only a job that uses an environment changes it (Python writes bytecode), and it is counted.
        looks = [looked_at.st_ino, looked_at.st_mtime_ns, one.uses]
        kinds = (float, list, str, int, int)
        values = self._index.get("venvs/" + name, looks, kinds)
        if values is None:
            values = [*self.read_mark(folder, looked_at.st_mtime), *self.size_of(folder)]
            if not self.is_busy(one):
                self._index.put("venvs/" + name, looks, values)
        one.built_at, one.packages, one.lock, one.own, one.linked = values
        return one

    def read_mark(self, folder: str, otherwise: float) -> list[Any]:
        """[when it was built, its packages, its lock's digest]."""
        try:
            mark = json.loads(read_text(os.path.join(folder, MARK)) or "")
            packages = [str(name) for name in mark["packages"]]
            return [float(mark["built_at"]), packages, digest(str(mark["lock"]))]
        except (ValueError, TypeError, KeyError):
            return [float(otherwise), [], ""]

    def size_of(self, folder: str) -> list[int]:
        """[bytes of files with one link and of folders, bytes of the others]."""
        statuses = list(walk(folder, self.tick))
        linked = allocated(status for status in statuses if has_more_links(status))
        return [allocated(statuses) - linked, linked]

    def is_busy(self, one: Environment) -> bool:
        return is_held(self.path("venvs", one.name + ".lock"))

    def read_locks(self) -> None:
        for name in names_in(self.path("locks")):
            path = self.path("locks", name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if not name.endswith(".txt") or not stat.S_ISREG(status.st_mode):
                continue
            looks = [status.st_ino, status.st_mtime_ns, status.st_size]
            values = self._index.get("locks/" + name, looks, (str, list))
            if values is None:
                text = read_text(path) or ""
                found = re.findall(r"(?m)^[A-Za-z0-9][^\s\[<>=!~;@(]*", text)
                values = [digest(text), sorted({canonical(package) for package in found})]
                self._index.put("locks/" + name, looks, values)
            self.locks.append(StoredLock(name[:-4], status.st_mtime, *values))

    def read_uv(self) -> None:
        """Finds each package's entries and archives in uv's cache."""
        uv = self.path("uv")
        self.do("measuring uv's cache")
        for bucket in names_in(uv):
            kind = bucket.partition("-v")[0]
            if kind == "archive":
                for name in names_in(os.path.join(uv, bucket)):
                    path = os.path.join(uv, bucket, name)
                    # An archive is renamed into place whole and never written to again.
                    values = self._index.get("uv/%s/%s" % (bucket, name), [], (int,))
                    if values is None:
                        values = [allocated(walk(path, self.tick))]
                        self._index.put("uv/%s/%s" % (bucket, name), [], values)
                    self.archives[path] = values[0]
            elif kind in ("wheels", "sdists", "simple"):
                for path in package_entries(os.path.join(uv, bucket)):
                    name = os.path.basename(path)
                    name = name[: -len(".rkyv")] if kind == "simple" else name
                    if PACKAGE.fullmatch(name):
                        self.packages.setdefault(name, []).append(path)
        for paths in self.packages.values():
            paths += sorted({archive for path in paths for archive in self.archives_of(path)})

    def archives_of(self, folder: str) -> Iterator[str]:
        """The archives that links below a package's folder name; a link to elsewhere is no archive."""
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = os.path.join(parent, name)
                if os.path.islink(path):
                    parts = os.readlink(path).split("/")
                    archive = self.path("uv", *parts[-2:])
                    if archive in self.archives:
                        yield archive

    def would_go(self, lock_ttl: float) -> dict[str, int]:
        """For each environment: the bytes that go with it and with the packages only it names."""
        named = Naming(self.environments, self.locks, time.time() - lock_ttl).counts
        sizes: dict[str, int] = {}
        for name, paths in self.packages.items():
            if list(named.get(name, {}).values()) == [1]:
                sizes[name] = sum(
                    self.archives.get(path) or allocated(walk(path, self.tick)) for path in paths
                )
        return {
            one.name: one.own + sum(sizes.get(name, 0) for name in one.names)
            for one in self.environments
        }

    # ------------------------------------------------------------------ pruning

    def prune(
        self, unused: float | None, max_bytes: int | None, lock_ttl: float, dry_run: bool
    ) -> dict[str, Any]:
        with contextlib.nullcontext() if dry_run else Alone(self):
            return self.prune_alone(unused, max_bytes, lock_ttl, dry_run)

    def prune_alone(
        self, unused: float | None, max_bytes: int | None, lock_ttl: float, dry_run: bool
    ) -> dict[str, Any]:
        total, _ = self.measure()
        now = time.time()
        going = Going(self.tick)
        for path in self.leftovers():
            going.add(path)
            if not dry_run:
                self.throw_away(path)

        def too_much() -> bool:
            return max_bytes is not None and total - going.bytes > max_bytes

        dropped: list[str] = []
        busy: list[str] = []
        packages: list[str] = []
        naming = Naming(self.environments, self.locks, now - lock_ttl)
        if unused is not None or too_much():
            packages = naming.unnamed(self.packages) if self.find_uv() else []
            self.add_packages(going, packages)
            for one in sorted(self.environments, key=lambda one: one.last_used):
                self.do("choosing what goes: %d environments" % len(dropped))
                is_old = unused is not None and one.last_used < now - unused
                if not (is_old or too_much()):
                    break  # and so are all that were used later
                if not self.drop(one, going, dry_run):
                    busy.append(one.name)
                    continue
                dropped.append(one.name)
                unnamed = naming.drop(one)
                if self.find_uv():
                    packages += [name for name in unnamed if name in self.packages]
                    self.add_packages(going, unnamed)
            for lock in naming.going_locks:
                self.drop_lock(lock, going, dry_run)
            for path in self.stale_requests(self.path("requests"), self.path("venvs"), dropped):
                going.add(path)
                if not dry_run:
                    remove(path)
        trouble = None
        freed = going.bytes
        if not dry_run:
            trouble = self.clean_uv(lock_ttl) if packages else None
            if trouble is not None:
                # What stays in uv's cache keeps what is linked to it: count again what really goes.
                only = Going(self.tick)
                for name in names_in(self.path("trash")):
                    only.add(self.path("trash", name))
                freed, packages = only.bytes, []
            self.empty_trash()
        return {
            "bytes": freed,
            "left": total - freed,
            "entries": len(self.environments) - len(dropped),
            "environments": dropped,
            "packages": sorted(packages),
            "busy": busy,
            "trouble": trouble,
        }

    def add_packages(self, going: Going, names: list[str]) -> None:
        for name in names:
            for path in self.packages.get(name, []):
                going.add(path)

    def drop(self, one: Environment, going: Going, dry_run: bool) -> bool:
        """Puts an environment into the trash; False if it is in use, or was since it was looked at."""
        folder = self.path("venvs", one.name)
        lock = take(folder + ".lock")
        if lock is None:
            return False
        try:
            if os.fstat(lock).st_size != one.uses:
                return False
            going.add(folder)
            going.add(folder + ".lock")
            if not dry_run:
                self.throw_away(folder)
                # Whoever waits for this lock looks again, finds another file, and locks that.
                os.unlink(folder + ".lock")
        finally:
            os.close(lock)
        return True

    def drop_lock(self, lock: StoredLock, going: Going, dry_run: bool) -> None:
        path = self.path("locks", lock.name)
        held = take(path + ".lock")
        if held is None:
            return
        try:
            going.add(path + ".txt")
            going.add(path + ".lock")
            if not dry_run:
                remove(path + ".txt")
                os.unlink(path + ".lock")
        finally:
            os.close(held)

    def lock(self, key: str) -> dict[str, Any]:
        """Of an environment that may go in this moment: then there is none."""
        text = read_text(self.path("venvs", key, MARK)) if ENVIRONMENT.fullmatch(key) else None
        try:
            return {"lock": str(json.loads(text or "")["lock"])}
        except (ValueError, TypeError, KeyError):
            raise RefusedError("there is no environment %s any more" % key[:32]) from None

    def leftovers(self) -> list[str]:
        """What dead builds and writers left: nobody holds the lock that they held, or a day passed."""
        found = [self.path("trash", name) for name in names_in(self.path("trash"))]
        for name in names_in(self.path("venvs")):
            key, _, end = name.partition(".")
            lock = self.path("venvs", key + ".lock")
            if end == "tmp" and ENVIRONMENT.fullmatch(key) and not is_held(lock):
                found.append(self.path("venvs", name))
        for folder in ("locks", "venvs", "requests"):
            for name in names_in(self.path(folder)):
                path = self.path(folder, name)
                if name.endswith(".new") and os.lstat(path).st_mtime < time.time() - FOREIGN_AGE:
                    found.append(path)
        return found

    # ------------------------------------------------------------------ uv

    def find_uv(self) -> str | None:
        """uv: the one that was named, the one on PATH, or the one the runner put on the volume."""
        if self._uv is None:
            self._uv = shutil.which("uv")
        if self._uv is None:
            ours = [
                name for name in names_in(self.path("bin")) if re.fullmatch(r"uv-[^/]*\w", name)
            ]
            programs = [
                self.path("bin", name) for name in ours if not name.endswith((".lock", ".tmp"))
            ]
            self._uv = programs[-1] if programs else None
        return self._uv

    def clean_uv(self, lock_ttl: float) -> str | None:
        """Takes the packages nobody names out of uv's cache; what went wrong, if anything.

        Names are looked at again: a job may have begun to use one since. uv itself waits until no
        other uv is in its cache, and a package that is wanted after all is downloaded again."""
        now = PythonVolume(self._top, self._uv, self._progress)
        now.read_locks()
        now.read_uv()
        now.read_environments()
        naming = Naming(now.environments, now.locks, time.time() - lock_ttl)
        names = naming.unnamed(now.packages)
        uv = self.find_uv()
        assert uv is not None
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "UV_CACHE_DIR": self.path("uv"),
            "UV_LOCK_TIMEOUT": UV_PATIENCE,
            "UV_NO_CONFIG": "1",
            "NO_COLOR": "1",
        }
        for start in range(0, len(names), NAMES_AT_ONCE):
            self.do("cleaning %d packages out of uv's cache" % len(names))
            argv = [uv, "cache", "clean", "--quiet", *names[start : start + NAMES_AT_ONCE]]
            process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )  # fmt: skip
            while True:
                try:
                    _, err = process.communicate(timeout=PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    self.tick()
            if process.returncode != 0:
                lines = err.decode(errors="replace").strip().splitlines() or ["no reason given"]
                return "uv did not clean its cache: " + lines[-1][:300]
        return None

    # ------------------------------------------------------------------ clearing

    def clear(self) -> dict[str, Any]:
        with Alone(self):
            lock = take(self.path("in-use.lock"))
            if lock is None:
                raise RefusedError("a running job uses this cache; nothing was cleared")
            try:
                total, _ = self.measure()
                held = [one.name for one in self.environments if self.is_busy(one)]
                if held:
                    raise RefusedError("environments in use: %s" % ", ".join(held))
                for name in names_in(self._top):
                    if name not in KEPT_BY_CLEAR:
                        self.throw_away(self.path(name))
            finally:
                # Jobs that wait find an empty volume; they need not wait for the deleting.
                os.close(lock)
            going = Going(self.tick)
            for name in names_in(self.path("trash")):
                going.add(self.path("trash", name))
            self.empty_trash()
        return {
            "bytes": going.bytes,
            "left": total - going.bytes,
            "entries": 0,
            "environments": [one.name for one in self.environments],
            "packages": sorted(self.packages),
            "busy": [],
            "trouble": None,
        }


def package_entries(bucket: str) -> Iterator[str]:
    """The packages' entries in a bucket of uv's: below the index `pypi`, or a level further down."""
    for kind in names_in(bucket):
        folders = [os.path.join(bucket, kind)]
        if kind != "pypi":
            folders = [os.path.join(folders[0], name) for name in names_in(folders[0])]
        for folder in folders:
            for name in names_in(folder):
                yield os.path.join(folder, name)


class SystemVolume(Volume):
    """A scope's system volume, mounted at /nix: sets of packages, roots into Nix's store."""

    def sets(self) -> list[Environment]:
        """Every set: `own` are bytes of store paths that no other set needs, `linked` the others'."""
        roots = self.path("var", "nix", "gcroots", "jobs")
        found = []
        paths: dict[str, list[str]] = {}
        users: dict[str, int] = {}
        for name in names_in(roots):
            text = read_text(os.path.join(roots, name, MARK))
            if not ENVIRONMENT.fullmatch(name) or text is None:
                continue
            one = Environment(name)
            try:
                mark = json.loads(text)
                one.built_at = float(mark["built_at"])
                one.packages = sorted(str(package) for package in mark["programs"])
                paths[name] = sorted({os.path.basename(str(path)) for path in mark["paths"]})
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            one.last_used = one.built_at
            try:
                used = os.lstat(self.lock_of(one))
                one.last_used, one.uses = max(one.last_used, used.st_mtime), used.st_size
            except FileNotFoundError:
                pass
            for path in paths[name]:
                users[path] = users.get(path, 0) + 1
            found.append(one)
        sizes = {path: self.size_of(path) for path in users}
        for one in found:
            one.own = sum(sizes[path] for path in paths[one.name] if users[path] == 1)
            one.linked = sum(sizes[path] for path in paths[one.name]) - one.own
        return found

    def size_of(self, name: str) -> int:
        """Bytes of a path in the store, which never changes."""
        self.do("measuring the store")
        values = self._index.get("store/" + name, [], (int,))
        if values is None:
            values = [allocated(walk(self.path("store", name), self.tick))]
            self._index.put("store/" + name, [], values)
        size: int = values[0]
        return size

    def lock_of(self, one: Environment) -> str:
        return self.path("var", "stoke", one.name + ".lock")

    def usage(self, lock_ttl: float) -> dict[str, Any]:  # noqa: ARG002
        sets = self.sets()
        self._index.save()
        return {
            "bytes": allocated(walk(self._top, self.tick)),
            "uv_bytes": 0,
            "measured_at": time.time(),
            "environments": [
                {
                    "key": one.name,
                    "bytes": one.own + one.linked,
                    "goes": one.own,
                    "built_at": one.built_at,
                    "last_used": one.last_used,
                    "uses": one.uses,
                    "packages": one.packages,
                    "busy": is_held(self.lock_of(one)),
                }
                for one in sets
            ],
            "requests": self.requests(
                self.path("var", "stoke", "requests"),
                names_in(self.path("var", "nix", "gcroots", "jobs")),
            ),
        }

    def clear(self) -> dict[str, Any]:
        """Everything goes but the lock that every job with system packages holds."""
        with Alone(self):
            state = self.path("var", "stoke")
            lock = take(os.path.join(state, "gc.lock")) if names_in(state) else None
            if lock is None and names_in(state):
                raise RefusedError("a running job uses this cache; nothing was cleared")
            try:
                total = allocated(walk(self._top, self.tick))
                keys = [one.name for one in self.sets()]
                for folder, kept in (
                    (self._top, (*KEPT_BY_CLEAR, "var")),
                    (self.path("var"), ("stoke",)),
                    (state, ("gc.lock",)),
                ):
                    for name in names_in(folder):
                        if name not in kept:
                            self.throw_away(os.path.join(folder, name))
            finally:
                if lock is not None:
                    os.close(lock)
            going = Going(self.tick)
            for name in names_in(self.path("trash")):
                going.add(self.path("trash", name))
            self.empty_trash()
        return {
            "bytes": going.bytes,
            "left": total - going.bytes,
            "entries": 0,
            "environments": keys,
            "packages": [],
            "busy": [],
            "trouble": None,
        }


class Alone:
    """Waits for other housekeeping on the volume to end, and keeps more from beginning."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._lock: int | None = None

    def __enter__(self) -> None:
        while True:
            self._lock = take(self._volume.path("housekeeping.lock"))
            if self._lock is not None:
                return
            self._volume.do("waiting for other housekeeping to end")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)


# ---------------------------------------------------------------------------- the program

KINDS: dict[str, type[PythonVolume] | type[SystemVolume]] = {
    "python": PythonVolume,
    "system": SystemVolume,
}


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def perform(top: str, operation: dict[str, Any], uv: str | None) -> dict[str, Any]:
    what, kind = operation["do"], operation["kind"]
    if kind not in KINDS:
        raise RefusedError("there is no housekeeping for %s caches yet" % kind)
    if not stat.S_ISDIR(os.lstat(top).st_mode):
        raise RefusedError("%s is not a folder" % top)
    volume = KINDS[kind](top, uv, lambda text: say(progress=text))
    if what == "usage":
        return volume.usage(operation["lock_ttl"])
    if what == "clear":
        return volume.clear()
    if not isinstance(volume, PythonVolume):
        raise RefusedError("system packages cannot be pruned yet; they can be cleared")
    if what == "lock":
        return volume.lock(operation["key"])
    return volume.prune(
        operation["unused"], operation["max_bytes"], operation["lock_ttl"], operation["dry_run"]
    )


def main(arguments: list[str]) -> int:
    # As process 1 of a container a signal without a handler would be ignored.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    top, operation = arguments[0], json.loads(arguments[1])
    uv = arguments[3] if len(arguments) > 2 else None
    try:
        say(result=perform(top, operation, uv))
    except RefusedError as error:
        say(error=error.text, mend=error.mend)
        return 1
    except OSError as error:
        say(error="%s: %s" % (error.filename or top, error.strerror), mend=None)
        return 1
    except Exception as error:
        say(error="housekeeping failed: %s: %s" % (type(error).__name__, error), mend=None)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The file that looks after a cache volume, run where it is mounted; standard library, Python 3.9+.

    python3 -I -S housekeeping.py VOLUME OPERATION [--uv PATH]

OPERATION is a JSON object with `kind` ("python", "system") and `do`:
    usage   what the volume holds
    prune   drops environments (sets of system packages): with `unused` those unused for so many
            seconds, with `max_bytes` the least recently used until no more is left; never one in
            use. Then what none of them names goes: packages from uv's cache, paths from Nix's store,
            which needs Nix. `dry_run` says what would go and touches nothing.
    clear   drops everything; refuses while a job uses the volume
    lock    the text of the lock that the environment `key` was built from
A stored lock younger than `lock_ttl` seconds names packages too: a job may be about to build from it.

stdout is JSON, a line each: {"progress": text} any number of times, at least every second, then
{"result": object} or {"error": text, "hint": text or null}. SIGTERM ends it at any point and leaves
the volume whole: what goes is renamed into trash/ first, and the next run empties that.

A system volume is mounted at /nix, because Nix's paths are absolute.

Symbolic links are never followed, neither when measuring nor when deleting. Bytes are allocated
ones, and a hard-linked file counts once. Jobs can write anything to the volume, so every read has a
limit, only regular files are opened, anything else in their place is trash, and `clear` deletes
without measuring first. `stoke/remote/runner.py` says what lies where on the volume;
besides, there are
    housekeeping.lock  held while something is dropped: one run at a time
    housekeeping.json  sizes of what does not change, so that measuring again is quick
    trash/             what is on its way out
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import math
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
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any

    Progress = Callable[[str], None]

MARK = "stoke-environment.json"
# Limits of what is read. Jobs write all of it, so beyond these it counts as damaged.
MAX_FILE = 32 * 1024**2
MAX_MARK = 16 * 1024**2
MAX_REQUEST = 64
MOST_VALUES = 1_000_000  # lists, objects and their members in one JSON file
MOST_PACKAGES = 5000  # of one environment
LONGEST_PACKAGE = 500
MOST_TEXT = 32 * 1024**2  # of the names of all environments' packages together
MOST_NAMES = 200_000  # of one folder
MOST_ENVIRONMENTS = 20_000
MOST_SAID = 20_000  # packages in an answer
MOST_INODES = 2_000_000  # of files with several links that are told apart
MOST_LOCKS = 500  # held at once: each is a descriptor
MOST_BYTES = 1 << 60
LONGEST_PATH = 3000  # a longer path is walked by descriptors: the system takes 4096 bytes
ENVIRONMENT = re.compile(r"[0-9a-f]{32}")
REQUEST = re.compile(r"[0-9a-f]{64}")
LOCK = re.compile(r"([0-9a-f]{32}|gc|init)\.lock")
STORE_PATH = re.compile(r"[0-9a-z]{32}-[^/]+")
PACKAGE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NIX_MISREAD = re.compile(
    r"not a database|malformed|unable to open database|disk I/O error|database schema", re.I
)
EMPTY_IT = "empty the volume: stoke cache clear --kind system"
KEPT_BY_CLEAR = ("CACHEDIR.TAG", "in-use.lock", "housekeeping.lock", "trash")
# For how long uv waits for other uvs to leave its cache.
UV_PATIENCE = "5"
# A program of uv's or Nix's that takes longer is ended.
PROGRAM_SECONDS = 3600.0
# Housekeeping that makes no progress for so long ends itself.
STUCK_SECONDS = 120.0
# For how long another run of housekeeping is waited for. A job can hold its lock, too.
ALONE_SECONDS = 900.0
NAMES_AT_ONCE = 500
PROGRESS_SECONDS = 0.25
# For how long collecting waits for builds in the store to end; they may take hours.
BUILDERS_PATIENCE = 5.0
FOREIGN_AGE = 86400.0  # what a killed writer left aside is nobody's after a day
DEEPEST_POINTER = 8  # how far below a package's entry uv puts links to its archives, and more
NOWHERE = "/dev/null/nothing"  # a path at which nothing can be


class RefusedError(Exception):
    """Nothing is done: why, and how to fix it."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


# ---------------------------------------------------------------------------- trees


# Flags that open a folder itself: never through a symbolic link, and never waiting.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_folder(name: str, parent: int) -> int:
    """Open the folder `name` in the open folder `parent`, with all rights for its owner."""
    try:
        folder = os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        # A job took the rights away. chmod would follow a link that replaced the folder meanwhile.
        handle = os.open(name, FOLDER | os.O_PATH, dir_fd=parent)
        try:
            os.chmod("/proc/self/fd/%d" % handle, 0o700)
        finally:
            os.close(handle)
        folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
    except OSError:  # another user's: read what can be read
        pass
    return folder


def contents_first(
    parent: int, name: str
) -> Generator[tuple[int, str, os.stat_result], None, None]:
    """Yield (open folder, name, status) of all that is at `name` and below; a folder comes last.

    Depth costs neither descriptors nor recursion: the way up is "..", if that is still the folder
    the walk came from. Symbolic links are not followed and other file systems not entered.
    """
    here = os.open(".", FOLDER, dir_fd=parent)
    left = [[name]]  # names still to visit: of every folder from the top to `here`
    above: list[tuple[os.stat_result, str, os.stat_result]] = []  # folder, its child, its status
    device = None
    try:
        while True:
            if not left[-1]:
                left.pop()
                if not above:
                    return
                folder, name, status = above.pop()
                up = os.open("..", FOLDER, dir_fd=here)
                os.close(here)
                here = up
                if not os.path.samestat(os.fstat(here), folder):
                    return  # a job moved it: what is here now is not ours to visit
                yield here, name, status
                continue
            name = left[-1].pop()
            try:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
            except OSError:
                continue
            device = status.st_dev if device is None else device
            if status.st_dev != device:
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield here, name, status
                continue
            try:
                inner = open_folder(name, here)
            except OSError:
                yield here, name, status
                continue
            try:
                # A folder that cannot be searched has no way up.
                os.stat(".", dir_fd=inner, follow_symlinks=False)
                names = os.listdir(inner)
                folder = os.fstat(here)
            except OSError:
                os.close(inner)
                yield here, name, status
                continue
            os.close(here)
            here = inner
            left.append(names)
            above.append((folder, name, status))
    finally:
        os.close(here)


def read_regular(path: str, limit: int) -> bytes | None:
    """Return what a regular file holds; None for one that is longer than `limit` bytes.

    Opens no symbolic link and waits for no pipe: `OSError` where the path is anything else.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        if status.st_size > limit:
            return None
        data = stream.read(limit + 1)
    return None if len(data) > limit else data


def remove_tree(path: str, tick: Callable[[], None] = lambda: None) -> int:
    """Delete a file, or a folder and all that is below it; return the bytes that this freed.

    Any depth, any names, any modes; no symbolic link is followed. What cannot be deleted stays.
    `tick` is called for every file.
    """
    folder, name = os.path.split(path)
    try:
        parent = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    freed = 0
    visit = contents_first(parent, name)
    try:
        for inside, name, status in visit:
            tick()
            is_folder = stat.S_ISDIR(status.st_mode)
            try:
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=inside)
            except OSError:
                continue
            if is_folder or status.st_nlink == 1:
                freed += status.st_blocks * 512
    except OSError:
        pass  # a way up that is closed
    finally:
        visit.close()
        os.close(parent)
    return freed


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
        folder = folders.pop()
        if len(folder) > LONGEST_PATH:
            yield from walk_deep(folder, tick)
            continue
        try:
            entries = os.scandir(folder)
        except OSError:
            continue
        with entries:
            for number, entry in enumerate(entries, start=1):
                if not number & 1023:
                    tick()
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


def walk_deep(folder: str, tick: Callable[[], None]) -> Iterator[os.stat_result]:
    """The status of everything below a folder, however long the paths become."""
    above, name = os.path.split(folder)
    try:
        parent = os.open(above, FOLDER)
    except OSError:
        return
    try:
        before = None
        for _, _, status in contents_first(parent, name):
            tick()
            if before is not None:
                yield before
            before = status  # the folder itself comes last, and is not below it
    except OSError:
        pass  # a way up that is closed
    finally:
        os.close(parent)


def allocated(statuses: Iterable[os.stat_result]) -> int:
    """Bytes on disk of all of them, each inode once."""
    seen: set[int] = set()
    total = 0
    for status in statuses:
        if has_more_links(status):
            if status.st_ino in seen:
                continue
            if len(seen) < MOST_INODES:
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
    """Sorted names in a folder, as many as are ever looked at; none if it is not one, or a symbolic
    link to one."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return []
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, MOST_NAMES))
    except OSError:
        return []


def give_rights(path: str) -> None:
    """Give the owner of a file or folder all rights to it, never through a symbolic link."""
    if not hasattr(os, "O_PATH"):
        return
    try:
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod("/proc/self/fd/%d" % handle, 0o700)
    except OSError:
        pass  # a link, or another user's
    finally:
        os.close(handle)


def is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def read_text(path: str, limit: int = MAX_MARK) -> str | None:
    """A regular file's text, never through a symbolic link; None if there is none, or too much."""
    try:
        data = read_regular(path, limit)
    except OSError:
        return None
    return None if data is None else data.decode("utf-8", "replace")


def read_json(path: str, limit: int = MAX_MARK) -> Any:
    """What a JSON file holds. `ValueError` for anything that is not JSON of a sane size and depth."""
    text = read_text(path, limit) or ""
    if sum(map(text.count, "[{,")) > MOST_VALUES:
        raise ValueError("too many values")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def package_names(found: Any) -> list[str]:
    """Names of packages out of a file. `ValueError` for what no package is called."""
    if not isinstance(found, (list, dict)) or len(found) > MOST_PACKAGES:
        raise ValueError("not packages")
    names = list(found)
    for name in names:
        if not isinstance(name, str) or len(name) > LONGEST_PACKAGE or not name.isprintable():
            raise ValueError("not a package")
    return names


def point_in_time(value: Any) -> float:
    """Epoch seconds, not in the future. `ValueError` for what is none."""
    time_ = float(value)
    if not math.isfinite(time_):
        raise ValueError("not a time")
    return min(max(time_, 0.0), time.time())


# ---------------------------------------------------------------------------- locks


def take(path: str, put_away: Callable[[str], object]) -> int | None:
    """The exclusive lock of a lock file, or None while somebody holds it, or where none can be.

    What no lock file is, a folder or a link or a pipe, goes by `put_away`: nobody holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(1000):
        try:
            lock = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE):
                raise
            there = os.path.lexists(path)
            if there and error.errno == errno.EACCES and is_regular(path):
                give_rights(path)
            elif there:
                put_away(path)
            elif error.errno != errno.ENOENT or not is_folder(os.path.dirname(path)):
                return None
            continue
        if not is_lock_file(os.fstat(lock)):
            os.close(lock)
            put_away(path)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if is_the_file(lock, path):
            return lock
        os.close(lock)  # of a file that was removed in between
    return None


def is_lock_file(status: os.stat_result) -> bool:
    """Whether it is a file of one name only: with two, two locks would be one."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink < 2


def is_small(path: str) -> bool:
    """Whether it is a regular file, and no larger than a file of ours that is kept gets."""
    return is_regular(path) and os.lstat(path).st_size <= 4096


def is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


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
        if is_lock_file(os.fstat(lock)):
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
        self._names: set[str] | None = None

    @property
    def names(self) -> set[str]:
        if self._names is None:
            self._names = {canonical(package) for package in self.packages}
        return self._names


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
            stored = read_json(path, MAX_FILE)
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
        if not all(0 <= value < MOST_BYTES for value in values if isinstance(value, (int, float))):
            return None
        self._now[name] = (looks, values)
        return values

    def put(self, name: str, looks: list[Any], values: list[Any]) -> None:
        self._now[name] = (looks, values)

    def save(self) -> None:
        if self._now == self._before:
            return
        text = json.dumps(self._now, separators=(",", ":"))
        if len(text) > MAX_FILE:
            return  # it would not be read
        # A name that no job can have taken, and that `leftovers` knows.
        aside = "%s.%s.new" % (self._path, os.urandom(8).hex())
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(aside, flags, 0o600), "w") as file:
                file.write(text)
            if is_folder(self._path):
                remove_tree(self._path)
            os.rename(aside, self._path)
        except OSError:  # full or read-only: measured again next time
            try:
                os.unlink(aside)
            except OSError:
                pass


class Volume:
    """What housekeeping of every kind of volume needs: progress, an index, a trash folder."""

    FOLDERS: tuple[str, ...] = ()
    """What has to be a folder if it is there; a folder comes after the one that it is in."""

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        self._top = top
        self._uv = uv
        self._progress = progress
        self._said_at = 0.0
        self._doing = "looking"
        self._index = Index(self.path("housekeeping.json"))
        self.stuck: str | None = None  # what could not be thrown away
        self._text = 0  # how much text the packages' names are, so far

    def path(self, *names: str) -> str:
        return os.path.join(self._top, *names)

    def place(self, *names: str) -> str:
        """The same for a place of ours, but nowhere if a link leads to it: nothing there is ours."""
        path = self._top
        for name in names:
            path = os.path.join(path, name)
            if os.path.islink(path):
                return NOWHERE
        return path

    def put_in_order(self) -> None:
        """What has to be a folder and is none goes, and folders without rights get them back."""
        for name in ("trash", *self.FOLDERS):
            path = self.path(*name.split("/"))
            if is_folder(path):
                give_rights(path)
            elif os.path.lexists(path):
                try:
                    self.throw_away(path)
                except OSError as error:
                    self.stuck = "%s: %s" % (name, error.strerror)

    def do(self, doing: str) -> None:
        self._doing = doing
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            self._progress(self._doing)

    def run(self, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        """Runs a program, with progress meanwhile: (exit code, stdout, stderr)."""
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        began = time.monotonic()
        while True:
            try:
                out, err = process.communicate(timeout=PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self.tick()
                if time.monotonic() - began > PROGRAM_SECONDS:
                    process.kill()
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def throw_away(self, path: str) -> None:
        """Out of everybody's sight at once; `empty_trash` does what takes long."""
        trash = self.path("trash")
        if path != trash and os.path.dirname(path) == trash:
            return
        if not is_folder(trash):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(trash)
            os.mkdir(trash, 0o700)
        give_rights(trash)
        if path == trash:
            return
        # The name alone may be as long as a name can be.
        aside = os.path.join(trash, "%d-%s" % (time.monotonic_ns(), os.urandom(8).hex()))
        try:
            os.rename(path, aside)
        except PermissionError:
            give_rights(path)  # a folder that moves is written to: its ".." changes
            os.rename(path, aside)

    def requests(self, folder: str, keys: Iterable[str]) -> dict[str, str]:
        """Request hash to the environment, of those in `keys`, that last answered it."""
        known = frozenset(keys)
        found = {}
        for name in names_in(folder):
            self.do("reading what was asked for")
            if not REQUEST.fullmatch(name):
                continue
            key = read_text(os.path.join(folder, name), MAX_REQUEST) or ""
            if key in known:
                found[name] = key
        return found

    def stale_requests(self, folder: str, environments: str, going: Iterable[str]) -> list[str]:
        """Files of requests whose environment is gone, or among those `going`."""
        gone = frozenset(going)
        found = []
        for name in names_in(folder):
            if not REQUEST.fullmatch(name):
                continue
            key = read_text(os.path.join(folder, name), MAX_REQUEST) or ""
            there = ENVIRONMENT.fullmatch(key) and os.path.lexists(os.path.join(environments, key))
            if key in gone or not there:
                found.append(os.path.join(folder, name))
        return found

    def thrown_away(self) -> int:
        """Bytes that go when the trash is emptied."""
        going = Going(self.tick)
        for name in names_in(self.path("trash")):
            going.add(self.path("trash", name))
        return going.bytes

    def empty_trash(self) -> int:
        """Delete what is in the trash; return the bytes that this freed."""
        freed = 0
        before: list[str] = []
        while True:
            names = names_in(self.path("trash"))
            if names == before:
                return freed  # nothing of it can be deleted
            before = names
            for number, name in enumerate(names):
                self.do("removed %d of %d" % (number, len(names)))
                freed += remove_tree(self.path("trash", name), self.tick)
            if len(names) < MOST_NAMES:
                return freed

    def throw_away_all(self, folder: str, kept: Callable[[str], bool]) -> None:
        """Everything in a folder but what is kept."""
        while True:
            names = names_in(folder)
            for name in names:
                self.tick()
                if not kept(name):
                    try:
                        self.throw_away(os.path.join(folder, name))
                    except OSError as error:
                        self.stuck = self.stuck or "%s: %s" % (name, error.strerror)
            if len(names) < MOST_NAMES or self.stuck:
                return

    def cleared(self, freed: int, environments: list[str], packages: list[str]) -> dict[str, Any]:
        trouble = self.stuck and "not everything could be removed: %r" % self.stuck
        return {
            "bytes": freed,
            "left": allocated(walk(self._top, self.tick)),
            "entries": 0,
            "environments": environments[:MOST_ENVIRONMENTS],
            "packages": packages[:MOST_SAID],
            "busy": [],
            "trouble": trouble,
        }


class PythonVolume(Volume):
    """A scope's python volume: environments, and uv's cache that they are hard links into."""

    FOLDERS = ("venvs", "locks", "requests", "uv", "bin", "pythons")

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        super().__init__(top, uv, progress)
        self.environments: list[Environment] = []
        self.locks: list[StoredLock] = []
        self.archives: dict[str, int] = {}  # path -> bytes
        self.packages: dict[str, list[str]] = {}  # name -> all of its paths in uv's cache

    # ------------------------------------------------------------------ measuring

    def usage(self, lock_ttl: float) -> dict[str, Any]:
        total, uv_bytes = self.measure()
        naming = Naming(self.environments, self.locks, time.time() - lock_ttl)
        goes = self.would_go(naming)
        garbage = Going(self.tick)
        self.add_packages(garbage, naming.unnamed(self.packages))
        return {
            "bytes": total,
            "uv_bytes": uv_bytes,
            "garbage": garbage.bytes,
            "measured_at": time.time(),
            "environments": [
                {
                    "key": one.name,
                    "bytes": one.own + one.linked,
                    "reclaimable": goes[one.name],
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
        for number, name in enumerate(names[:MOST_ENVIRONMENTS]):
            self.do("measured %d of %d environments" % (number, len(names)))
            one = self.read_environment(name)
            if one is not None:
                self.environments.append(one)

    def read_environment(self, name: str) -> Environment | None:
        folder = self.path("venvs", name)
        one = Environment(name)
        try:
            looked_at = os.lstat(folder)
        except OSError:
            return None
        if not stat.S_ISDIR(looked_at.st_mode):
            return None
        with contextlib.suppress(OSError):
            # Without a mark it is damaged: nobody can use it, so it was last used in 1970.
            looked_at = os.lstat(os.path.join(folder, MARK))
            one.last_used = point_in_time(looked_at.st_mtime)
        with contextlib.suppress(OSError):
            used = os.lstat(folder + ".lock")
            one.uses = used.st_size if is_lock_file(used) else 0
            if one.last_used:
                one.last_used = max(one.last_used, point_in_time(used.st_mtime))
        # Only a job that uses an environment changes it (Python writes bytecode), and it is counted.
        looks = [looked_at.st_ino, looked_at.st_mtime_ns, one.uses]
        kinds = (float, list, str, int, int)
        values = self._index.get("venvs/" + name, looks, kinds)
        if values is None:
            values = [*self.read_mark(folder, looked_at.st_mtime), *self.size_of(folder)]
            if not self.is_busy(one):
                self._index.put("venvs/" + name, looks, values)
        one.built_at, one.packages, one.lock, one.own, one.linked = values
        self._text += sum(map(len, one.packages))
        if self._text > MOST_TEXT:
            one.packages = []
        return one

    def read_mark(self, folder: str, otherwise: float) -> list[Any]:
        """[when it was built, its packages, its lock's digest]."""
        try:
            mark = read_json(os.path.join(folder, MARK))
            packages = package_names(mark["packages"])
            return [point_in_time(mark["built_at"]), packages, digest(str(mark["lock"]))]
        except (ValueError, TypeError, KeyError, OverflowError):
            return [point_in_time(otherwise), [], ""]

    def size_of(self, folder: str) -> list[int]:
        """[bytes of files with one link and of folders, bytes of the others]."""
        own = 0

        def linked() -> Iterator[os.stat_result]:
            nonlocal own
            for status in walk(folder, self.tick):
                if has_more_links(status):
                    yield status
                else:
                    own += status.st_blocks * 512

        others = allocated(linked())
        return [own, others]

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
                names = {canonical(package) for package in found[:MOST_PACKAGES]}
                values = [digest(text), sorted(names)]
                self._index.put("locks/" + name, looks, values)
            written_at = point_in_time(status.st_mtime)
            self.locks.append(StoredLock(name[:-4], written_at, *values))

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
        folders = [(folder, 0)]
        while folders:
            self.tick()
            parent, depth = folders.pop()
            try:
                entries = os.scandir(parent)
            except OSError:
                continue
            with entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_symlink():
                            archive = self.path("uv", *os.readlink(entry.path).split("/")[-2:])
                            if archive in self.archives:
                                yield archive
                        elif depth < DEEPEST_POINTER and entry.is_dir(follow_symlinks=False):
                            folders.append((entry.path, depth + 1))

    def would_go(self, naming: Naming) -> dict[str, int]:
        """For each environment: the bytes that go with it and with the packages only it names."""
        named = naming.counts
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
        if not dry_run:
            self.put_in_order()
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
                    remove_tree(path)
        trouble = None
        freed = going.bytes
        if not dry_run:
            trouble = self.clean_uv(lock_ttl) if packages else None
            if trouble is not None:
                # What stays in uv's cache keeps what is linked to it: count again what really goes.
                freed, packages = self.thrown_away(), []
            self.empty_trash()
        return {
            "bytes": freed,
            "left": total - freed,
            "entries": len(self.environments) - len(dropped),
            "environments": dropped,
            "packages": sorted(packages)[:MOST_SAID],
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
        lock = take(folder + ".lock", self.throw_away)
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
        held = take(path + ".lock", self.throw_away)
        if held is None:
            return
        try:
            going.add(path + ".txt")
            going.add(path + ".lock")
            if not dry_run:
                remove_tree(path + ".txt")
                os.unlink(path + ".lock")
        finally:
            os.close(held)

    def lock(self, key: str) -> dict[str, Any]:
        """Of an environment that may go in this moment: then there is none."""
        try:
            if not ENVIRONMENT.fullmatch(key):
                raise ValueError
            lock = read_json(os.path.join(self.place("venvs", key), MARK))["lock"]
            if not isinstance(lock, str):
                raise ValueError
            lock.encode()  # refuses halves of surrogate pairs
            return {"lock": lock}
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
        for folder in ("", "locks", "venvs", "requests"):
            for name in names_in(self.path(folder)):
                path = self.path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    old = os.lstat(path).st_mtime < time.time() - FOREIGN_AGE
                    if name.endswith(".new") and old:
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
            code, _, err = self.run(argv, env)
            if code != 0:
                causes = re.findall(r"(?m)^(?:error|  cause|  Caused by): (.*)", err)
                return "uv did not clean its cache: " + reason(": ".join(causes) or err, code)
        return None

    # ------------------------------------------------------------------ clearing

    def clear(self) -> dict[str, Any]:
        with Alone(self):
            self.put_in_order()
            lock = take(self.path("in-use.lock"), self.throw_away)
            if lock is None:
                raise RefusedError("a running job uses this cache; nothing was cleared")
            try:
                found = names_in(self.path("venvs"))
                environments = [name for name in found if ENVIRONMENT.fullmatch(name)]
                held = [
                    name for name in environments if is_held(self.path("venvs", name + ".lock"))
                ]
                if held:
                    raise RefusedError("environments in use: %s" % ", ".join(held[:20]))
                packages = self.names_of_packages()
                self.throw_away_all(self._top, self.is_kept)
            finally:
                # Jobs that wait find an empty volume; they need not wait for the deleting.
                os.close(lock)
            freed = self.empty_trash()
        return self.cleared(freed, environments, packages)

    def is_kept(self, name: str) -> bool:
        """Whether clearing leaves what has this name at the top: our own files, if they are files."""
        path = self.path(name)
        return name == "trash" or (name in KEPT_BY_CLEAR and is_small(path))

    def names_of_packages(self) -> list[str]:
        names: set[str] = set()
        for bucket in names_in(self.path("uv")):
            if bucket.partition("-v")[0] in ("wheels", "sdists"):
                for path in package_entries(self.path("uv", bucket)):
                    self.tick()
                    name = os.path.basename(path)
                    if PACKAGE.fullmatch(name) and len(names) < MOST_SAID:
                        names.add(name)
        return sorted(names)


def said_of_store(paths: Iterable[str]) -> list[str]:
    """Names of packages, without the store's hash and without what says how to build them."""
    names = (path[33:] for path in paths if not path.endswith(".drv") and path.isprintable())
    return sorted(name for name in names if name)[:MOST_SAID]


def package_entries(bucket: str) -> Iterator[str]:
    """The packages' entries in a bucket of uv's: below the index `pypi`, or a level further down."""
    for kind in names_in(bucket):
        folders = [os.path.join(bucket, kind)]
        if kind != "pypi":
            folders = [os.path.join(folders[0], name) for name in names_in(folders[0])]
        for folder in folders:
            for name in names_in(folder):
                yield os.path.join(folder, name)


class PackageSet(Environment):
    """A set of system packages. `paths` are all names in the store that it needs, and nixpkgs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.paths: list[str] = []


class SystemVolume(Volume):
    """A scope's system volume, mounted at /nix: sets of packages, roots into Nix's store."""

    FOLDERS = (
        "store",
        "var",
        "var/nix",
        "var/nix/gcroots",
        "var/nix/gcroots/jobs",
        "var/nix/db",
        "var/stoke",
        "var/stoke/requests",
    )

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        super().__init__(top, uv, progress)
        self.sets: list[PackageSet] = []
        self.store: dict[str, int] = {}  # what is in the store -> bytes
        self.users: dict[str, int] = {}  # path -> how many sets need it
        self.find_places()

    def put_in_order(self) -> None:
        super().put_in_order()
        if is_folder(self.place("var", "nix", "gcroots", "jobs")):
            os.makedirs(self.path("var", "stoke"), exist_ok=True)  # sets have their locks there

    def find_places(self) -> None:
        self.roots = self.place("var", "nix", "gcroots", "jobs")
        self.state = self.place("var", "stoke")
        self.database = self.place("var", "nix", "db")
        # Nix gives this file up when it collects, to have room for its database.
        self.reserve = os.path.join(self.database, "reserved")
        # What Nix makes again when it is wanted: its downloads' index and its builders' logs.
        spare = [os.path.join(self.state, "cache"), self.path("var", "log", "nix", "drvs")]
        self.spare = [path for path in spare if not self.leads_out(path)]

    # ------------------------------------------------------------------ measuring

    def usage(self, lock_ttl: float) -> dict[str, Any]:  # noqa: ARG002
        total = self.measure()
        garbage = Going(self.tick)
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
                    "busy": is_held(self.lock_of(one.name)),
                }
                for one in self.sets
            ],
            "requests": self.requests(os.path.join(self.state, "requests"), names_in(self.roots)),
        }

    def measure(self) -> int:
        """Fills in everything; returns the bytes of the volume."""
        store = self.path("store")
        for name in names_in(store):
            if name[0] != ".":
                self.store[name] = self.size_of(os.path.join(store, name))
        self.read_sets()
        self._index.save()
        self.do("adding up")
        if names_in(os.path.join(store, ".links")):
            # Somebody had Nix link equal files to one another: only looking at every one tells.
            return allocated(walk(self._top, self.tick))
        paths = [os.path.join(store, name) for name in self.store]
        return allocated(walk(self._top, self.tick, paths)) + sum(self.store.values())

    def size_of(self, path: str) -> int:
        self.do("measuring the store")
        try:
            status = os.lstat(path)
        except OSError:  # a lock of Nix's, or what it is making
            return 0
        name = "store/" + os.path.basename(path)
        looks = [status.st_ino, status.st_mtime_ns]
        values = self._index.get(name, looks, (int,))
        if values is None:
            values = [allocated(walk(path, self.tick))]
            if (
                int(status.st_mtime) == 1
            ):  # Nix's sign that it is whole; from then on it never changes
                self._index.put(name, looks, values)
        size: int = values[0]
        return size

    def read_sets(self) -> None:
        """Every set: `own` are bytes of paths that no other set needs, `linked` the others'."""
        self.sets = [
            self.read_set(name)
            for name in names_in(self.roots)[:MOST_ENVIRONMENTS]
            if ENVIRONMENT.fullmatch(name)
        ]
        for one in self.sets:
            for path in one.paths:
                self.users[path] = self.users.get(path, 0) + 1
        for one in self.sets:
            sizes = {path: self.store.get(path, 0) for path in one.paths}
            one.own = sum(size for path, size in sizes.items() if self.users[path] == 1)
            one.linked = sum(sizes.values()) - one.own

    def read_set(self, name: str) -> PackageSet:
        one = PackageSet(name)
        used = 0.0
        with contextlib.suppress(OSError):
            status = os.lstat(self.lock_of(name))
            used = point_in_time(status.st_mtime)
            one.uses = status.st_size if is_lock_file(status) else 0
        try:
            mark = read_json(os.path.join(self.roots, name, MARK))
            paths = {os.path.basename(str(path)) for path in (*mark["paths"], mark["source"])}
            packages = sorted(package_names(mark["programs"]))
            self._text += sum(map(len, packages)) + sum(map(len, paths))
            if self._text > MOST_TEXT:
                return one
            one.built_at = point_in_time(mark["built_at"])
        except (ValueError, TypeError, KeyError, OverflowError):
            return one  # damaged: nobody can use it, so it was last used in 1970
        one.paths = sorted(path for path in paths if STORE_PATH.fullmatch(path))
        one.packages = packages
        one.last_used = max(one.built_at, used)
        return one

    def leads_out(self, path: str) -> bool:
        """Whether a folder above it is a link."""
        above = os.path.dirname(os.path.relpath(path, self._top))
        real = os.path.join(os.path.realpath(self._top), above)
        return os.path.realpath(real) != real

    def lock_of(self, name: str) -> str:
        return os.path.join(self.state, name + ".lock")

    # ------------------------------------------------------------------ pruning

    def prune(
        self,
        unused: float | None,
        max_bytes: int | None,
        lock_ttl: float,  # noqa: ARG002
        dry_run: bool,
    ) -> dict[str, Any]:
        with contextlib.nullcontext() if dry_run else Alone(self):
            return self.prune_alone(unused, max_bytes, dry_run)

    def prune_alone(
        self, unused: float | None, max_bytes: int | None, dry_run: bool
    ) -> dict[str, Any]:
        if not dry_run:
            self.put_in_order()
            self.find_places()
        total = self.measure()
        now = time.time()
        going = Going(self.tick)
        for name in names_in(self.path("trash")):
            going.add(self.path("trash", name))

        def too_much() -> bool:
            return max_bytes is not None and total - going.bytes - from_store > max_bytes

        packages: list[str] = []
        from_store = 0
        dropped: list[str] = []
        busy: list[str] = []
        collects = bool(self.store) and (unused is not None or too_much())
        # Nothing is touched before it is clear that Nix can collect.
        kept = self.kept_by_others() if collects else set()
        for key in self.unfinished():
            self.drop(key, ".tmp", going, dry_run)
        if collects:
            packages = [path for path in self.store if path not in self.users and path not in kept]
            from_store = sum(self.store[path] for path in packages)
            for path in (*self.spare, self.reserve):
                going.add(path)
            for one in sorted(self.sets, key=lambda one: one.last_used):
                self.do("choosing what goes: %d sets" % len(dropped))
                is_old = unused is not None and one.last_used < now - unused
                if not (is_old or too_much()):
                    break  # and so are all that were used later
                if not self.drop(one.name, "", going, dry_run, one.uses):
                    busy.append(one.name)
                    continue
                dropped.append(one.name)
                for path in one.paths:
                    self.users[path] -= 1
                    if not self.users[path] and path not in kept:
                        packages.append(path)
                        from_store += self.store.get(path, 0)
        trouble = None
        freed = going.bytes + from_store
        if not dry_run:
            freed = allocated(walk(self.database, self.tick))
            if collects:
                trouble = self.collect()
            freed -= allocated(walk(self.database, self.tick))
            there = set(names_in(self.path("store")))
            packages = [path for path in self.store if path not in there]
            freed += self.thrown_away() + sum(self.store[path] for path in packages)
            for path in self.stale_requests(
                os.path.join(self.state, "requests"), self.roots, dropped
            ):
                remove_tree(path)
            self.empty_trash()
        return {
            "bytes": freed,
            "left": total - freed,
            "entries": len(self.sets) - len(dropped),
            "environments": dropped,
            # Without the store's hash, and without what says how to build.
            "packages": said_of_store(packages),
            "busy": busy,
            "trouble": trouble,
        }

    def unfinished(self) -> list[str]:
        """Keys of sets that somebody makes, or was making when he was killed."""
        names = [name.partition(".") for name in names_in(self.roots)]
        return [key for key, _, end in names if end == "tmp" and ENVIRONMENT.fullmatch(key)]

    def drop(
        self, key: str, end: str, going: Going, dry_run: bool, uses: int | None = None
    ) -> bool:
        """Puts a set into the trash, where Nix does not look for roots; False if it is in use, or was
        since `uses` were counted."""
        path = self.lock_of(key)
        lock = take(path, self.throw_away)
        if lock is None:
            return False
        try:
            if uses not in (None, os.fstat(lock).st_size):
                return False
            folder = os.path.join(self.roots, key + end)
            going.add(folder)
            going.add(path)
            if not dry_run and os.path.lexists(folder):
                self.throw_away(folder)
                # Whoever waits for this lock looks again, finds another file, and locks that.
                os.unlink(path)
        finally:
            os.close(lock)
        return True

    # ------------------------------------------------------------------ Nix

    def kept_by_others(self) -> set[str]:
        """What Nix keeps for roots that are no whole set: those that jobs or people made. A damaged
        set's paths are found on the way."""
        whole = {one.name for one in self.sets if one.built_at is not None}
        damaged = {one.name: one for one in self.sets if one.built_at is None}
        targets: dict[str, list[str]] = {}
        for line in self.nix("--gc", "--print-roots").splitlines():
            link, _, target = line.partition(" -> ")
            if link.startswith("{temp:"):
                continue  # a process is making it: it need not be there yet, and nobody collects now
            folder, key = os.path.split(os.path.dirname(link))
            ours = folder == self.roots and (key in whole or key in damaged)
            if key not in whole or not ours:
                targets.setdefault(key if ours else "", []).append(target)
        for key, one in damaged.items():
            one.paths = self.closure(targets.get(key, []))
            for path in one.paths:
                self.users[path] = self.users.get(path, 0) + 1
        return set(self.closure(targets.get("", [])))

    def closure(self, targets: list[str]) -> list[str]:
        found: set[str] = set()
        for start in range(0, len(targets), NAMES_AT_ONCE):
            listed = self.nix("--query", "--requisites", *targets[start : start + NAMES_AT_ONCE])
            found.update(os.path.basename(path) for path in listed.split())
        return sorted(found)

    def collect(self) -> str | None:
        """Has Nix collect what has no root; why it could not be, if so."""
        began = time.monotonic()
        while True:
            lock = take(os.path.join(self.state, "gc.lock"), self.throw_away)
            if lock is not None:
                break
            if time.monotonic() - began > BUILDERS_PATIENCE:
                return "a job is making system packages, so nothing was collected from the store"
            self.do("waiting for jobs that make system packages")
            time.sleep(0.05)
        try:
            for path in self.spare:
                if names_in(path):
                    self.throw_away(path)
            self.do("collecting what no set needs")
            self.nix("--gc")
        except RefusedError as error:
            return error.text
        finally:
            os.close(lock)
        return None

    def nix(self, *arguments: str) -> str:
        """What `nix-store` prints."""
        program = shutil.which("nix-store")
        if program is None:
            raise RefusedError(
                "the image for housekeeping has no Nix, which knows what the store still needs",
                "make one that has it: stoke setup image; or name one in docker.image",
            )
        if not os.path.exists(os.path.join(self.database, "db.sqlite")):
            raise RefusedError("the volume's Nix database is gone", EMPTY_IT)
        try:
            reserved = os.lstat(self.reserve).st_size
        except FileNotFoundError:
            reserved = 0
        settings = [
            "build-users-group =",
            "substituters =",
            "keep-outputs = false",
            "keep-derivations = false",
            "gc-reserved-space = %d" % reserved,  # else a question would make it again
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
            said = reason(err.rpartition("error:")[2], code)
            # Names and paths may hold any word.
            if NIX_MISREAD.search(re.sub(r"'[^'\n]*'", "''", said)):
                raise RefusedError("the volume's Nix database cannot be used: " + said, EMPTY_IT)
            raise RefusedError("nix-store %s failed: %s" % (arguments[0], said))
        return out

    # ------------------------------------------------------------------ clearing

    def clear(self) -> dict[str, Any]:
        """Everything goes but the locks that are not ours to take: of sets that jobs wait to make."""
        with Alone(self):
            self.put_in_order()
            self.find_places()
            locks = self.take_all()
            try:
                keys = names_in(self.roots)
                packages = said_of_store(names_in(self.path("store")))
                for folder, kept in (
                    (self._top, self.is_kept),
                    (self.path("var"), lambda name: name == "stoke"),
                    (self.state, lambda name: self.is_lock(name, locks)),
                ):
                    self.throw_away_all(folder, kept)
                for path in locks:
                    if os.path.basename(path) != "gc.lock" or not is_small(path):
                        os.unlink(path)
            finally:
                # Jobs that wait find an empty volume; they need not wait for the deleting.
                for lock in locks.values():
                    os.close(lock)
            freed = self.empty_trash()
        environments = [name for name in keys if ENVIRONMENT.fullmatch(name)]
        return self.cleared(freed, environments, packages)

    def is_kept(self, name: str) -> bool:
        """Whether clearing leaves what has this name at the top."""
        path = self.path(name)
        return name in ("trash", "var") or (name in KEPT_BY_CLEAR and is_small(path))

    def is_lock(self, name: str, taken: dict[str, int]) -> bool:
        """Whether it is a lock that we hold, or that a job has taken since."""
        path = os.path.join(self.state, name)
        return path in taken or (LOCK.fullmatch(name) is not None and is_held(path))

    def take_all(self) -> dict[str, int]:
        """The locks of everything on the volume, or a refusal."""
        found = [name for name in names_in(self.state) if LOCK.fullmatch(name)]
        keys = [name for name in names_in(self.roots) if ENVIRONMENT.fullmatch(name)]
        if not found and not keys:
            return {}
        # Those of sets first: beyond so many, a lock that nobody holds now is not taken.
        wanted = dict.fromkeys(["gc.lock", *(key + ".lock" for key in keys), *found])
        locks: dict[str, int] = {}
        try:
            for name in wanted:
                path = os.path.join(self.state, name)
                if len(locks) < MOST_LOCKS:
                    lock = take(path, self.throw_away)
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


class Alone:
    """Waits for other housekeeping on the volume to end, and keeps more from beginning."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._lock: int | None = None

    def __enter__(self) -> None:
        volume = self._volume
        give_rights(volume.path())
        began = time.monotonic()
        while True:
            self._lock = take(volume.path("housekeeping.lock"), volume.throw_away)
            if self._lock is not None:
                return
            if time.monotonic() - began > ALONE_SECONDS:
                raise RefusedError(
                    "housekeeping.lock has been held for %d minutes" % (ALONE_SECONDS / 60),
                    "see whether a job of this scope holds it, and stop that: stoke jobs",
                )
            volume.do("waiting for other housekeeping to end")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)


def reason(text: str, code: int) -> str:
    """What a tool that ended with `code` said of it, at most a screen's width or two."""
    text = " ".join(text.split())
    if not text:
        return "killed by signal %d" % -code if code < 0 else "exit code %d" % code
    return text if len(text) <= 600 else "... " + text[-600:]


# ---------------------------------------------------------------------------- the program

KINDS: dict[str, type[PythonVolume] | type[SystemVolume]] = {
    "python": PythonVolume,
    "system": SystemVolume,
}


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)


def give_up(_number: int, _frame: object) -> None:
    """There has been no progress for too long: what is on the volume, or its disk, does not answer."""
    text = "housekeeping made no progress for %d seconds and was ended" % STUCK_SECONDS
    os.write(1, json.dumps({"error": text, "hint": None}).encode() + b"\n")
    os._exit(1)


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
    if what == "lock":
        if not isinstance(volume, PythonVolume):
            raise RefusedError("only Python environments have a lock")
        return volume.lock(operation["key"])
    return volume.prune(
        operation["unused"], operation["max_bytes"], operation["lock_ttl"], operation["dry_run"]
    )


def main(arguments: list[str]) -> int:
    # As process 1 of a container a signal without a handler would be ignored.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
    top, operation = arguments[0], json.loads(arguments[1])
    uv = arguments[3] if len(arguments) > 2 else None
    try:
        say(result=perform(top, operation, uv))
    except RefusedError as error:
        say(error=error.text, hint=error.hint)
        return 1
    except OSError as error:
        say(error="%s: %s" % (error.filename or top, error.strerror), hint=None)
        return 1
    except Exception as error:
        say(error="housekeeping failed: %s: %s" % (type(error).__name__, error), hint=None)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Copies of a project on the cache volume: one job at a time has one, and later ones take it over.

Making a thousand files takes up to a second, depending on the file system, and looking at them some
milliseconds. So a job gets the files of the one before it, and replaces what differs. It trusts a file
only if its inode, mtime and ctime are those that the runner recorded right after it wrote the file: no
program can set a ctime, and every change of a file's content, mode, owner or links changes it.

The folder is no better protected than an environment: jobs of the scope that run at the same time can
write to it.
"""

from __future__ import annotations

import json
import os
import stat
import time

from stoke.remote.common.files import read_regular
from stoke.remote.common.trees import FOLDER, remove_tree
from stoke.remote.protocol import LOCK_SUFFIX, PythonLayout
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.files import write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Union

    # What a path of the project has to be: a file (mode, SHA-256), a link to a target, or a folder.
    Wanted = Mapping[bytes, Union[tuple[int, str], bytes, None]]

MOST_COPIES = 4
"""Of a project; further jobs that run at the same time make their own, which they do not keep."""
MAX_RECORD = 256 * 1024**2  # bytes
BOOT = "/proc/sys/kernel/random/boot_id"
REALTIME_COARSE = 5  # CLOCK_REALTIME_COARSE of Linux, from which files get their times
LONGEST_TICK = 0.02  # seconds


class UnusableCopyError(Exception):
    """Something in the copy cannot be removed."""


class ProjectCopy:
    """A copy of a project that this job has until it ends."""

    def __init__(self, folder: str, lock: FileLock, boot: str) -> None:
        self.folder = folder
        self._lock = lock
        self._boot = boot
        self._record = folder + ".json"
        self._known = self._read()
        self._wanted: Wanted = {}
        self._changed = False
        self.rows: dict[bytes, list[Any]] = {}  # of the files that are as they have to be

    def keep(self, top: int, wanted: Wanted) -> set[bytes]:
        """Remove everything that is not as wanted; return the paths of what stays.

        `top` is the open folder. `UnusableCopyError` if something cannot be removed.
        """
        self._wanted = wanted
        kept: set[bytes] = set()
        rights = 0o777 & ~_umask()

        def is_wanted(path: bytes, entry: os.DirEntry[str], inside: int) -> bool:
            status = entry.stat(follow_symlinks=False)
            want = wanted.get(path, b"")
            if stat.S_ISDIR(status.st_mode):
                if want is not None:
                    return False
                if stat.S_IMODE(status.st_mode) & 0o777 != rights:
                    os.chmod(entry.name, rights, dir_fd=inside)
            elif stat.S_ISREG(status.st_mode) and isinstance(want, tuple):
                if self._known.get(path) != _row(want, status):
                    return False
                self.rows[path] = self._known[path]
            elif not stat.S_ISLNK(status.st_mode) or not isinstance(want, bytes) or not want:
                return False
            elif os.fsencode(os.readlink(entry.name, dir_fd=inside)) != want:
                return False
            kept.add(path)
            return True

        self._remove_others(top, is_wanted)
        self._changed = len(self.rows) < len(self._known)
        return kept

    def add(self, path: bytes, mode: int, sha256: str, status: os.stat_result) -> None:
        """Count a file as the project's; it was just written, and `status` is from then."""
        self.rows[path] = _row((mode, sha256), status)
        self._changed = True

    def save(self) -> None:
        """Record the files, before anything can change them."""
        self._lock.count_use()
        if not self._changed:
            return
        files = {path.decode("utf-8", "surrogateescape"): row for path, row in self.rows.items()}
        write_atomically(self._record, json.dumps({"boot": self._boot, "files": files}))
        # A change within the same tick of the clock would not show.
        latest = max((row[-1] for row in self.rows.values()), default=0)
        deadline = time.monotonic() + LONGEST_TICK
        while time.monotonic() < deadline:
            if time.clock_gettime_ns(REALTIME_COARSE) > latest:
                break
            time.sleep(0.001)

    def leave(self) -> None:
        """Remove what the code added, and give the copy to the next job."""
        try:
            top = os.open(self.folder, FOLDER)
            try:
                self._remove_others(top, lambda path, _entry, _inside: path in self._wanted)
            finally:
                os.close(top)
        except (OSError, UnusableCopyError):
            pass  # The next job removes it, or does without this copy.
        self._lock.close()

    def give_up(self) -> None:
        self._lock.close()

    def _remove_others(
        self, top: int, is_wanted: Callable[[bytes, os.DirEntry[str], int], bool]
    ) -> None:
        waiting = [b""]
        while waiting:
            folder = waiting.pop()
            inside = os.open(folder or b".", FOLDER, dir_fd=top)
            try:
                with os.scandir(inside) as scan:
                    entries = list(scan)
                for entry in entries:
                    name = os.fsencode(entry.name)
                    path = b"%s/%s" % (folder, name) if folder else name
                    if not is_wanted(path, entry, inside):
                        whole = os.path.join(self.folder, os.fsdecode(path))
                        remove_tree(whole)
                        if os.path.lexists(whole):
                            raise UnusableCopyError(whole)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
            finally:
                os.close(inside)

    def _read(self) -> dict[bytes, list[Any]]:
        try:
            document = json.loads(read_regular(self._record, MAX_RECORD) or b"")
            # After a crash of the machine a file can have its times and not its content.
            if document["boot"] != self._boot:
                return {}
            files = document["files"].items()
            return {path.encode("utf-8", "surrogateescape"): row for path, row in files}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}


def take_copy(cache: str, name: str, make_folder: Callable[[str], None]) -> ProjectCopy | None:
    """Return a copy of the project on the cache volume that no job has, or None.

    A new one is an empty folder. None if the volume cannot be written, on systems other than Linux, and
    if other jobs have all copies.
    """
    top = os.path.join(cache, PythonLayout.PROJECT_COPIES)
    try:
        with open(BOOT, encoding="ascii") as file:
            boot = file.read()
        make_folder(top)
        if not os.access(top, os.W_OK | os.X_OK):
            return None
        for number in range(MOST_COPIES):
            folder = os.path.join(top, "%s.%d" % (name, number))
            lock = FileLock(folder + LOCK_SUFFIX)
            if lock.try_acquire():
                make_folder(folder)
                if os.lstat(folder).st_uid == os.geteuid():
                    return ProjectCopy(folder, lock, boot)
            lock.close()
    except OSError:
        pass  # Without file locks, for example.
    return None


def _row(wanted: tuple[int, str], status: os.stat_result) -> list[Any]:
    return [*wanted, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask

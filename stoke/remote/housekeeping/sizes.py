"""Measure folders: allocated bytes, each inode once."""

from __future__ import annotations

import os
import stat

from stoke.remote.common.trees import FOLDER, contents_first
from stoke.remote.housekeeping.limits import MAX_INODES, MAX_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def walk(top: str, tick: Callable[[], None], skip: Iterable[str] = ()) -> Iterator[os.stat_result]:
    """Yield the status of `top` and everything below it on its filesystem, except paths in `skip`."""
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
        if len(folder) > MAX_PATH:
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
    """Yield the status of everything below a folder, for paths of any length."""
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
            before = status  # the last one is the folder itself
    except OSError:
        pass  # the way up is closed
    finally:
        os.close(parent)


def allocated(statuses: Iterable[os.stat_result]) -> int:
    """Return the bytes on disk, each inode once."""
    seen: set[int] = set()
    total = 0
    for status in statuses:
        if has_other_links(status):
            if status.st_ino in seen:
                continue
            if len(seen) < MAX_INODES:
                seen.add(status.st_ino)
        total += status.st_blocks * 512
    return total


def has_other_links(status: os.stat_result) -> bool:
    return status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)


class ReclaimableBytes:
    """Adds up the bytes that deleting folders frees: those of an inode with its last link."""

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
            if has_other_links(status):
                links = self._links.get(status.st_ino, status.st_nlink) - 1
                self._links[status.st_ino] = links
                if links:
                    continue
            self.bytes += status.st_blocks * 512

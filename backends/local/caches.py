"""The local backend's caches: a folder a scope and kind, measured and cleared in place."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from stoke.backend import Volume
from stoke.errors import EngineError
from stoke.paths import make_private

KINDS = ("python", "system")
# What marks a folder as ours; nothing without it is ever cleared.
TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A cache of stoke. It can be cleared at any time: stoke cache clear\n"
)


class LocalCaches:
    """Scopes below one folder: `<scope>/python`. `running_in` names a scope's running jobs."""

    def __init__(self, top: Path, running_in: Callable[[str], list[str]]) -> None:
        self._top = top
        self._running_in = running_in

    def make(self, scope: str, kind: str) -> Path:
        """The folder of a scope's cache, made on first use."""
        folder = self._top / scope / kind
        tag = folder / TAG
        if not tag.exists():
            make_private(folder)
            tag.write_text(TAG_TEXT)
        return folder

    def volumes(self) -> list[Volume]:
        try:
            scopes = sorted(os.listdir(self._top))
        except OSError:
            return []
        return [
            Volume("local", scope, kind, str(folder), in_use_by=tuple(self._running_in(scope)))
            for scope in scopes
            for kind in KINDS
            if (folder := self._top / scope / kind).joinpath(TAG).exists()
        ]

    def measure(self, volume: Volume) -> Volume:
        folder = Path(volume.name)
        seen: set[tuple[int, int]] = set()
        total = sum(
            entry.stat(follow_symlinks=False).st_blocks * 512 for entry in _once(folder, seen)
        )
        return replace(
            volume,
            bytes=total,
            measured_at=time.time(),
            entries=len(_environments(folder)),
            in_use_by=tuple(self._running_in(volume.scope)),
        )

    def clear(self, volume: Volume, progress: Callable[[str], None]) -> int:
        """Empties a cache; the bytes are those of files whose last link goes."""
        folder = Path(volume.name)
        if not (folder / TAG).exists() or folder.parent.parent != self._top:
            raise EngineError(f"{folder} is not a cache of stoke; nothing was touched")
        holders = self._running_in(volume.scope)
        if holders:
            raise EngineError(
                f"the {volume.kind} cache of {volume.scope} is in use by {', '.join(holders)}",
                f"wait for them, or stop them: stoke stop {' '.join(holders)}",
            )
        before = self.measure(volume).bytes or 0
        # Every environment's lock is held while everything goes: a job that begins now waits for
        # it, and then finds nothing and builds.
        locks = [_take(path) for path in sorted((folder / "venvs").glob("*.lock"))]
        if None in locks:
            raise EngineError(
                f"the {volume.kind} cache of {volume.scope} is in use by a job that just began"
            )
        try:
            for name in sorted(os.listdir(folder)):
                if name == TAG:
                    continue
                progress(f"removing {name}")
                _remove(folder / name)
        finally:
            for lock in locks:
                if lock is not None:
                    os.close(lock)
        return max(0, before - (self.measure(volume).bytes or 0))


def _once(folder: Path, seen: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """Every file and folder below, a hard-linked file once; symbolic links are not followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield entry
            yield from _once(Path(entry.path), seen)
            continue
        if status.st_nlink > 1:
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        yield entry


def _environments(folder: Path) -> list[str]:
    try:
        entries = list(os.scandir(folder / "venvs"))
    except OSError:
        return []
    return [e.name for e in entries if e.is_dir(follow_symlinks=False) and "." not in e.name]


def _take(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)

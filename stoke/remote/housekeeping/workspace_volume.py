"""What a workspace volume takes besides mounting it: measure, copy in and out, duplicate, empty.

`do` in the operation is one of
    usage   measure it: bytes, and the number of files
    target  find where a copy into `path` goes, make the folders above it, and return
            {"folder": path, "name": name}; `name` in the operation is that of the source
    pack    write the archive of `path` to stdout, as `name`; "" packs the contents of a folder
    unpack  read an archive from stdin into the folder `path`
    copy    duplicate the workspace into the empty folder `to`, which is another volume
    drop    remove the folder `name` in it: the workspace, where this is the folder of all
    wait    wait while other programs run in this container, and end when there are none for a minute

Jobs write anything to the volume, so no symbolic link is followed. The archives are those of
`stoke.remote.common.archives`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import threading
import time

from stoke.remote.common.archives import (
    CHUNK,
    ArchiveError,
    Counts,
    open_inside,
    pack,
    parts_of,
    summary,
    unpack,
)
from stoke.remote.common.trees import FOLDER, remove_tree
from stoke.remote.housekeeping.errors import RefusedError
from stoke.remote.housekeeping.sizes import allocated, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from stoke.remote.schema import Operation

    Progress = Callable[[str], None]

PROGRESS_SECONDS = 0.25
IDLE_SECONDS = 60.0


class WorkspaceVolume:
    """A workspace where it is mounted."""

    def __init__(self, top: str, progress: Progress = lambda text: None) -> None:
        self._path = top
        self._top = os.open(top, FOLDER)
        self._progress = progress
        self._reported_at = 0.0
        self._files = 0

    def close(self) -> None:
        os.close(self._top)

    def perform(self, operation: Operation) -> dict[str, Any]:
        """Return the result of an operation. `RefusedError` if it was not done."""
        action = operation["do"]
        try:
            if action == "usage":
                return self.usage()
            if action == "target":
                return self.target(operation["path"], operation["name"])
            if action == "unpack":
                return self.unpack(operation["path"], read_pieces(0))
            if action == "copy":
                return self.copy(operation["to"])
            if action == "drop":
                return self.drop(operation["name"])
            if action == "wait":
                return self.wait()
        except ArchiveError as error:
            raise RefusedError(str(error)) from error
        raise RefusedError("there is no operation %s on workspaces" % action)

    def usage(self) -> dict[str, Any]:
        self._files = 0
        size = allocated(self._counted())
        return {"bytes": size, "files": self._files, "measured_at": time.time()}

    def _counted(self) -> Iterator[os.stat_result]:
        for status in walk(self._path, lambda: self._tick("measured %d files" % self._files)):
            self._files += not stat.S_ISDIR(status.st_mode)
            yield status

    def target(self, path: str, name: str) -> dict[str, Any]:
        """Find where a copy named `name` into `path` goes, as `cp -r` does."""
        parts = parts_of(path)
        if parts and not path.endswith("/"):
            above = open_inside(self._top, parts[:-1], make=True)
            try:
                status = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
            except OSError:
                return {"folder": "/".join(parts[:-1]), "name": parts[-1]}
            finally:
                os.close(above)
            if not stat.S_ISDIR(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                return {"folder": "/".join(parts[:-1]), "name": parts[-1]}
        os.close(open_inside(self._top, parts, make=True))
        return {"folder": "/".join(parts), "name": name}

    def pack(self, path: str, name: str) -> Iterator[bytes]:
        """Yield the archive of a path, with its summary. An error is in the summary."""
        counts = Counts(lambda counts: self._tick(_copied(counts)))
        error = None
        try:
            yield from self._pack(parts_of(path), name, counts)
        except ArchiveError as failed:
            error = str(failed)
        yield summary(counts, error)

    def _pack(self, parts: list[str], name: str, counts: Counts) -> Iterator[bytes]:
        if not parts:
            yield from pack(self._top, ".", name, counts)
            return
        above = open_inside(self._top, parts[:-1])
        try:
            yield from pack(above, parts[-1], name, counts)
        finally:
            os.close(above)

    def unpack(self, path: str, pieces: Iterator[bytes]) -> dict[str, Any]:
        folder = open_inside(self._top, parts_of(path), make=True)
        counts = Counts(lambda counts: self._tick(_copied(counts)))
        try:
            packed = unpack(folder, pieces, counts, any_link=True)
        finally:
            os.close(folder)
        return joined(packed, counts)

    def copy(self, to: str) -> dict[str, Any]:
        """Duplicate everything into another folder; both sides work at the same time."""
        reading, writing = os.pipe()
        failed: list[str] = []

        def send() -> None:
            try:
                for piece in self.pack("", ""):
                    write_all(writing, piece)
            except OSError as error:
                failed.append(error.strerror or "the copy broke")
            finally:
                os.close(writing)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        other = WorkspaceVolume(to, self._progress)
        try:
            return other.unpack("", read_pieces(reading))
        except ArchiveError as error:
            raise ArchiveError("; ".join([str(error), *failed])) from error
        finally:
            os.close(reading)
            thread.join()
            other.close()

    def drop(self, name: str) -> dict[str, Any]:
        path = os.path.join(self._path, "".join(parts_of(name)[:1]) or "-")
        freed = remove_tree(path, lambda: self._tick("removing files"))
        if os.path.lexists(path):
            raise RefusedError("not everything in %s could be removed" % name)
        return {"bytes": freed}

    def wait(self) -> dict[str, Any]:
        mine = _processes()
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < IDLE_SECONDS:
            self._progress("waiting")
            time.sleep(1)
            if _processes() - mine:
                idle_since = time.monotonic()
        return {}

    def _tick(self, text: str) -> None:
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            self._progress(text)


def joined(packed: dict[str, Any], counts: Counts) -> dict[str, Any]:
    """Return what was unpacked, with the problems of both sides. `ArchiveError` if packing failed."""
    if packed["error"] is not None:
        raise ArchiveError(packed["error"])
    result = counts.as_json()
    return {**result, "problems": packed["problems"] + result["problems"]}


def _processes() -> set[str]:
    return {name for name in os.listdir("/proc") if name.isdecimal()}


def _copied(counts: Counts) -> str:
    return "copied %d files, %d MiB" % (counts.files, counts.bytes >> 20)


def read_pieces(file: int) -> Iterator[bytes]:
    while True:
        piece = os.read(file, CHUNK)
        if not piece:
            return
        yield piece


def write_all(file: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(file, data[done:])


def without_begin(pieces: Iterator[bytes], size: int, digest: str) -> Iterator[bytes]:
    """Yield what follows the first `size` bytes. `RefusedError` if these have another SHA-256."""
    found = hashlib.sha256()
    for piece in pieces:
        begin = piece[:size]
        size -= len(begin)
        found.update(begin)
        if size == 0:
            if found.hexdigest() != digest:
                break
            yield piece[len(begin) :]
            yield from pieces
            return
    raise RefusedError("its files have changed since the copy was cut")


def main(arguments: list[str]) -> int:
    """Write an archive to stdout: python3 workspace.py FOLDER PATH NAME [SIZE DIGEST].

    SIZE and DIGEST (SHA-256) are of what a reader has that was cut off; the rest is written.
    """
    top, path, name, *begin = arguments
    pieces = WorkspaceVolume(top).pack(path, name)
    if begin:
        pieces = without_begin(pieces, int(begin[0]), begin[1])
    try:
        for piece in pieces:
            write_all(1, piece)
    except RefusedError as error:
        print(error.text, file=sys.stderr)
        return 1
    return 0

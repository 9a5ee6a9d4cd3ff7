"""Send the results of one ended job as a tar stream, from any offset on, or remove them.

The stream is the same each time for the same files, so that a reader that was cut off continues where
it stopped. Jobs of the scope can write to the volume: no link is followed, and only regular files are
opened.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import tarfile
import zlib

from stoke.remote.common.trees import open_folder, remove_tree
from stoke.remote.housekeeping.errors import RefusedError
from stoke.remote.housekeeping.files import is_folder
from stoke.remote.housekeeping.job_folders import RESULTS_SECONDS, older_than
from stoke.remote.protocol import PythonLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Print = Callable[..., None]
    Row = tuple[str, str, int, int, float]
    """Path, kind, size, mode, and time of the last change."""

MAX_ENTRIES = 250_000
# Bytes of the stream in one line. A node stores longer lines than 16 KiB in parts.
PIECE = 9_000
CHUNK = 64 * 1024
_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def send_results(
    top: str, job_id: str, offset: int, most: int, print_line: Print
) -> dict[str, Any]:
    """Print at most `most` bytes of the stream from `offset` on; return the offset after them.

    The first line has the stream's size, and a fingerprint that changes with any of the files.
    """
    folder = _folder_of(top, job_id)
    rows = [] if folder is None else list(_rows(folder))
    headers = [_header(row) for row in rows]
    sizes = [
        len(header) + (row[2] + -row[2] % 512 if row[1] == "f" else 0)
        for header, row in zip(headers, rows)  # noqa: B905
    ]
    total = sum(sizes) + 1024
    print_line(begin={"total": total, "fingerprint": _fingerprint(rows)})
    sender = _Sender(offset, min(most, max(0, total - offset)), print_line)
    for row, header, size in zip(rows, headers, sizes):  # noqa: B905
        if sender.is_full():
            break
        if sender.skips(size):
            continue
        sender.add(header)
        if row[1] == "f" and folder is not None:
            _send_content(folder, row, sender)
            sender.add(bytes(-row[2] % 512))
    sender.add(bytes(1024))
    sender.flush()
    if folder is not None:
        os.close(folder)
    return {"offset": sender.at, "total": total}


def drop_results(top: str, jobs: list[str]) -> dict[str, Any]:
    """Remove the results of these jobs, and those that are too old."""
    folder = os.path.join(top, PythonLayout.RESULTS)
    named = [os.path.join(folder, job_id) for job_id in jobs if _JOB.fullmatch(job_id)]
    if not is_folder(folder):
        return {"bytes": 0}
    return {"bytes": sum(map(remove_tree, [*named, *older_than(folder, RESULTS_SECONDS)]))}


class _Sender:
    """Prints the part of a stream between two offsets."""

    def __init__(self, offset: int, most: int, print_line: Print) -> None:
        self.at = offset
        self._end = offset + most
        self._position = 0  # of what is added
        self._waiting = b""
        self._print = print_line

    def is_full(self) -> bool:
        return self._position >= self._end

    def skips(self, size: int) -> bool:
        """Skip `size` bytes if all of them are before the offset."""
        if self._position + size > self.at:
            return False
        self._position += size
        return True

    def skip_to_offset(self, size: int) -> int:
        """Skip what is before the offset, of the next `size` bytes; return how many."""
        skipped = min(max(0, self.at + len(self._waiting) - self._position), size)
        self._position += skipped
        return skipped

    def add(self, data: bytes) -> None:
        begin = max(0, self.at + len(self._waiting) - self._position)
        end = max(0, self._end - self._position)
        self._position += len(data)
        self._waiting += data[begin:end]
        while len(self._waiting) >= PIECE:
            self._send(PIECE)

    def flush(self) -> None:
        if self._waiting:
            self._send(len(self._waiting))

    def _send(self, size: int) -> None:
        piece, self._waiting = self._waiting[:size], self._waiting[size:]
        data = base64.b64encode(zlib.compress(piece, 1)).decode()
        self._print(data=data, at=self.at)
        self.at += size


def _send_content(top: int, row: Row, sender: _Sender) -> None:
    path, _, size, _, _ = row
    *folders, name = path.split("/")
    folder = _open_below(top, folders)
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    with open(file, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise RefusedError("%r is no longer a regular file" % path)
        left = size - sender.skip_to_offset(size)
        stream.seek(size - left)
        while left and not sender.is_full():
            piece = stream.read(min(left, CHUNK))
            if not piece:
                raise RefusedError("%r became shorter while it was read" % path)
            left -= len(piece)
            sender.add(piece)


def _folder_of(top: str, job_id: str) -> int | None:
    if not _JOB.fullmatch(job_id):
        raise RefusedError("%r is not the name of a job" % job_id)
    volume = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _open_below(volume, [*PythonLayout.RESULTS.split("/"), job_id])
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.close(volume)


def _open_below(top: int, names: list[str]) -> int:
    here = os.dup(top)
    for name in names:
        try:
            below = open_folder(name, here)
        finally:
            os.close(here)
        here = below
    return here


def _rows(top: int) -> Iterator[Row]:
    """Yield every entry below an open folder, each folder before its contents."""
    waiting: list[list[str]] = [[]]
    seen = 0
    while waiting:
        inner = waiting.pop()
        try:
            folder = _open_below(top, inner)
        except OSError:
            continue
        try:
            for name in sorted(os.listdir(folder)):
                seen += 1
                if seen > MAX_ENTRIES:
                    raise RefusedError("the job has more than %d results" % MAX_ENTRIES)
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                path = "/".join([*inner, name])
                mode = status.st_mode
                if stat.S_ISREG(mode):
                    yield path, "f", status.st_size, mode & 0o777, status.st_mtime
                elif stat.S_ISDIR(mode):
                    yield path, "d", 0, 0o700, 0.0
                    waiting.append([*inner, name])
                else:
                    yield path, "l" if stat.S_ISLNK(mode) else "o", 0, 0, 0.0
        finally:
            os.close(folder)


def _header(row: Row) -> bytes:
    path, kind, size, mode, changed_at = row
    entry = tarfile.TarInfo("results/" + path)
    types = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE}
    entry.type = types.get(kind, tarfile.FIFOTYPE)
    entry.size, entry.mode, entry.mtime = size, mode, int(changed_at)
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _fingerprint(rows: list[Row]) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(repr(row).encode("utf-8", "surrogateescape"))
    return found.hexdigest()

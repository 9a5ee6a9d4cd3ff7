"""Pack a file or folder into a tar stream and unpack one, with neither side trusting the other.

The stream is GNU tar, so an engine can unpack it too. Only regular files, folders, symbolic and hard
links travel; everything else is reported as a problem. A stream that `unpack` reads ends with a record
of our own, which proves that it is complete and lists what was left out.

Nothing here follows a symbolic link: folders are opened one by one, each in the open folder above it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tarfile

from stoke.remote.common.files import DISK_FULL
from stoke.remote.common.trees import FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 18
END = bytes(2 * BLOCK)
"""What ends an archive for other programs."""
SUMMARY = b"Z"
"""The type of our last record; POSIX leaves the letters A to Z to each program."""
MAX_DEPTH = 250
"""Folders in each other; each takes an open file on both sides."""
MAX_NAME = 64 * 1024
MAX_SUMMARY = 1 << 20
MAX_PROBLEMS = 100
CUT = "the copy was cut before its end"
TEMPORARY = ".stoke-copy-"
LAST_TIME = 1 << 33
_ENCODING = sys.getfilesystemencoding()


class ArchiveError(Exception):
    """The stream is cut or no archive of ours, or its destination is unusable."""


class Counts:
    """What one side has packed or unpacked. `tick` is called for each file and piece of one."""

    def __init__(self, tick: Callable[[Counts], None] = lambda counts: None) -> None:
        self.files = 0
        self.bytes = 0
        self.problems: list[str] = []
        self.dropped = 0
        self.tick = tick

    def problem(self, path: str, why: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append("%s: %s" % (shown(path), why))
        else:
            self.dropped += 1

    def as_json(self) -> dict[str, Any]:
        more = ["and %d more" % self.dropped] if self.dropped else []
        return {"files": self.files, "bytes": self.bytes, "problems": self.problems + more}


def shown(path: str) -> str:
    """Return a path as printable text, of at most 200 characters."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if len(text) <= 200 else text[:100] + "..." + text[-97:]


def parts_of(path: str) -> list[str]:
    """Return the names in a path inside a tree. `ArchiveError` for one that could lead out of it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise ArchiveError("%s: .. leads out of it" % shown(path))
    if len(parts) > MAX_DEPTH:
        raise ArchiveError("%s: more than %d folders in each other" % (shown(path), MAX_DEPTH))
    return parts


def open_inside(top: int, parts: list[str], make: bool = False) -> int:
    """Open the folder at `parts` below the open folder `top`; with `make`, create what is missing.

    Raises `ArchiveError` for a symbolic link, or anything but a folder, on the way.
    """
    folder = os.open(".", FOLDER, dir_fd=top)
    try:
        for number, part in enumerate(parts):
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=folder)
                except FileExistsError:
                    pass
            try:
                inner = os.open(part, FOLDER, dir_fd=folder)
            except OSError as error:
                path = "/".join(parts[: number + 1])
                why = _why_closed(part, folder, error)
                raise ArchiveError("%s: %s" % (shown(path), why)) from error
            os.close(folder)
            folder = inner
    except BaseException:
        os.close(folder)
        raise
    return folder


def _why_closed(name: str, folder: int, error: OSError) -> str:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return error.strerror or "cannot be opened"
    if stat.S_ISLNK(mode):
        return "is a symbolic link, which is not followed"
    return (error.strerror or "cannot be opened") if stat.S_ISDIR(mode) else "is not a folder"


# ---------------------------------------------------------------------------- packing


def pack(top: int, name: str, as_name: str, counts: Counts) -> Iterator[bytes]:
    """Yield the archive of the file or folder `name` in the open folder `top`, without its end.

    With `as_name` "" it holds the contents of the folder; otherwise everything is below that name.
    Files with several links travel once. Raises `ArchiveError` if there is nothing by that name.
    """
    try:
        status = os.stat(name, dir_fd=top, follow_symlinks=False)
    except OSError as error:
        raise ArchiveError("%s: %s" % (shown(name), error.strerror)) from error
    packer = _Packer(counts)
    if stat.S_ISDIR(status.st_mode):
        yield from packer.folder(top, name, as_name)
    elif as_name:
        yield from packer.entry(top, name, as_name, status)
    else:
        raise ArchiveError("%s: is not a folder" % shown(name))


def summary(counts: Counts, error: str | None = None) -> bytes:
    """Return the record that ends a stream for `unpack`."""
    text = json.dumps({**counts.as_json(), "error": error}).encode()
    entry = tarfile.TarInfo("summary")
    entry.type = SUMMARY
    entry.size = len(text)
    return entry.tobuf(tarfile.GNU_FORMAT) + text + bytes(-len(text) % BLOCK)


class _Packer:
    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._links: dict[tuple[int, int], str] = {}

    def folder(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        """Yield a folder's entry, unless its path is "", and everything in it."""
        stack: list[tuple[int, str, Iterator[str]]] = []
        try:
            yield from self._enter(stack, parent, name, path)
            while stack:
                folder, path, names = stack[-1]
                inner = next(names, None)
                if inner is None:
                    os.close(stack.pop()[0])
                    continue
                where = path + "/" + inner if path else inner
                try:
                    status = os.stat(inner, dir_fd=folder, follow_symlinks=False)
                except OSError as error:
                    self._counts.problem(where, error.strerror or "cannot be read")
                    continue
                if stat.S_ISDIR(status.st_mode):
                    yield from self._enter(stack, folder, inner, where)
                else:
                    yield from self.entry(folder, inner, where, status)
        finally:
            for folder, _, _ in stack:
                os.close(folder)

    def _enter(
        self, stack: list[tuple[int, str, Iterator[str]]], parent: int, name: str, path: str
    ) -> Iterator[bytes]:
        if len(stack) >= MAX_DEPTH:
            self._counts.problem(path, "more than %d folders in each other" % MAX_DEPTH)
            return
        try:
            folder = os.open(name, FOLDER, dir_fd=parent)
        except OSError as error:
            self._counts.problem(path, error.strerror or "cannot be opened")
            return
        try:
            names = iter(sorted(os.listdir(folder)))
            status = os.fstat(folder)
        except OSError as error:
            os.close(folder)
            self._counts.problem(path, error.strerror or "cannot be read")
            return
        stack.append((folder, path, names))
        if path:
            yield self._header(path, tarfile.DIRTYPE, status)

    def entry(self, folder: int, name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
        """Yield a file or link; report anything else."""
        if stat.S_ISLNK(status.st_mode):
            try:
                target = os.readlink(name, dir_fd=folder)
            except OSError as error:
                self._counts.problem(path, error.strerror or "cannot be read")
                return
            yield self._header(path, tarfile.SYMTYPE, status, target)
        elif not stat.S_ISREG(status.st_mode):
            self._counts.problem(path, "is neither a file, a folder nor a link")
        else:
            yield from self._file(folder, name, path)

    def _file(self, folder: int, name: str, path: str) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(name, flags, dir_fd=folder)
        except OSError as error:
            self._counts.problem(path, error.strerror or "cannot be read")
            return
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                self._counts.problem(path, "was replaced while it was read")
                return
            inode = status.st_dev, status.st_ino
            if status.st_nlink > 1 and inode in self._links:
                yield self._header(path, tarfile.LNKTYPE, status, self._links[inode])
                return
            if status.st_nlink > 1:
                self._links[inode] = path
            yield self._header(path, tarfile.REGTYPE, status)
            yield from self._contents(file, path, status.st_size)
        finally:
            os.close(file)

    def _contents(self, file: int, path: str, size: int) -> Iterator[bytes]:
        """Yield as many bytes as the header promises, and fill the last block."""
        left = size
        while left:
            try:
                piece = os.read(file, min(left, CHUNK))
            except OSError as error:
                self._counts.problem(path, error.strerror or "cannot be read")
                piece = b""
            if not piece:
                self._counts.problem(path, "became shorter while it was read; zeros fill the rest")
                while left:
                    yield bytes(min(left, CHUNK))
                    left -= min(left, CHUNK)
                break
            left -= len(piece)
            self._counts.bytes += len(piece)
            self._counts.tick(self._counts)
            yield piece
        if size % BLOCK:
            yield bytes(BLOCK - size % BLOCK)

    def _header(self, path: str, kind: bytes, status: os.stat_result, target: str = "") -> bytes:
        entry = tarfile.TarInfo(path)
        entry.type = kind
        entry.mode = stat.S_IMODE(status.st_mode) & 0o777
        entry.mtime = int(status.st_mtime)
        entry.size = status.st_size if kind == tarfile.REGTYPE else 0
        entry.linkname = target
        if kind != tarfile.DIRTYPE:
            self._counts.files += 1
        self._counts.tick(self._counts)
        return entry.tobuf(tarfile.GNU_FORMAT, _ENCODING, "surrogateescape")


# ---------------------------------------------------------------------------- unpacking


class _Reader:
    """Reads exact numbers of bytes from pieces of any length."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        return b"".join(self.stream(size))

    def stream(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._rest:
                try:
                    self._rest = memoryview(next(self._pieces))
                except StopIteration:
                    raise ArchiveError(CUT) from None
                continue
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece


def unpack(top: int, pieces: Iterator[bytes], counts: Counts, *, any_link: bool) -> dict[str, Any]:
    """Unpack a stream into the open folder `top`; return the summary of the side that packed it.

    Replaces files and merges folders, and never writes outside of `top`. A file appears under its name
    once it is complete. Without `any_link`, symbolic links that can lead out of `top` are left out: a
    later reader would follow them. Raises `ArchiveError` if the stream is cut.
    """
    unpacker = _Unpacker(top, counts, any_link)
    reader = _Reader(pieces)
    name = target = None
    while True:
        block = reader.read(BLOCK)
        try:
            entry = tarfile.TarInfo.frombuf(block, _ENCODING, "surrogateescape")
        except (tarfile.TarError, ValueError):
            raise ArchiveError("the copy holds something that is no archive") from None
        padding = -entry.size % BLOCK
        if entry.size < 0:
            raise ArchiveError("the copy holds a size below 0")
        if entry.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if entry.size > MAX_NAME:
                raise ArchiveError("the copy holds a name of %d bytes" % entry.size)
            text = reader.read(entry.size + padding)[: entry.size].split(b"\0")[0]
            long = os.fsdecode(text)
            if entry.type == tarfile.GNUTYPE_LONGNAME:
                name = long
            else:
                target = long
            continue
        entry.mtime = min(max(entry.mtime, 0), LAST_TIME)
        if entry.type == SUMMARY:
            if entry.size > MAX_SUMMARY:
                raise ArchiveError("the copy ends with a summary of %d bytes" % entry.size)
            unpacker.finish()
            return _summary_in(reader.read(entry.size))
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            padding = 0  # Only files have contents.
        path = entry.name if name is None else name
        linked = entry.linkname if target is None else target
        name = target = None
        unpacker.add(entry, path, linked, reader)
        if padding:
            reader.read(padding)


def _summary_in(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
        return {
            "files": int(found["files"]),
            "bytes": int(found["bytes"]),
            "problems": [str(one)[:1000] for one in found["problems"][: MAX_PROBLEMS + 1]],
            "error": None if found["error"] is None else str(found["error"])[:1000],
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ArchiveError("the copy ends with something that is no summary") from None


class _Unpacker:
    def __init__(self, top: int, counts: Counts, any_link: bool) -> None:
        self._top = top
        self._counts = counts
        self._any_link = any_link
        self._folders: dict[str, tuple[int, float]] = {}

    def add(self, entry: tarfile.TarInfo, path: str, target: str, reader: _Reader) -> None:
        """Unpack one entry; report it as a problem if that cannot be done safely."""
        size = entry.size if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else 0
        contents = reader.stream(size)
        try:
            parts = parts_of(path)
            if path.startswith("/") or not parts:
                raise ArchiveError("%s: is not a path inside of it" % shown(path))
            if entry.type == tarfile.DIRTYPE:
                os.close(open_inside(self._top, parts, make=True))
                self._folders["/".join(parts)] = (entry.mode & 0o777, entry.mtime)
            else:
                self._put(entry, parts, target, contents)
                self._counts.files += 1
        except ArchiveError as error:
            if str(error) == CUT:
                raise
            self._counts.problem(path, str(error).rpartition(": ")[2])
        except OSError as error:
            if error.errno in DISK_FULL:  # Everything after it would fail too.
                raise ArchiveError("%s: %s" % (shown(path), error.strerror)) from error
            self._counts.problem(path, error.strerror or "cannot be written")
        for _ in contents:  # What a refused entry holds.
            pass
        self._counts.tick(self._counts)

    def _put(
        self, entry: tarfile.TarInfo, parts: list[str], target: str, contents: Iterator[memoryview]
    ) -> None:
        folder = open_inside(self._top, parts[:-1], make=True)
        try:
            if _is_folder(parts[-1], folder):
                raise ArchiveError("%s: there is a folder of that name" % shown(parts[-1]))
            aside = TEMPORARY + os.urandom(8).hex()
            if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                self._write(entry, folder, aside, contents)
            elif entry.type == tarfile.SYMTYPE:
                if not self._any_link:
                    _check_link(parts, target)
                os.symlink(target, aside, dir_fd=folder)
            elif entry.type == tarfile.LNKTYPE:
                self._link(folder, aside, parts_of(target))
            else:
                raise ArchiveError("%s: is neither a file, a folder nor a link" % shown(parts[-1]))
            try:
                os.rename(aside, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(aside, dir_fd=folder)
                raise
        finally:
            os.close(folder)

    def _write(
        self, entry: tarfile.TarInfo, folder: int, aside: str, contents: Iterator[memoryview]
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(aside, flags, 0o600, dir_fd=folder)
        try:
            for piece in contents:
                done = 0
                while done < len(piece):
                    done += os.write(file, piece[done:])
                self._counts.bytes += len(piece)
                self._counts.tick(self._counts)
            os.fchmod(file, entry.mode & 0o777)
            os.utime(file, (entry.mtime, entry.mtime))
        except BaseException:
            os.unlink(aside, dir_fd=folder)
            raise
        finally:
            os.close(file)

    def _link(self, folder: int, aside: str, target: list[str]) -> None:
        """Give a file of this tree a second name."""
        if not target:
            raise ArchiveError("its other name is empty")
        source = open_inside(self._top, target[:-1])
        try:
            status = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise ArchiveError("its other name is no file")
            os.link(target[-1], aside, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def finish(self) -> None:
        """Set modes and times of folders, the innermost first: files have been added to them since."""
        for path in sorted(self._folders, key=lambda one: -one.count("/")):
            mode, mtime = self._folders[path]
            try:
                folder = open_inside(self._top, path.split("/"))
            except (ArchiveError, OSError):
                continue
            try:
                os.fchmod(folder, mode)
                os.utime(folder, (mtime, mtime))
            except OSError as error:
                self._counts.problem(path, error.strerror or "its mode cannot be set")
            finally:
                os.close(folder)


def _is_folder(name: str, folder: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _check_link(parts: list[str], target: str) -> None:
    """Raise `ArchiveError` for a symbolic link that can lead out of the tree.

    Steps up are allowed at its beginning only: behind a name that is another link, a step up starts
    from wherever that link leads.
    """
    steps = target.split("/")
    up = 0
    while up < len(steps) and steps[up] == "..":
        up += 1
    if not target or target.startswith("/") or ".." in steps[up:] or up >= len(parts):
        raise ArchiveError("%s: is a link out of the copy" % shown(parts[-1]))

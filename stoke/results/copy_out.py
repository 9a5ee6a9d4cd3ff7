"""Copy collected results into a folder of the user's."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from stoke.errors import EngineError, RequestError
from stoke.results.collect import Collected, ResultFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1024**2
_NAMED = 3
Progress = Callable[[int, int], None]
"""Called with the files and the bytes so far."""


def copy_out(
    results: Collected, source: Path, target: Path, *, force: bool, progress: Progress
) -> int:
    """Copy results into `target`, which is made; return how many files were written.

    Files that are already there with the same content are left alone. Others are an error before
    anything is written, unless `force` replaces them. No link inside `target` is followed.

    Raises `RequestError` for what is in the way, and `EngineError` for what cannot be read or written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        top = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RequestError(
            "output", f"{target}: {error.strerror}", "name another folder"
        ) from error
    try:
        missing, differing = [], []
        for file in results.files:
            there = _is_there(top, file, target)
            if there is None:
                missing.append(file)
            elif not there:
                differing.append(file)
        if differing and not force:
            named = ", ".join(file.path for file in differing[:_NAMED])
            more = len(differing) - _NAMED
            raise RequestError(
                "output",
                f"{target} has other files with the same names: {named}"
                + (f" and {more:,} more" if more > 0 else ""),
                "name another folder, or replace them: --force",
            )
        size = 0
        for number, file in enumerate([*missing, *differing], 1):
            _copy(source, top, file, target)
            size += file.size
            progress(number, size)
        return len(missing) + len(differing)
    finally:
        os.close(top)


def _is_there(top: int, file: ResultFile, target: Path) -> bool | None:
    """Return whether a file is in the folder already; None if nothing has its name."""
    try:
        with _Parent(top, file.path, make=False) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
                return False
            return _digest(os.open(name, _READ, dir_fd=folder)) == file.sha256
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _in_the_way(file, target, error) from error


def _copy(source: Path, top: int, file: ResultFile, target: Path) -> None:
    """Write a file aside and rename it. `EngineError` if it has changed since it was collected."""
    try:
        read = os.open(source / file.path, _READ)
    except OSError as error:
        raise EngineError(f"cannot read {source / file.path}: {error.strerror}") from error
    try:
        with _Parent(top, file.path, make=True) as (folder, name):
            aside = f".{os.urandom(8).hex()}.new".encode()
            mode = 0o777 if os.fstat(read).st_mode & stat.S_IXUSR else 0o666
            written = os.open(aside, _CREATE, mode, dir_fd=folder)
            try:
                found = hashlib.sha256()
                for piece in _pieces(read):
                    found.update(piece)
                    while piece:
                        piece = piece[os.write(written, piece) :]
                if found.hexdigest() != file.sha256:
                    raise EngineError(
                        f"{source / file.path} has changed since it was collected, so it is not copied"
                    )
                times = os.fstat(read)
                os.utime(written, ns=(times.st_mtime_ns, times.st_mtime_ns))
                os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(aside, dir_fd=folder)
                raise
            finally:
                os.close(written)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST):
            raise _in_the_way(file, target, error) from error
        raise EngineError(f"cannot write {target / file.path}: {error.strerror}") from error
    finally:
        os.close(read)


def _in_the_way(file: ResultFile, target: Path, error: OSError) -> RequestError:
    return RequestError(
        "output", f"{target / file.path} cannot be written: {error.strerror}", "name another folder"
    )


class _Parent:
    """The open folder of a path below `top`, and the path's last name. Follows no link."""

    def __init__(self, top: int, path: str, *, make: bool) -> None:
        *self._folders, self._name = os.fsencode(path).split(b"/")
        self._make = make
        self._here = os.dup(top)

    def __enter__(self) -> tuple[int, bytes]:
        try:
            for name in self._folders:
                if self._make:
                    try:
                        os.mkdir(name, dir_fd=self._here)
                    except FileExistsError:
                        pass
                below = os.open(name, _FOLDER, dir_fd=self._here)
                os.close(self._here)
                self._here = below
        except BaseException:
            os.close(self._here)
            raise
        return self._here, self._name

    def __exit__(self, *_: object) -> None:
        os.close(self._here)


def _digest(file: int) -> str:
    found = hashlib.sha256()
    try:
        for piece in _pieces(file):
            found.update(piece)
    finally:
        os.close(file)
    return found.hexdigest()


def _pieces(file: int) -> Iterator[bytes]:
    return iter(lambda: os.read(file, _CHUNK), b"")

"""Copy the files that match a request's patterns from the working directory to the results.

A pattern is a path relative to the working directory, in which `*`, `?` and `[...]` match within a
name, and `**` any number of folders. A pattern that matches a folder matches everything in it. Files
that are as the job's snapshot has them are left out, and those of earlier jobs in the workspace.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat

from stoke.remote.common.files import DISK_FULL
from stoke.remote.protocol import PARTIAL_RESULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stoke.remote.runner.job import RemoteJob

MAX_FILES = 1_000_000  # of the working directory that are looked at
MAX_FAILURES = 20  # that are printed
CHUNK = 1024**2


def gather_results(job: RemoteJob, folder: str) -> None:
    """Copy matching new and changed files. Failures are printed."""
    matches = matcher(job.payload["results"])
    before = _snapshot(job)
    failures = []
    for path, status in _files_below(job.directory):
        if not matches(path):
            continue
        source = os.path.join(job.directory, path)
        if source == job.script or _is_below(source, folder):
            continue
        if job.directory == job.workspace and status.st_ctime < job.code_began:
            continue  # Of an earlier job in this workspace.
        if _is_unchanged(source, status, before.get(path)):
            continue
        try:
            _copy(source, os.path.join(folder, path))
        except (OSError, shutil.SpecialFileError) as error:
            failures.append("%r: %s" % (path, getattr(error, "strerror", None) or error))
            if getattr(error, "errno", None) in DISK_FULL:
                break
    for failure in failures[:MAX_FAILURES]:
        job.write(2, ("stoke: not among the results: %s\n" % failure).encode(errors="replace"))
    if len(failures) > MAX_FAILURES:
        more = len(failures) - MAX_FAILURES
        job.write(2, b"stoke: not among the results: %d more\n" % more)


def matcher(patterns: list[str]) -> Callable[[str], object]:
    """Return a function that tells whether one of the patterns matches a path, or a folder above it."""
    whole = "|".join(_regex(pattern) for pattern in patterns)
    return re.compile("(?:%s)(?:/.*)?" % whole, re.DOTALL).fullmatch


def _regex(pattern: str) -> str:
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    out = ""
    for at, name in enumerate(names):
        last = at == len(names) - 1
        if name == "**":
            out += ".*" if last else "(?:.*/)?"
        else:
            out += _name_regex(name) + ("" if last else "/")
    return out


def _name_regex(name: str) -> str:
    """Return the expression for a name of a pattern: that of `fnmatch`, which never matches a slash."""
    out, at = "", 0
    while at < len(name):
        character = name[at]
        at += 1
        end = name.find("]", at + 1 + (name[at : at + 1] == "!")) if character == "[" else -1
        if character == "*":
            if not out.endswith("[^/]*"):
                out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif end >= 0:
            negated = name[at] == "!"
            inside = re.sub(r"([\\\[\]^&~|])", r"\\\1", name[at + negated : end])
            out += "(?!/)[%s%s]" % ("^" if negated else "", inside)
            at = end + 1
        else:
            out += re.escape(character)
    return out


def _snapshot(job: RemoteJob) -> dict[str, tuple[int, str]]:
    """Return the size and SHA-256 of each file that was in the working directory at the start."""
    project = job.payload["project"]
    if job.project is None or project is None:
        return {}
    top = os.path.relpath(job.directory, job.project)
    prefix = "" if top == "." else top + "/"
    found = {}
    for path, kind, *rest in json.loads(job.manifest)["entries"]:
        if kind == "f" and path.startswith(prefix):
            # As os.fsdecode gives them: JSON keeps the surrogates.
            found[path[len(prefix) :]] = (rest[1], rest[2])
    return found


def _files_below(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path, relative to `top`, and the status of each regular file; follow no link."""
    waiting = [""]
    seen = 0
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(os.path.join(top, folder)), key=lambda one: one.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > MAX_FILES:
                return
            path = os.path.join(folder, entry.name)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path)
            elif stat.S_ISREG(status.st_mode):
                yield path, status


def _is_below(path: str, folder: str) -> bool:
    return (path + "/").startswith(folder.rstrip("/") + "/")


def _is_unchanged(path: str, status: os.stat_result, before: tuple[int, str] | None) -> bool:
    if before is None or before[0] != status.st_size:
        return False
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(CHUNK), b""):
                found.update(piece)
    except OSError:
        return False
    return found.hexdigest() == before[1]


def _copy(source: str, target: str) -> None:
    """Copy a file under another name and rename it, so that a killed job leaves only whole files."""
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    if os.path.lexists(target):
        raise OSError(errno.EEXIST, "the code has written a result with this name")
    aside = os.path.join(folder, PARTIAL_RESULT + os.urandom(8).hex())
    try:
        shutil.copyfile(source, aside, follow_symlinks=False)
        shutil.copystat(source, aside)
        os.rename(aside, target)
    except BaseException:
        if os.path.lexists(aside):
            os.unlink(aside)
        raise

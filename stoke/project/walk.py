"""Find everything of a project that travels, and what is left out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from stoke.project.rules import BY_GIT, STOKEIGNORE, ByGit, Ignoring, Rules

SPECIAL = "is no file, but a pipe, socket or device"
FORBIDDEN = ".git"


class Walk:
    """The entries of a project by their paths, which are relative to its root."""

    def __init__(self) -> None:
        self.files: list[tuple[str, os.stat_result]] = []
        self.links: list[tuple[str, str]] = []
        """Each symbolic link with its target, relative to its folder and inside the root."""
        self.empty: list[str] = []
        """Folders without anything in them."""
        self.left_out: list[tuple[str, str]] = []
        """Each file or folder that is left out, with the reason; a folder's path ends with a slash."""
        self.outside: list[tuple[str, str]] = []
        """The links that lead outside of the root, with their targets."""
        self.unreadable: list[tuple[str, OSError]] = []


def walk(
    root: str, rules: Rules, ignoring: Ignoring, step: Callable[[int], object] = lambda files: None
) -> Walk:
    """Walk a project; `root` is a real path. Follows no symbolic link and reads no file.

    `step` is called after each folder with the number of files found so far; it ends the walk by an
    exception.
    """
    found = Walk()
    left: list[tuple[str, Ignoring, str | None]] = [("", ignoring, None)]
    while left:
        folder, ignoring, reason = left.pop()
        prefix = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{root}/{folder}") as scan:
                entries = list(scan)
        except OSError as error:
            if reason is None:
                found.unreadable.append((folder or ".", error))
            continue
        if not entries and folder and reason is None:
            found.empty.append(folder)
        names = {entry.name for entry in entries}
        if STOKEIGNORE in names and reason is None:
            rules.read_own(folder)
        ignoring = ignoring.enter(folder, names)
        for entry in entries:
            name = entry.name
            if name == FORBIDDEN:
                continue
            path = prefix + name
            if entry.is_dir(follow_symlinks=False):
                why, inside = rules.folder(path, name, ignoring)
                if why is None or rules.is_searched(path, why):
                    left.append((path, inside, why))
                if why is not None and reason is None:
                    found.left_out.append((f"{path}/", why))
                continue
            why = rules.file(path, name, ignoring)
            if why is not None:
                if reason is None:
                    if isinstance(ignoring, ByGit) and why == BY_GIT and _is_special(entry):
                        why = SPECIAL  # git lists none of these, so it ignores none either.
                    found.left_out.append((path, why))
                continue
            _add(found, root, path, entry)
        step(len(found.files))
    return found


def _add(found: Walk, root: str, path: str, entry: os.DirEntry[str]) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            found.files.append((path, status))
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(entry.path)
            inside = link_target(root, path, target)
            if inside is None:
                found.outside.append((path, target))
            else:
                found.links.append((path, inside))
        else:
            found.left_out.append((path, SPECIAL))
    except OSError as error:
        found.unreadable.append((path, error))


def _is_special(entry: os.DirEntry[str]) -> bool:
    return not entry.is_symlink() and not entry.is_file(follow_symlinks=False)


def link_target(root: str, path: str, target: str) -> str | None:
    """Return the target that a link has in a copy of the root; None if it leads outside.

    A target that is absolute, or takes a way outside of the root, becomes a relative one.
    """
    folder = os.path.dirname(path)
    real = os.path.realpath(os.path.join(root, folder, target))
    if real != root and not real.startswith(root + "/"):
        return None
    plain = os.path.normpath(os.path.join(folder, target))
    if os.path.isabs(target) or plain == ".." or plain.startswith("../"):
        return os.path.relpath(real, os.path.join(root, folder))
    return target


def largest(sizes: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Return the largest files and folders, each folder no larger than what makes it large."""
    total: dict[str, int] = {}
    inner: dict[str, dict[str, int]] = {}
    for path, size in sizes:
        above = ""
        for end in [at for at, letter in enumerate(path) if letter == "/"]:
            folder = path[: end + 1]
            total[folder] = total.get(folder, 0) + size
            inner.setdefault(above, {})[folder] = total[folder]
            above = folder
        inner.setdefault(above, {})[path] = size
    tops = sorted(inner.get("", {}).items(), key=lambda one: (-one[1], one[0]))[:count]
    return [_narrowed(path, size, inner) for path, size in tops]


def _narrowed(path: str, size: int, inner: dict[str, dict[str, int]]) -> tuple[str, int]:
    while path in inner:
        heaviest, weight = max(inner[path].items(), key=lambda one: one[1])
        if weight < 0.9 * size:
            break
        path, size = heaviest, weight
    return path, size

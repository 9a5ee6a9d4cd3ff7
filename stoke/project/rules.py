"""Decide which files of a project travel.

The first of these rules that matches a file decides; `.git` never travels, and neither do the folders
where stoke stores jobs and caches:

1. `--include` brings a file in, `--exclude` leaves it out;
2. `.stokeignore`, in each folder: a pattern leaves a file out, one with `!` brings it in;
3. folders of tools that are made anew anywhere: virtual environments, caches, installed packages;
4. git's ignore rules.

A file that looks like a secret travels only if a pattern of `--include`, or one with `!` in
`.stokeignore`, looks like the name of a secret too.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from stoke.files.paths import cache_dir, state_dir
from stoke.project.git_files import GitFiles, list_git_files
from stoke.project.secret_names import looks_secret

if TYPE_CHECKING:
    from stoke.project.patterns import Includes, Patterns

STOKEIGNORE = ".stokeignore"
GITIGNORE = ".gitignore"
SECRET = "looks like a secret"  # noqa: S105
TOOL_FOLDER = "is made by a tool"
VENV = "is a virtual environment"
STORE = "is where stoke stores jobs and caches"
OPTION = "--exclude"
BY_GIT = "ignored by git"
NOT_IMPORTED = "is not imported"

_TOOL_FOLDERS = frozenset(
    {
        "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".tox", ".nox",
        ".hypothesis", ".ipynb_checkpoints", ".eggs", ".pytype", ".venv", ".direnv", ".terraform",
        ".hg", ".svn", ".jj", ".import_linter_cache",
    }
)  # fmt: skip
_TOOL_FILES = frozenset({".DS_Store", "Thumbs.db"})


class Ignoring:
    """What ignore rules say in one folder; this class ignores nothing."""

    def file(self, path: str) -> str | None:  # noqa: ARG002
        """Return why a file is left out, or None."""
        return None

    def folder(self, path: str) -> str | None:  # noqa: ARG002
        """Return why a folder is left out with all that is in it, or None."""
        return None

    def enter(self, path: str, names: Collection[str]) -> Ignoring:  # noqa: ARG002
        """Return the rules inside a folder that is not left out and has these names in it."""
        return self


class ByGit(Ignoring):
    """The rules of a repository, as git itself applies them. `base` is its path in the project."""

    def __init__(self, files: GitFiles, base: str, root: str) -> None:
        self._files = files
        self._base = len(base)
        self._root = root

    def file(self, path: str) -> str | None:
        return None if path[self._base :] in self._files.files else BY_GIT

    def folder(self, path: str) -> str | None:
        name, files = path[self._base :], self._files
        if name in files.folders or name in files.files or name in files.nested:
            return None
        # git does not track empty folders, so it does not list them as ignored either.
        if _has_file(f"{self._root}/{path}") or f"{name}/" in files.ignored_folders:
            return BY_GIT
        return None

    def enter(self, path: str, names: Collection[str]) -> Ignoring:
        name, files = path[self._base :], self._files
        if name in files.files or name in files.nested:
            return rules_of(self._root, path).enter(path, names)
        return self


class ByPatterns(Ignoring):
    """The rules of .gitignore files, read here. The last file with a matching pattern decides."""

    def __init__(self, root: str, levels: Sequence[Patterns]) -> None:
        self._root = root
        self._levels = levels

    def file(self, path: str) -> str | None:
        return BY_GIT if _last(self._levels, path, False) else None

    def folder(self, path: str) -> str | None:
        return BY_GIT if _last(self._levels, path, True) else None

    def enter(self, path: str, names: Collection[str]) -> Ignoring:
        prefix = f"{path}/" if path else ""
        if path and ".git" in names:
            files = list_git_files(f"{self._root}/{path}")
            if files is not None:
                return ByGit(files, prefix, self._root)
        if GITIGNORE not in names:
            return self
        from stoke.project.patterns import read_patterns

        found = read_patterns(f"{self._root}/{prefix}{GITIGNORE}", prefix)
        return self if found is None else ByPatterns(self._root, [*self._levels, found])


class LeftOut(Ignoring):
    """Inside a folder that is left out, for patterns that bring something of it in again."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def file(self, path: str) -> str | None:  # noqa: ARG002
        return self._reason

    folder = file


class OnlyImports(Ignoring):
    """The modules that a script imports; the names are in the project's root."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def file(self, path: str) -> str | None:
        return None if path.partition("/")[0] in self._names else NOT_IMPORTED

    folder = file


def rules_of(root: str, path: str = "") -> Ignoring:
    """Return git's ignore rules for a folder of the project, whether or not git is installed."""
    folder = f"{root}/{path}" if path else root
    files = list_git_files(folder)
    if files is not None:
        return ByGit(files, f"{path}/" if path else "", root)
    return ByPatterns(root, _outer_patterns(folder, f"{path}/" if path else ""))


class Rules:
    """All rules of one project. `include` and `exclude` are the patterns of the options."""

    def __init__(self, root: str, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._root = root
        folders = (os.path.realpath(folder) for folder in (state_dir(), cache_dir()))
        self._stores = {os.path.relpath(folder, root) for folder in folders}
        self._own: list[Patterns] = []
        self._includes: list[Includes] = []
        self._asked: Includes | None = None
        self._excluded: Patterns | None = None
        # Most projects have none, and every file of a large one is looked at.
        self._has_patterns = bool(include or exclude)
        if include:
            from stoke.project.patterns import Includes

            self._asked = Includes(include)
            self._includes = [self._asked]
        if exclude:
            from stoke.project.patterns import Patterns

            self._excluded = Patterns(exclude)

    def read_own(self, path: str) -> None:
        """Add the .stokeignore of a folder."""
        from stoke.project.patterns import Includes, read_patterns

        prefix = f"{path}/" if path else ""
        found = read_patterns(f"{self._root}/{prefix}{STOKEIGNORE}", prefix)
        if found is not None:
            self._own.append(found)
            self._has_patterns = True
            if negated := found.negated():
                self._includes.append(Includes(negated, prefix))

    def file(self, path: str, name: str, ignoring: Ignoring) -> str | None:
        """Return why a file is left out, or None."""
        reason = self._first(path, False) if self._has_patterns else None
        if reason is None:
            reason = TOOL_FOLDER if name in _TOOL_FILES else ignoring.file(path)
        if not reason and looks_secret(path):
            named = any(includes.names_secret(path) for includes in self._includes)
            return None if named else SECRET
        return reason or None

    def folder(self, path: str, name: str, ignoring: Ignoring) -> tuple[str | None, Ignoring]:
        """Return why a folder is left out, or None, and the rules inside it."""
        if path in self._stores:
            return STORE, LeftOut(STORE)
        reason = self._first(path, True)
        if reason == "":
            return None, Ignoring()
        if reason is None:
            reason = self._tool_folder(path, name) or ignoring.folder(path)
        return reason, LeftOut(reason) if reason else ignoring

    def is_searched(self, folder: str, reason: str) -> bool:
        """Return whether something in a folder that is left out may be brought in."""
        if reason == STORE:
            return False
        if reason in (TOOL_FOLDER, VENV):
            return any(includes.names_folder(folder) for includes in self._includes)
        return any(includes.may_have_below(folder) for includes in self._includes)

    def _first(self, path: str, is_folder: bool) -> str | None:
        """Return why a pattern of ours leaves a path out, "" if one brings it in, or None."""
        if self._asked is not None and self._asked.has(path, is_folder):
            return ""
        if self._excluded is not None and self._excluded.verdict(path, is_folder):
            return OPTION
        verdict = _last(self._own, path, is_folder) if self._own else None
        return None if verdict is None else STOKEIGNORE if verdict else ""

    def _tool_folder(self, path: str, name: str) -> str | None:
        if name in _TOOL_FOLDERS:
            return TOOL_FOLDER
        return VENV if os.path.lexists(f"{self._root}/{path}/pyvenv.cfg") else None


def _last(levels: Sequence[Patterns], path: str, is_folder: bool) -> bool | None:
    for patterns in reversed(levels):
        verdict = patterns.verdict(path, is_folder)
        if verdict is not None:
            return verdict
    return None


def _outer_patterns(folder: str, base: str) -> list[Patterns]:
    """Return the patterns of .git/info/exclude and of git's file for all repositories."""
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    files = [f"{settings}/git/ignore", f"{folder}/.git/info/exclude"]
    present = [file for file in files if os.path.isfile(file)]
    if not present:
        return []
    from stoke.project.patterns import read_patterns

    return [found for file in present if (found := read_patterns(file, base)) is not None]


def _has_file(folder: str) -> bool:
    """Return whether a folder or one inside it has anything but folders."""
    try:
        with os.scandir(folder) as entries:
            return any(
                not entry.is_dir(follow_symlinks=False) or _has_file(entry.path)
                for entry in entries
            )
    except (OSError, RecursionError):
        return True

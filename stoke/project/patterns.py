"""Patterns of files, in the syntax of .gitignore. Only this module imports pathspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from pathspec import GitIgnoreSpec

from stoke.project.secret_names import looks_secret

MAX_PATTERNS = 1 << 20
"""Bytes that are read of a file with patterns."""


class Patterns:
    """The patterns of one file or option. Paths are relative to the project's root.

    `base` is the folder that the patterns are relative to, with a slash at its end, or "" for the root.
    A pattern that is wrong matches nothing, as in git; `check` refuses one.
    """

    def __init__(self, lines: Iterable[str], base: str = "") -> None:
        self._base = len(base)
        self._lines = [line for line in lines if line.strip() and not line.startswith("#")]
        self._spec = _compiled(self._lines)

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Return what the last pattern says that matches: True, or False with a `!`; else None.

        A pattern that matches a folder above the path says nothing about the path.
        """
        path = self._relative(path, is_folder)
        for pattern in reversed(self._spec.patterns):
            if pattern.regex is not None and _matches(pattern.regex, path):
                return pattern.include
        return None

    def covers(self, path: str, is_folder: bool) -> bool:
        """Return whether the patterns match the path or a folder above it."""
        return bool(self._spec.check_file(self._relative(path, is_folder)).include)

    def _relative(self, path: str, is_folder: bool) -> str:
        path = _bytewise(path[self._base :])
        return f"{path}/" if is_folder else path

    def negated(self) -> list[str]:
        """Return the patterns that begin with `!`, without it."""
        return [line[1:] for line in self._lines if line.startswith("!")]


class Includes:
    """Patterns of files that travel although a rule would leave them out."""

    def __init__(self, lines: Iterable[str], base: str = "") -> None:
        self._base = base
        self._patterns = [(line, Patterns([line], base)) for line in lines]

    def has(self, path: str, is_folder: bool) -> bool:
        return any(patterns.covers(path, is_folder) for _, patterns in self._patterns)

    def names_secret(self, path: str) -> bool:
        """Return whether a matching pattern itself looks like the name of a secret.

        `*` and `certs/` match secrets, too, but probably not on purpose.
        """
        return any(
            looks_secret(line.strip().strip("/")) and patterns.covers(path, False)
            for line, patterns in self._patterns
        )

    def may_have_below(self, folder: str) -> bool:
        """Return whether a pattern could match something inside a folder."""
        inner = f"{folder}/"
        if not inner.startswith(self._base):
            return self._base.startswith(inner)
        names = inner[len(self._base) :].rstrip("/").split("/")
        return any(_reaches(line, names) for line, _ in self._patterns)

    def names_folder(self, folder: str) -> bool:
        """Return whether a pattern names this folder, or something inside it, from the base on."""
        if not f"{folder}/".startswith(self._base):
            return False
        names = folder[len(self._base) :].split("/")
        return any(
            _parts(line)[: len(names)] == names or line.strip("/") == names[-1]
            for line, _ in self._patterns
        )


def check(lines: Iterable[str]) -> None:
    """Raise `ValueError` for a pattern that is wrong."""
    for line in lines:
        if not line.strip("/ "):
            raise ValueError("is empty")
        try:
            GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error):
            raise ValueError(f"{line!r} is not a pattern of .gitignore") from None


def read_patterns(path: str, base: str = "") -> Patterns | None:
    """Return the patterns in a file; None if it cannot be read or is no regular file."""
    from stoke.remote.common.files import read_regular

    try:
        data = read_regular(path, MAX_PATTERNS)
    except OSError:
        return None
    return None if data is None else Patterns(os.fsdecode(data).splitlines(), base)


def _matches(pattern: re.Pattern[str], path: str) -> bool:
    """Return whether the pattern matches the path itself: pathspec marks the slash behind a folder."""
    marks = "ps_d" in pattern.groupindex
    return any(
        not marks or found.start("ps_d") in (-1, len(path) - 1) for found in pattern.finditer(path)
    )


def _bytewise(text: str) -> str:
    """Return a text with a character for each byte: in git, `?` matches one byte."""
    return text if text.isascii() else os.fsencode(text).decode("ascii", "surrogateescape")


def _as_git_reads(line: str) -> str:
    """Return a pattern that pathspec reads as git does.

    To git, `a/**/` is each folder inside `a`, and `a/**` everything inside; to pathspec, the first has
    files too, and the second has `a` itself.
    """
    if line.endswith("**/"):
        return f"{line}*/"
    return f"{line}/*" if line.endswith("/**") else line


def _compiled(lines: list[str]) -> GitIgnoreSpec:
    lines = [_as_git_reads(_bytewise(line)) for line in lines]
    try:
        return GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error):
        return GitIgnoreSpec.from_lines(line for line in lines if _is_valid(line))


def _is_valid(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True


def _parts(line: str) -> list[str]:
    return line.strip().strip("/").split("/")


def _reaches(line: str, names: list[str]) -> bool:
    parts = _parts(line)
    if len(parts) == 1 and not line.startswith("/"):
        return True  # It matches in any folder.
    for part, name in zip(parts, names, strict=False):
        if part == "**":
            return True
        if not fnmatchcase(name, part):
            return False
    return True

"""List what of a project travels, without reading its files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stoke.errors import RequestError
from stoke.project import contents
from stoke.project.root import check_root
from stoke.project.rules import NOT_IMPORTED, SECRET, Ignoring, OnlyImports, Rules, rules_of
from stoke.project.walk import SPECIAL, Walk, largest, walk
from stoke.request.source_code import declared_encoding, decode_code
from stoke.request.spec import Project
from stoke.text.units import human_bytes

MOST_NAMED = 3


class TooLargeError(RequestError):
    """The files of a project are more, or larger, than may travel. `summary` is the short error."""

    def __init__(self, why: str, hint: str | None, summary: str) -> None:
        super().__init__("project", why, hint)
        self.summary = summary


@dataclass(frozen=True)
class ProjectListing:
    """What travels, by paths relative to the root.

    `virtual` has contents that are in no file of the root, or that replace one's. `links` are symbolic
    links with their targets, `folders` those with nothing in them. `left_out` has each file or folder
    that does not travel, with the reason.
    """

    files: tuple[tuple[str, os.stat_result], ...]
    virtual: Mapping[str, bytes]
    links: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    def sizes(self) -> list[tuple[str, int]]:
        """Return each file that travels, with its bytes."""
        sizes = [(path, status.st_size) for path, status in self.files if path not in self.virtual]
        return sizes + [(path, len(data)) for path, data in self.virtual.items()]

    def check_size(self, limit: int) -> None:
        """Raise `TooLargeError` if all files together have more bytes than the limit."""
        sizes = self.sizes()
        total = sum(size for _, size in sizes)
        if total <= limit:
            return
        top = largest(sizes, MOST_NAMED)
        large = [one for one in top if one[1] * 100 >= total] or top[:1]
        named = ", ".join(f"{path} {human_bytes(size)}" for path, size in large)
        raise TooLargeError(
            f"its {len(sizes):,} files take {human_bytes(total)}, and the limit is "
            f"{human_bytes(limit)}; the largest: {named}",
            f"leave out what the job does not need: {contents.exclude_option(top[0][0])}; or raise the "
            f"limit: export STOKE_PROJECT__MAX_SIZE={_rounded_up(total)}; or send no files: "
            "--no-folder",
            f"{len(sizes):,} files with {human_bytes(total)}",
        )

    def notes(self) -> list[tuple[str, str]]:
        """Return what the user has to know about what is left out, each with a hint."""
        notes = []
        secrets = [path for path, reason in self.left_out if reason == SECRET]
        if secrets:
            what = (
                "1 file that looks like a secret was"
                if len(secrets) == 1
                else f"{len(secrets)} files that look like secrets were"
            )
            option = f"--include {shlex.quote(contents.pattern_of(secrets[0]))}"
            notes.append(
                (f"{what} left out: {shown_paths(secrets)}", f"include it by its name: {option}")
            )
        special = [path for path, reason in self.left_out if reason == SPECIAL]
        if special:
            options = " ".join(map(contents.exclude_option, special[:MOST_NAMED]))
            notes.append(
                (
                    f"pipes, sockets and devices do not travel: {shown_paths(special)}",
                    f"leave them out without this note: {options}",
                )
            )
        return notes


def list_project(
    project: Project,
    code: str,
    extra_files: Mapping[str, bytes] | None = None,
    most: int | None = None,
    step: Callable[[int], object] = lambda files: None,
) -> ProjectListing:
    """List what of a project would travel now.

    The script has the content `code`, whatever its file has. `extra_files` has further contents by
    path, which win over files. `step` is as in `walk`.

    Raises `RequestError` for a folder that is gone or cannot be read, and for links that lead outside;
    `TooLargeError` for more than `most` files.
    """
    if not os.path.isdir(project.root):
        raise RequestError(
            "project",
            f"the folder {project.root} does not exist",
            "name the folder as root in the request's project, or set project to null",
        )
    if not project.imports_only:
        check_root(os.path.realpath(project.root), "project")
    _check_patterns(project)

    def count(files: int) -> None:
        if most is not None and files > most:
            summary = f"more than {most:,} files"
            raise TooLargeError(f"has {summary}", None, summary)
        step(files)

    found = _walk(project, code, count)
    _refuse(found)
    virtual = dict(extra_files or {})
    script = _script_content(project, code)
    if script is not None and project.script is not None:
        virtual[project.script] = script
    links = tuple((path, target) for path, target in found.links if path not in virtual)
    paths = [path for path, _ in (*found.files, *links)] + list(virtual)
    return ProjectListing(
        tuple(found.files),
        virtual,
        links,
        tuple(_empty_folders(found.empty, project.directory, paths)),
        tuple(sorted(one for one in found.left_out if one[1] != NOT_IMPORTED)),
    )


def shown_paths(paths: list[str]) -> str:
    """Return the first of these paths for people, and the number of the others."""
    more = len(paths) - MOST_NAMED
    return ", ".join(paths[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _walk(project: Project, code: str, step: Callable[[int], object]) -> Walk:
    """Return what the rules let travel, and the script in any case."""
    root, script = project.root, project.script
    rules = Rules(root, project.include, project.exclude)
    ignoring: Ignoring
    if project.imports_only:
        ignoring = OnlyImports(_imported(root, script, code) if script else ())
    else:
        ignoring = rules_of(root)
    found = walk(root, rules, ignoring, step)
    if script and not any(path == script for path, _ in found.files):
        # The user runs this file, so it is needed whatever ignores it, and so is what it imports.
        folder, _, name = script.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        needed = {prefix + one for one in _imported(f"{root}/{folder}", name, code)}
        patterns = sorted(contents.pattern_of(name) for name in needed)
        only = walk(root, Rules(root, patterns, ()), OnlyImports(()))
        have = {path for path, _ in found.files}
        found.files += [one for one in only.files if one[0] not in have]
        found.left_out = [one for one in found.left_out if one[0] != script]
    return found


def _imported(folder: str, script: str, code: str) -> set[str]:
    from stoke.project.local_modules import local_modules

    return {script, *local_modules(folder, script, code)}


def _check_patterns(project: Project) -> None:
    for field in ("include", "exclude"):
        lines: Sequence[str] = getattr(project, field)
        if not lines:
            continue
        from stoke.project.patterns import check

        try:
            check(lines)
        except ValueError as error:
            raise RequestError(
                field, str(error), f"write it as in .gitignore: --{field} 'data/*.csv'"
            ) from None


def _script_content(project: Project, code: str) -> bytes | None:
    """Return the content that the script gets in place of its file's; None if the file has it."""
    if project.script is None:
        return None
    data = code.encode(declared_encoding(code))
    try:
        with open(f"{project.root}/{project.script}", "rb") as file:
            present = file.read()
        if present == data or decode_code(present, project.script) == code:
            return None
    except (OSError, RequestError):
        pass
    return data


def _refuse(found: Walk) -> None:
    if found.unreadable:
        path, error = found.unreadable[0]
        raise contents.unreadable(path, error, len(found.unreadable) - 1)
    if found.outside:
        path, target = found.outside[0]
        others = shown_paths([path for path, _ in found.outside[1:]])
        raise RequestError(
            "project",
            f"the link {path} leads outside of the project, to {target}"
            + (f"; so do {others}" if others else ""),
            f"leave it out: {contents.exclude_option(path)}",
        )


def _empty_folders(empty: Iterable[str], directory: str, paths: Iterable[str]) -> list[str]:
    """Return the empty folders of the snapshot, with the working directory if nothing is in it."""
    filled: set[str] = set()
    for path in paths:
        above = path.rpartition("/")[0]
        while above and above not in filled:
            filled.add(above)
            above = above.rpartition("/")[0]
    folders = {folder for folder in empty if folder not in filled}
    if directory not in (".", *filled):
        folders.add(directory)
    return sorted(folders)


def _rounded_up(size: int) -> str:
    mebibytes = -(-size // 1024**2)
    return f"{mebibytes}m" if mebibytes < 10 * 1024 else f"{-(-mebibytes // 1024)}g"

"""The packages of a project that stay source: the project itself, workspace members, path sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from stoke.files.paths import is_world_writable
from stoke.project.lockfile import uv_command
from stoke.project.pyproject import (
    Pyproject,
    extra_of,
    normalized,
    read_data,
    read_pyproject,
    shown,
)
from stoke.request.requirement import NAME, canonical_name

_HEAD = re.compile(rf"[ \t]*({NAME})[ \t]*(?:\[([^\]]*)\])?")


def workspace_root(folder: str) -> str | None:
    """Return the root of the uv workspace that has the project in `folder` as a member.

    Only folders above it are looked at, up to the home folder; None if it is in no workspace. One that
    every user can write to, such as /tmp, is none: another user could put a pyproject.toml there.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    above = os.path.dirname(folder)
    while above not in ("/", home):
        if os.path.lexists(os.path.join(above, "pyproject.toml")) and not is_world_writable(above):
            pyproject = read_pyproject(above)
            if pyproject and folder in member_folders(pyproject):
                return above
        above = os.path.dirname(above)
    return None


def member_folders(root: Pyproject) -> list[str]:
    """Return the folders of the workspace's members, without that of its root."""
    workspace = "tool", "uv", "workspace"
    if not root.table(*workspace):
        return []
    import glob

    found: dict[str, None] = {}
    for pattern in root.texts(*workspace, "members"):
        for name in sorted(glob.glob(pattern, root_dir=root.folder)):
            folder = os.path.normpath(os.path.join(root.folder, name))
            if os.path.isfile(os.path.join(folder, "pyproject.toml")):
                found[folder] = None
    for pattern in root.texts(*workspace, "exclude"):
        for name in glob.glob(pattern, root_dir=root.folder):
            found.pop(os.path.normpath(os.path.join(root.folder, name)), None)
    found.pop(root.folder, None)
    return list(found)


class LocalPackages(NamedTuple):
    """What a project needs: packages of its own folder, and requirements for the index."""

    packages: list[Pyproject]
    """The project and the packages that it uses from source, each once."""
    requirements: list[str]
    """All other requirements; those with a git or url source are addresses."""
    sources: dict[str, Any]
    """Package to the index that it comes from, as `tool.uv.sources` has it."""
    unnamed: list[str]
    """Folders of the project that are path sources and have no pyproject.toml with a name."""


class LocalSearch:
    """Follows the requirements of a project through its workspace and its path sources."""

    def __init__(self, root: Pyproject, locked: bool) -> None:
        """`locked`: whether a lockfile has the dependencies that only build backends know."""
        self._root = root
        self._locked = locked
        self._real_root = os.path.realpath(root.folder)
        self.members = member_folders(root)
        self._read: dict[str, Pyproject | None] = {root.folder: root}
        self._done: set[tuple[str, str]] = set()
        self.found = LocalPackages([], [], {}, [])

    def pyproject(self, folder: str) -> Pyproject | None:
        if folder not in self._read:
            self._read[folder] = read_pyproject(folder)
        return self._read[folder]

    def add(self, package: Pyproject, requirements: Iterable[str]) -> None:
        """Add a package with these of its requirements, and what they need in turn."""
        if package not in self.found.packages:
            self.found.packages.append(package)
        for text in requirements:
            self._add_requirement(package, text)

    def _add_requirement(self, package: Pyproject, text: str) -> None:
        head = _HEAD.match(text)
        if head is None:
            self.found.requirements.append(text)
            return
        name = normalized(head[1])
        if package.name is not None and name == normalized(package.name):
            self._add_package(package, _extras(head))
            return
        sources = self._sources(package, name)
        if not sources:
            if text not in self.found.requirements:
                self.found.requirements.append(text)
            return
        for declared, source in sources:
            self._add_source(text, head, declared, source)

    def _sources(self, package: Pyproject, name: str) -> list[tuple[Pyproject, Mapping[str, Any]]]:
        """Return the sources of a package, each with the pyproject.toml that declares it.

        A member's own sources come before those of the workspace's root.
        """
        for declared in (package, self._root):
            for key, value in declared.table("tool", "uv", "sources").items():
                if normalized(key) == name:
                    every = value if isinstance(value, list) else [value]
                    return [(declared, one) for one in every if isinstance(one, Mapping)]
        return []

    def _add_source(
        self, text: str, head: re.Match[str], declared: Pyproject, source: Mapping[str, Any]
    ) -> None:
        name, extras = normalized(head[1]), _extras(head)
        if source.get("workspace"):
            member = self._member(name)
            if member is None:
                raise declared.error(
                    f"tool.uv.sources names {head[1]} as a member of the workspace, and "
                    f"{shown(self._root.file)} has no such member"
                )
            self._add_package(member, extras)
        elif "path" in source:
            self._add_path(declared, head[1], extras, source)
        elif "git" in source or "url" in source:
            requirement = _as_address(text, head, source)
            if requirement not in self.found.requirements:
                self.found.requirements.append(requirement)
        else:
            if text not in self.found.requirements:
                self.found.requirements.append(text)
            if "index" in source:
                self.found.sources[canonical_name(text)] = dict(source)

    def _member(self, name: str) -> Pyproject | None:
        # A folder usually has its package's name: then no other member is read.
        folders = sorted(self.members, key=lambda one: normalized(os.path.basename(one)) != name)
        for folder in (*folders, self._root.folder):
            found = self.pyproject(folder)
            if found and found.name is not None and normalized(found.name) == name:
                return found
        return None

    def _add_path(
        self, declared: Pyproject, name: str, extras: list[str], source: Mapping[str, Any]
    ) -> None:
        path = os.path.normpath(os.path.join(declared.folder, str(source["path"])))
        if not _is_inside(os.path.realpath(path), self._real_root):
            raise declared.error(
                f"{name} comes from {shown(path)}, which is outside the project's folder "
                f"{self._root.folder} and does not travel with it",
                "make one workspace of both (tool.uv.workspace in a folder above them), or take it "
                "from an index or from git",
            )
        if os.path.isfile(path):
            raise declared.error(
                f"{name} comes from {shown(path)}, a file from which a job cannot install",
                "take it from an index, from an address, or from a folder of the project",
            )
        package = self.pyproject(path)
        if package is not None and package.name is not None:
            self._add_package(package, extras)
        elif os.path.isdir(path):
            if path not in self.found.unnamed:
                self.found.unnamed.append(path)
        else:
            raise declared.error(f"{name} comes from {shown(path)}, and there is no such folder")

    def _add_package(self, package: Pyproject, extras: list[str]) -> None:
        for extra in ("", *extras):
            if (package.folder, extra) in self._done:
                continue
            self._done.add((package.folder, extra))
            if extra:
                # An extra that is not there is a warning in uv, too.
                self.add(package, extra_of(package, extra) or ())
            else:
                self.add(package, self.dependencies(package))

    def dependencies(self, package: Pyproject) -> list[str]:
        """Return a package's own dependencies. Raises `RequestError` where nothing here has them."""
        is_dynamic = "dependencies" in package.dynamic
        return [] if is_dynamic and self._locked else dependencies_of(package)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the folder and the content of every pyproject.toml that decides the lockfile."""
        used = {package.folder: package.data for package in self.found.packages}
        yield from used.items()
        for folder in (self._root.folder, *self.members):
            if folder in used:
                continue
            # Parsing the members that are not used would take most of the time.
            read = self._read.get(folder)
            yield folder, read.data if read else read_data(folder) or b""


def dependencies_of(package: Pyproject) -> list[str]:
    """Return a package's dependencies, those that setuptools reads from files included.

    Raises `RequestError` where only the build backend knows them.
    """
    if "dependencies" not in package.dynamic:
        return package.texts("project", "dependencies")
    files = package.table("tool", "setuptools", "dynamic", "dependencies").get("file", [])
    files = [files] if isinstance(files, str) else files
    if not files or not isinstance(files, list):
        raise package.error(
            f"the dependencies are dynamic, and only {package.backend} knows them",
            f"lock them: {uv_command('lock', package)}",
        )
    from stoke.request.requirements_files import read_requirements
    from stoke.request.requirements_text import parse_requirements

    text = read_requirements([os.path.join(package.folder, str(file)) for file in files])
    return [entry.text for entry in parse_requirements(text.requirements).requirements]


def _as_address(text: str, head: re.Match[str], source: Mapping[str, Any]) -> str:
    """Return a requirement with the address of its source in place of its version."""
    url = str(source.get("git") or source["url"])
    if "git" in source:
        url = url if url.startswith("git+") else f"git+{url}"
        revision = source.get("rev") or source.get("tag") or source.get("branch")
        url += f"@{revision}" if revision else ""
    if folder := source.get("subdirectory"):
        url += f"#subdirectory={folder}"
    markers = [text.partition(";")[2].strip(), str(source.get("marker", ""))]
    marker = " and ".join(f"({one})" for one in markers if one)
    extras = f"[{head[2]}]" if head[2] else ""
    return f"{head[1]}{extras} @ {url}" + (f" ; {marker}" if marker else "")


def _extras(head: re.Match[str]) -> list[str]:
    return re.findall(NAME, head[2] or "")


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")

"""What a project's own files ask for: packages, a Python, and how the project is imported.

`uv run` decides how: dependencies of the current project and its default groups, the lockfile if there
is one, workspace members and path sources from source.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stoke.errors import RequestError
from stoke.project.choices import NO_CHOICE, ProjectEnvironment, ProjectOptions
from stoke.project.installation import PROGRAMS, SITE, is_installed, scripts_of, virtual_files
from stoke.project.lockfile import (
    PYLOCK,
    PinnedPackages,
    export_uv_lock,
    has_lockfile,
    has_uv_lock,
    pinned_packages,
    uv_command,
)
from stoke.project.pyproject import (
    Pyproject,
    default_groups,
    extra_of,
    group_of,
    normalized,
    python_of,
    read_pyproject,
    shown,
)
from stoke.project.source_layout import has_extension_modules, import_folders
from stoke.project.uv_workspace import LocalPackages, LocalSearch
from stoke.project.version import UNKNOWN, version_of
from stoke.request.requirement import names

# A lockfile has decided these; the installation must not depend on them.
_RESOLUTION = frozenset(
    [
        "constraint-dependencies", "dependency-metadata", "exclude-dependencies", "exclude-newer",
        "exclude-newer-package", "fork-strategy", "no-deps", "no-sources", "no-sources-package",
        "override-dependencies", "prerelease", "prerelease-package", "resolution",
    ]
)  # fmt: skip


def project_environment(
    root: str,
    folder: str,
    options: ProjectOptions = NO_CHOICE,
    requested: tuple[str, ...] = (),
) -> ProjectEnvironment:
    """Return what the project in `folder`, which is `root` or below it, adds to a request.

    `requested` are the request's own requirements: a project that one of them names is installed as
    asked and not imported from source. Both folders are absolute. Raises `RequestError` for a file that
    is wrong, a lockfile that does not match, and a dependency that does not travel.
    """
    project = read_pyproject(folder)
    if project is None or not (project.project or project.table("dependency-groups")):
        if options.choose:
            raise RequestError(
                options.field,
                f"there is no pyproject.toml with such names in {shown(folder)}",
            )
        return ProjectEnvironment(notes=tuple(_unread(root, project)))
    top = project if folder == root else (read_pyproject(root) or project)
    search = LocalSearch(top, locked=has_lockfile(root))
    search.add(project, _chosen(project, search, options))
    local = search.found
    lock = _locked(root, project, search, options)
    notes = [lock.note] if lock and lock.note else []
    installed = set(names(requested))
    packages = [
        one
        for one in local.packages
        if is_installed(one) and normalized(one.name or "") not in installed
    ]
    files, import_path, programs = _source(root, packages, local.unnamed)
    for package in packages:
        notes += _missing(package)
    uv, uv_file = _settings(top, local, locked=lock is not None)
    if lock is None and not local.requirements:
        notes += _unread(root, project)
    return ProjectEnvironment(
        dependencies=tuple(local.requirements) if lock is None else (),
        requirements=lock.text if lock else "",
        locked=lock is not None and lock.locked,
        python=python_of(project, top),
        import_path=tuple(import_path),
        programs=programs,
        compiled=tuple(_compiled(root, packages)),
        extra_files=files,
        uv=uv,
        uv_file=uv_file,
        notes=tuple(notes),
    )


def _chosen(project: Pyproject, search: LocalSearch, options: ProjectOptions) -> list[str]:
    """Return the project's requirements with those of the chosen extras and groups."""
    found = search.dependencies(project) if project.project else []
    for extra in options.extras:
        requirements = extra_of(project, extra)
        if requirements is None:
            known = project.table("project", "optional-dependencies")
            raise _no_such(project, "extra", extra, list(known))
        found = found + requirements
    for group in _groups(project, options):
        requirements = group_of(project, group)
        if requirements is None:
            raise _no_such(project, "group", group, list(project.table("dependency-groups")))
        found = found + requirements
    return found


def _groups(project: Pyproject, options: ProjectOptions) -> list[str]:
    groups = [*default_groups(project), *options.groups]
    if not options.dev:
        groups = [group for group in groups if normalized(group) != "dev"]
    return list(dict.fromkeys(groups))


def _no_such(project: Pyproject, kind: str, name: str, known: list[str]) -> RequestError:
    there = f"it has {', '.join(known)}" if known else "it has none"
    return RequestError(kind, f"{shown(project.file)} has no {kind} {name!r}; {there}")


def _locked(
    root: str, project: Pyproject, search: LocalSearch, options: ProjectOptions
) -> PinnedPackages | None:
    """Return what the project's lockfile pins; None without a lockfile."""
    if has_uv_lock(root):
        words = [f"--group={name}" for name in options.groups]
        words += [f"--extra={name}" for name in options.extras]
        words += [] if options.dev else ["--no-dev"]
        return export_uv_lock(root, project, search.files(), words)
    path = os.path.join(root, PYLOCK)
    if not has_lockfile(root):
        return None
    if options.choose:
        raise RequestError(
            options.field,
            f"{shown(path)} is locked without a choice of groups and extras",
            f"remove the option, or use uv.lock in its place: {uv_command('lock', project)}",
        )
    from stoke.request.input_files import MIB, read_input
    from stoke.request.pylock import requirements_of

    data = read_input(path, 64 * MIB)
    return pinned_packages(requirements_of(data.decode(errors="replace"), shown(path), root))


def _source(
    root: str, packages: Sequence[Pyproject], unnamed: Iterable[str]
) -> tuple[dict[str, bytes], list[str], tuple[str, ...]]:
    """Return the virtual files, the import path and the program folders. `unnamed` are folders with
    modules of no package."""
    files: dict[str, bytes] = {}
    path: list[str] = []
    has_programs = False
    for package in packages:
        for name, data in virtual_files(package, root).items():
            files.setdefault(name, data)
        path += [
            os.path.relpath(os.path.join(package.folder, one), root)
            for one in import_folders(package)
        ]
        has_programs = has_programs or bool(scripts_of(package))
    path += [os.path.relpath(folder, root) for folder in unnamed]
    if files:
        # First: an egg-info from an earlier installation must not hide it.
        path.insert(0, SITE)
    return files, list(dict.fromkeys(path)), (PROGRAMS,) if has_programs else ()


def _compiled(root: str, packages: Iterable[Pyproject]) -> Iterator[tuple[str, str]]:
    for package in packages:
        if has_extension_modules(package):
            place = os.path.join(package.folder, import_folders(package)[0])
            yield os.path.relpath(package.folder, root), os.path.relpath(place, root)


def _missing(package: Pyproject) -> list[str]:
    if version_of(package) is not None:
        return []
    return [
        f"the version of {package.name} is unknown, because its build backend computes it: the job "
        f"sees {UNKNOWN}"
    ]


def _unread(root: str, project: Pyproject | None) -> list[str]:
    """Name the requirements of a project that are not used, with the option that uses them."""
    if project is not None and project.table("tool", "poetry") and not project.project:
        return [
            "the packages in [tool.poetry] are not used; export them: poetry export --format "
            "requirements.txt --output requirements.lock; then: --lock requirements.lock"
        ]
    return unused_requirements(root)


def unused_requirements(folder: str) -> list[str]:
    """Return a note that proposes the requirements.txt of a folder, if there is one."""
    path = os.path.join(folder, "requirements.txt")
    if not os.path.isfile(path):
        return []
    return [
        f"{shown(path)} is not used; have its packages installed: -r {shlex.quote(shown(path))}"
    ]


def _settings(top: Pyproject, local: LocalPackages, locked: bool) -> tuple[dict[str, Any], str]:
    """Return uv's settings of the workspace's root that apply, and the file that they are in."""
    path = os.path.join(top.folder, "uv.toml")
    table = dict(top.table("tool", "uv"))
    file = top.file
    if os.path.isfile(path):
        from pathlib import Path

        from stoke.files.untrusted import read_toml

        try:
            table, file = read_toml(Path(path)), path
        except (OSError, ValueError) as error:
            raise RequestError(shown(path), f"cannot be read: {error}") from None
    if locked:
        table = {name: value for name, value in table.items() if name not in _RESOLUTION}
    table.pop("sources", None)
    if local.sources and not locked:
        table["sources"] = local.sources
    return table, file

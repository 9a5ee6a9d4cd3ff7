"""Read the pyproject.toml of a project and of the packages beside it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stoke.errors import RequestError
from stoke.request.requirement import NAME, RequirementError, check_bounds

FILE = "pyproject.toml"
_LONGEST = 1 << 20
_PINNED = re.compile(r"\d+(\.\d+){0,2}")


class Pyproject(NamedTuple):
    """One pyproject.toml. The tables are as its author wrote them; the accessors check them."""

    folder: str
    """Absolute."""
    data: bytes
    tables: Mapping[str, Any]

    @property
    def file(self) -> str:
        return os.path.join(self.folder, FILE)

    @property
    def project(self) -> Mapping[str, Any]:
        return self.table("project")

    @property
    def name(self) -> str | None:
        """The name in [project]; None without that table."""
        name = self.project.get("name")
        return name if isinstance(name, str) and re.fullmatch(NAME, name) else None

    @property
    def dynamic(self) -> list[str]:
        """The fields of [project] that the build backend computes."""
        return self.texts("project", "dynamic")

    @property
    def backend(self) -> str:
        """The build backend: "" where none is declared, and a PEP 517 name otherwise."""
        if "build-system" not in self.tables:
            return ""
        backend = self.table("build-system").get("build-backend", "setuptools.build_meta")
        return backend if isinstance(backend, str) else ""

    def table(self, *keys: str) -> Mapping[str, Any]:
        """Return a table by its keys; an empty one where there is none."""
        found: Any = self.tables
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def texts(self, *keys: str) -> list[str]:
        """Return a list of texts by its keys, empty where there is none.

        Raises `RequestError` for anything else.
        """
        found = self.table(*keys[:-1]).get(keys[-1], [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.error(f"{'.'.join(keys)} must be a list of texts")
        return found

    def pairs(self, *keys: str) -> dict[str, str]:
        """Return a table of texts. Raises `RequestError` for anything else."""
        found = self.table(*keys)
        for name, value in found.items():
            if not isinstance(value, str):
                raise self.error(f"{'.'.join(keys)}.{name} must be text")
        return dict(found)

    def error(self, why: str, hint: str | None = None) -> RequestError:
        return RequestError(shown(self.file), why, hint)


def read_pyproject(folder: str) -> Pyproject | None:
    """Return the pyproject.toml in a folder, None without one.

    Raises `RequestError` if it cannot be read or is not TOML.
    """
    from stoke.files.untrusted import parse_toml

    data = read_data(folder)
    if data is None:
        return None
    try:
        return Pyproject(folder, data, parse_toml(data.decode().replace("\r\n", "\n")))
    except ValueError as error:
        path = shown(os.path.join(folder, FILE))
        raise RequestError(path, f"is not TOML: {error}") from None


def read_data(folder: str) -> bytes | None:
    """Return the content of the pyproject.toml in a folder, None without one.

    Raises `RequestError` if it cannot be read: a pipe or a device has no end.
    """
    path = os.path.join(folder, FILE)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RequestError(shown(path), "is no regular file")
            data = file.read(_LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RequestError(shown(path), f"cannot be read: {error.strerror}") from None
    if len(data) > _LONGEST:
        raise RequestError(shown(path), f"is longer than {_LONGEST // 1024**2} MiB")
    return data


def shown(path: str) -> str:
    """Return a path as messages name it: relative to the working folder if it is in there."""
    try:
        relative = os.path.relpath(path)
    except OSError:  # The working folder was removed.
        return path
    return path if relative.startswith("..") else relative


def python_of(project: Pyproject, top: Pyproject) -> str | None:
    """Return the Python that a project asks for: a pinned .python-version, else its bounds, else those
    of `top`, the root of its workspace."""
    for folder in dict.fromkeys((project.folder, top.folder)):
        try:
            with open(os.path.join(folder, ".python-version")) as file:
                lines = [line.strip() for line in file.read(4096).splitlines()]
        except (OSError, ValueError):
            continue
        pinned = next((line for line in lines if line and not line.startswith("#")), "")
        if _PINNED.fullmatch(pinned):
            return pinned
        break  # Another implementation, or a name: the bounds decide.
    return _bounds(project) or _bounds(top)


def _bounds(project: Pyproject) -> str | None:
    bounds = project.project.get("requires-python")
    if bounds is None:
        return None
    if not isinstance(bounds, str):
        raise project.error('requires-python must be text, such as ">=3.11"')
    try:
        check_bounds(bounds, "requires-python")
    except RequirementError as error:
        raise project.error(f"requires-python {error.text!r} {error.why}") from None
    return bounds


def extra_of(project: Pyproject, name: str) -> list[str] | None:
    """Return the requirements of an extra; None if the project has no such extra."""
    extras = project.table("project", "optional-dependencies")
    key = next((one for one in extras if normalized(one) == normalized(name)), None)
    return None if key is None else project.texts("project", "optional-dependencies", key)


def group_of(project: Pyproject, name: str, within: tuple[str, ...] = ()) -> list[str] | None:
    """Return the requirements of a dependency group, with the groups that it includes (PEP 735).

    None if there is no such group. "dev" has those of `tool.uv.dev-dependencies` too.
    """
    groups = project.table("dependency-groups")
    key = next((one for one in groups if normalized(one) == normalized(name)), None)
    found = list(_members(project, groups[key], (*within, name))) if key is not None else []
    older = project.texts("tool", "uv", "dev-dependencies") if normalized(name) == "dev" else []
    return found + older if key is not None or older else None


def _members(project: Pyproject, group: Any, within: tuple[str, ...]) -> Iterator[str]:
    where = f"dependency-groups.{within[-1]}"
    if not isinstance(group, list):
        raise project.error(f"{where} must be a list")
    for one in group:
        if isinstance(one, str):
            yield one
            continue
        included = one.get("include-group") if isinstance(one, Mapping) else None
        if not isinstance(included, str):
            raise project.error(f"{where} holds {str(one)[:80]!r}, which is no requirement")
        if normalized(included) in map(normalized, within):
            raise project.error(f"{where} includes itself by {included}")
        found = group_of(project, included, within)
        if found is None:
            raise project.error(f"{where} includes {included}, and there is no such group")
        yield from found


def default_groups(project: Pyproject) -> list[str]:
    """Return the groups that `uv run` includes when no group is named."""
    named = project.table("tool", "uv").get("default-groups", ["dev"])
    if named == "all":
        return list(project.table("dependency-groups"))
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise project.error('tool.uv.default-groups must be a list of texts, or "all"')
    return [name for name in named if group_of(project, name) is not None]


def normalized(name: str) -> str:
    """Return a package's, extra's or group's name in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()

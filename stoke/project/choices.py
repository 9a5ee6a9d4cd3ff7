"""What a request chooses of its project, and what the project adds to the request.

`stoke.project.environment` finds it out; a request without a project needs none of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class ProjectOptions(NamedTuple):
    """What a request chooses of a project's dependencies, as the options of `uv run` do."""

    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    dev: bool = True
    """Whether the group "dev" is included."""

    @property
    def choose(self) -> bool:
        return bool(self.groups or self.extras or not self.dev)

    @property
    def field(self) -> str:
        """The field of a request that an error about the choice names."""
        return "group" if self.groups else "extra" if self.extras else "no_dev"


NO_CHOICE = ProjectOptions()


class ProjectEnvironment(NamedTuple):
    """What a project adds to a request."""

    dependencies: tuple[str, ...] = ()
    requirements: str = ""
    """The text of the lockfile, as a requirements file; empty without one."""
    locked: bool = False
    """Whether `requirements` is complete and hashed."""
    python: str | None = None
    import_path: tuple[str, ...] = ()
    """Folders, relative to the root."""
    programs: tuple[str, ...] = ()
    """Folders, relative to the root."""
    compiled: tuple[tuple[str, str], ...] = ()
    """Packages whose modules have to be compiled: the folder of each, and the first that it is imported
    from, relative to the root."""
    extra_files: Mapping[str, bytes] = {}
    """Virtual files by their paths in the project; those in `programs` are executable."""
    uv: Mapping[str, Any] = {}
    """The tables of uv's settings that apply to the request, unchecked."""
    uv_file: str = ""
    """The file that `uv` is from."""
    notes: tuple[str, ...] = ()
    """For the user: what of the project is not as an installation would have it."""
    asked: Mapping[str, Any] | None = None
    """What the request says itself, as the JSON of `stoke.request.spec.ProjectPackages`."""

    @property
    def in_project(self) -> dict[str, Any]:
        """The fields of `stoke.request.spec.Project` that the environment decides."""
        return {
            "import_path": self.import_path,
            "programs": self.programs,
            "compiled": self.compiled,
            "asked": self.asked,
        }

    @property
    def settings(self) -> tuple[str, Mapping[str, Any]] | None:
        """uv's settings, and the file that they are from."""
        return (self.uv_file, self.uv) if self.uv else None

    def added_to(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a request with those of the project.

        A request's own lockfile replaces the project's packages, and its own Python the project's. Its
        other packages are resolved together with the project's, whose lockfile keeps its versions.
        """
        changed = dict(fields)
        if self.python is not None and changed.get("python") is None:
            changed["python"] = self.python
        if changed.get("locked"):
            return changed
        own = list(changed.get("dependencies") or ())
        text = changed.get("requirements") or ""
        changed["dependencies"] = [*own, *(one for one in self.dependencies if one not in own)]
        changed["requirements"] = "\n".join(filter(None, (self.requirements, text)))
        alone = not (own or text or (changed.get("constraints") or "").strip())
        if self.locked and alone:
            changed["locked"] = True
        return changed

"""The project of the form: which folder's files travel with the code, and what it adds to the request.

The form has the options `--folder`, `--no-folder`, `--include` and `--exclude` of the commands as
fields, and those that choose packages: `--group`, `--extra` and `--no-dev`. An empty folder is found
from the opened script, as the commands find it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from stoke.errors import RequestError
from stoke.files.paths import current_folder
from stoke.project.choices import ProjectEnvironment, ProjectOptions
from stoke.project.request_additions import with_project
from stoke.project.root import project_of
from stoke.request.fields import Field, Widget
from stoke.request.spec import JobSpec, Project
from stoke.request.values import Flag, Names, Texts, Value
from tui.new_job.draft import Draft


class Patterns(Texts):
    """Patterns of .gitignore, one per line."""

    def from_text(self, field: str, text: str) -> Any:
        return self.from_options(field, [line for line in text.splitlines() if line.strip()])


FOLDER = Field(
    "folder",
    "folder",
    "Folder whose files travel with the code.",
    Value(),
    widget=Widget("none: the code travels alone", folded=False),
)
NO_FOLDER = Field(
    "no_folder",
    "files",
    "Send the code only, and none of its files.",
    Flag(False, "none"),
    widget=Widget("send no files"),
)
INCLUDE = Field(
    "include",
    "include",
    "Files of the folder that travel although a rule leaves them out.",
    Patterns(),
    widget=Widget("files in spite of a rule: data/a.csv, one per line", lines=3),
)
EXCLUDE = Field(
    "exclude",
    "exclude",
    "Files of the folder that do not travel.",
    Patterns(),
    widget=Widget("files that stay here: /data, one per line", lines=3),
)
RECORDED = Field(
    "recorded",
    "files",
    "Take the files that were submitted with the opened job.",
    Flag(False, "as submitted before"),
    widget=Widget("the files as they were submitted", folded=False),
)
GROUP = Field(
    "group",
    "groups",
    "Dependency groups of the project whose packages are installed too.",
    Names(),
    widget=Widget("dependency groups: docs"),
)
EXTRA = Field(
    "extra",
    "extras",
    "Extras of the project whose packages are installed too.",
    Names(),
    widget=Widget("extras of the project: plot"),
)
NO_DEV = Field(
    "no_dev",
    "dev",
    "Leave out the project's dependency group dev.",
    Flag(False, "left out"),
    widget=Widget("leave out the group dev"),
)
CHOICES = (GROUP, EXTRA, NO_DEV)
_PATTERN = r"""(?:'[^']*'|"[^"]*"|[^\s;,'"])+"""
_OPTION = re.compile(rf"--(include|exclude) {_PATTERN}(?: --\1 {_PATTERN})*|--no-folder\b")
FIELDS = (FOLDER, RECORDED, NO_FOLDER, INCLUDE, EXCLUDE, *CHOICES)


def form_hint(hint: str | None) -> str:
    """Return a hint with the fields of the form in place of the options that they stand for."""

    def field(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "the box in Where and how"
        patterns = [word for word in shlex.split(found[0]) if word != f"--{name}"]
        return f"{', '.join(patterns)} in the field {name}"

    return _OPTION.sub(field, hint or "")


def filled(project: Project | None) -> dict[str, str]:
    """Return the texts of the fields for the project of a request."""
    texts = {field.name: "" for field in FIELDS}
    texts |= {NO_FOLDER.name: "no", RECORDED.name: "no", NO_DEV.name: "no"}
    if project is None:
        return texts
    if project.asked is not None:
        texts[GROUP.name] = GROUP.value.to_text(project.asked.groups)
        texts[EXTRA.name] = EXTRA.value.to_text(project.asked.extras)
        texts[NO_DEV.name] = NO_DEV.value.to_text(not project.asked.dev)
    return {
        **texts,
        FOLDER.name: "" if project.imports_only else project.root,
        INCLUDE.name: "\n".join(project.include),
        EXCLUDE.name: "\n".join(project.exclude),
        RECORDED.name: "yes" if project.digest is not None else "no",
    }


def script_of(spec: JobSpec) -> str:
    """Return the file that the code of a request is from; empty for code that is no file."""
    project = spec.project
    if project is None or project.script is None:
        return ""
    return os.path.join(project.root, project.script)


def has_snapshot(draft: Draft) -> bool:
    """Whether the files of the opened request were recorded when it was submitted, and the form still
    names its folder and script."""
    project = _opened(draft, draft.values.get(FOLDER.name, "").strip())
    return project is not None and project.get("digest") is not None


def project_fields(draft: Draft) -> dict[str, Any] | None:
    """Return the project of the form as the JSON of `stoke.request.spec.Project`; None without one.

    Raises `RequestError` for a wrong folder.
    """
    values = draft.values
    if values.get(NO_FOLDER.name) == "yes":
        return None
    folder = values.get(FOLDER.name, "").strip()
    chosen = {
        field.name: field.value.from_text(field.name, values.get(field.name, ""))
        for field in (INCLUDE, EXCLUDE)
    }
    if (opened := _opened(draft, folder)) is not None:
        patterns = {name: list(opened.get(name, ())) for name in chosen}
        if values.get(RECORDED.name) == "yes" and patterns == chosen:
            return opened
        return {**opened, **chosen, "digest": None, "files": 0, "bytes": 0}
    script = draft.script if draft.code.strip() else ""
    if script and not os.path.isfile(script):
        raise RequestError(
            FOLDER.name,
            f"the code is from {script}, which does not exist",
            "open another file (ctrl+o), or send no files",
        )
    if not (folder or script):
        for name, patterns in chosen.items():
            if patterns:
                raise RequestError(name, "has patterns, and there is no folder", "name the folder")
        return None
    return project_of(
        script or None,
        draft.code,
        folder=os.path.expanduser(folder) or None,
        include=chosen[INCLUDE.name],
        exclude=chosen[EXCLUDE.name],
    )


def add_project(
    fields: Mapping[str, Any], draft: Draft
) -> tuple[dict[str, Any], ProjectEnvironment]:
    """Return the JSON of the form's request with its project, and what the project adds to it.

    An opened request has the packages of its project already, so these are not added again.
    """
    project = project_fields(draft)
    options = _options(draft)
    without = {name: value for name, value in fields.items() if name != "project"}
    folder = draft.values.get(FOLDER.name, "").strip()
    if project is not None and _opened(draft, folder) is not None:
        asked = project.get("asked") or {}
        had = ProjectOptions(
            tuple(asked.get("groups", ())), tuple(asked.get("extras", ())), asked.get("dev", True)
        )
        if options != had:
            raise RequestError(
                (options if options.choose else had).field,
                "cannot be changed in an opened request, which has the packages of its project",
                "start a new draft (f10) and open the script there (ctrl+o)",
            )
        return {**without, "project": project}, ProjectEnvironment()
    if options.choose and (project is None or project["imports_only"]):
        raise RequestError(
            options.field,
            "needs a project: a folder with a pyproject.toml",
            "name the folder, or empty this field",
        )
    if project is None:
        return without, ProjectEnvironment()
    return with_project(without, project, os.path.realpath(current_folder()), options)


def _options(draft: Draft) -> ProjectOptions:
    """Return what the form chooses of the project's packages."""
    texts = {field.name: draft.values.get(field.name, "") for field in CHOICES}
    return ProjectOptions(
        tuple(GROUP.value.from_text(GROUP.name, texts[GROUP.name])),
        tuple(EXTRA.value.from_text(EXTRA.name, texts[EXTRA.name])),
        texts[NO_DEV.name] != "yes",
    )


def _opened(draft: Draft, folder: str) -> dict[str, Any] | None:
    """Return the project of the opened request, while the form names its folder and script."""
    project = draft.rest.get("project")
    if not isinstance(project, dict):
        return None
    root = "" if project.get("imports_only") else project.get("root", "")
    name = project.get("script")
    script = os.path.join(project.get("root", ""), name) if name else ""
    return project if (folder, draft.script) == (root, script) else None

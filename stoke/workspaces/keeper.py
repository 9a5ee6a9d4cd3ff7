"""List, measure, copy, clone, rename and remove the workspaces of any backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stoke.backend.capabilities import KeepsWorkspaces, RenamesWorkspaces
from stoke.errors import EngineError, RequestError
from stoke.files.shapes import ShapeError, checked, is_count, is_time
from stoke.history.workspace_index import WorkspaceIndex
from stoke.request.workspace_name import check_workspace_name
from stoke.workspaces.names import find_workspace

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.backend.capabilities import Workspace
    from stoke.history.database import History

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Copied:
    """What was copied, and what was left out: a line for each, with the path and the reason."""

    files: int
    bytes: int
    problems: tuple[str, ...]


class WorkspaceKeeper:
    """The workspaces of one backend. Their sizes and last uses are in the history.

    Raises `RequestError` for a backend without workspaces.
    """

    def __init__(self, backend: Backend, history: History) -> None:
        if not isinstance(backend, KeepsWorkspaces):
            raise RequestError(
                "backend",
                f"the {backend.name} backend has no workspaces",
                "choose another: -b docker",
            )
        self.engine: KeepsWorkspaces = backend
        self.name = backend.name
        self._index = WorkspaceIndex(history)

    def all(self) -> list[Workspace]:
        """Return every workspace with its records in the history."""
        records = self._index.records(self.name)
        found = []
        for one in self.engine.workspaces():
            record = records.get(one.name)
            used = time.time() if one.in_use_by else record and record.used_at
            if record is not None:
                one = replace(
                    one, bytes=record.bytes, files=record.files, measured_at=record.measured_at
                )
            found.append(replace(one, last_used=used or one.created_at))
        return found

    def find(self, name: str) -> Workspace:
        """Return a workspace by its name; `RequestError` suggests similar names."""
        return find_workspace(name, self.all(), self.name)

    def measure(self, workspace: Workspace, progress: Progress) -> Workspace:
        """Measure a workspace. An exception that `progress` raises ends it."""
        operation = {"kind": "workspace", "do": "usage"}
        shape = {"bytes!": is_count, "files!": is_count, "measured_at!": is_time}
        try:
            usage = checked(self.engine.tend_workspace(workspace, operation, progress), shape)
        except ShapeError as error:
            raise EngineError(f"{workspace.name} was not measured: {error}") from error
        size, files, measured_at = usage["bytes"], usage["files"], usage["measured_at"]
        self._index.record_size(self.name, workspace.name, measured_at, size, files)
        return replace(workspace, bytes=size, files=files, measured_at=measured_at)

    def used(self, workspace: Workspace) -> None:
        """Record that something was copied into a workspace or out of it."""
        self._index.record_use(self.name, workspace.name, time.time())

    def clone(self, workspace: Workspace, new: str, progress: Progress) -> Copied:
        """Copy a workspace into a new one. `RequestError` if that exists already."""
        self._refuse_taken(new)
        result = self.engine.clone_workspace(workspace, new, progress)
        self._index.record_use(self.name, new, time.time())
        return copied(result)

    def rename(self, workspace: Workspace, new: str, progress: Progress) -> None:
        """Give a workspace another name: where the engine cannot, copy it and remove the old one."""
        self.refuse_use(workspace, "renamed")
        self._refuse_taken(new)
        if isinstance(self.engine, RenamesWorkspaces):
            self.engine.rename_workspace(workspace, new)
        else:
            problems = self.clone(workspace, new, progress).problems
            try:
                if problems:
                    raise EngineError(
                        f"{workspace.name} was not renamed, because a part of it cannot be copied: "
                        + problems[0],
                        "remove that first; or copy the rest: stoke workspace clone "
                        f"{workspace.name} {new}",
                    )
                self.engine.remove_workspace(workspace)
            except BaseException:
                self.remove(find_workspace(new, self.engine.workspaces(), self.name))
                raise
        self._index.forget(self.name, workspace.name)
        self._index.record_use(self.name, new, time.time())

    def remove(self, workspace: Workspace) -> None:
        """Remove a workspace. `EngineError` names the jobs that use it."""
        self.refuse_use(workspace, "removed")
        self.engine.remove_workspace(workspace)
        self._index.forget(self.name, workspace.name)

    def refuse_use(self, workspace: Workspace, action: str) -> None:
        if workspace.in_use_by:
            raise in_use(workspace.name, workspace.in_use_by, action)

    def _refuse_taken(self, new: str) -> None:
        try:
            check_workspace_name(new)
        except ValueError as error:
            raise RequestError("workspace", str(error)) from None
        if any(one.name == new for one in self.engine.workspaces()):
            raise RequestError(
                "workspace",
                f"{new} exists already",
                f"remove it first: stoke workspace remove {new}",
            )


def in_use(name: str, jobs: tuple[str, ...], action: str) -> EngineError:
    """Return the error for a workspace that jobs use."""
    return EngineError(
        f"the workspace {name} is in use by {', '.join(jobs)}; it was not {action}",
        f"wait for them, or stop them: stoke stop {' '.join(jobs)}",
    )


def copied(result: dict[str, Any]) -> Copied:
    """Return what a copy reports."""
    try:
        found = checked(result, {"files!": is_count, "bytes!": is_count, "problems!": [str]})
    except ShapeError as error:
        raise EngineError(f"the copy ended without a report: {error}") from error
    return Copied(found["files"], found["bytes"], tuple(found["problems"]))

"""The methods of a backend that keeps workspaces, the same on each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stoke.backend.capabilities import Workspace
    from stoke.request.spec import JobSpec


class EngineWorkspaces(Protocol):
    """The workspaces of one engine; see `stoke.backend.capabilities.KeepsWorkspaces`."""

    def found(self) -> list[Workspace]: ...

    def tend(
        self, workspace: Workspace, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]: ...

    def read(self, workspace: Workspace, path: str, name: str) -> Generator[bytes]: ...

    def write(self, workspace: Workspace, folder: str, archive: Iterator[bytes]) -> list[str]: ...

    def clone(
        self, workspace: Workspace, new: str, progress: Callable[[str], None]
    ) -> dict[str, Any]: ...

    def remove(self, workspace: Workspace) -> None: ...


class WorkspaceMethods:
    """The part of a backend that keeps workspaces: `_workspaces` returns those of its engine."""

    def _workspaces(self) -> EngineWorkspaces:
        raise NotImplementedError

    def workspaces(self) -> list[Workspace]:
        return self._workspaces().found()

    def check_workspace(self, spec: JobSpec) -> None:
        """Accept every job: folders and volumes are never lacking."""

    def tend_workspace(
        self, workspace: Workspace, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        return self._workspaces().tend(workspace, operation, progress)

    def read_workspace(self, workspace: Workspace, path: str, name: str) -> Generator[bytes]:
        return self._workspaces().read(workspace, path, name)

    def write_workspace(
        self, workspace: Workspace, folder: str, archive: Iterator[bytes]
    ) -> list[str]:
        return self._workspaces().write(workspace, folder, archive)

    def clone_workspace(
        self, workspace: Workspace, new: str, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        return self._workspaces().clone(workspace, new, progress)

    def remove_workspace(self, workspace: Workspace) -> None:
        self._workspaces().remove(workspace)

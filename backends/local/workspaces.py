"""The local backend's workspaces: a private folder for each, NAME/files, with a record beside it."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from stoke.backend.capabilities import Workspace
from stoke.errors import EngineError
from stoke.files.paths import make_private
from stoke.files.untrusted import read_json
from stoke.remote.common.archives import Counts, summary
from stoke.remote.common.trees import remove_tree
from stoke.remote.housekeeping.errors import RefusedError
from stoke.remote.housekeeping.workspace_volume import WorkspaceVolume
from stoke.request.workspace_name import check_workspace_name
from stoke.workspaces.keeper import in_use

ABOUT = "about.json"
FILES = "files"


class LocalWorkspaces:
    """Workspaces below one folder. `users_of` returns the running jobs of a workspace."""

    def __init__(self, top: Path, users_of: Callable[[str], list[str]]) -> None:
        self._top = top
        self._users_of = users_of

    def make(self, name: str, scope: str) -> Path:
        """Create the folder of a workspace if needed, and return it."""
        folder = make_private(self._top / name / FILES)
        about = folder.parent / ABOUT
        if not about.exists():
            partly = about.with_name(f"{ABOUT}.{secrets.token_hex(4)}")
            partly.write_text(json.dumps({"scope": scope}))
            partly.replace(about)
        return folder

    def found(self) -> list[Workspace]:
        try:
            names = sorted(os.listdir(self._top))
        except OSError:
            return []
        return [self._workspace(name) for name in names if self._is_one(name)]

    def tend(
        self, workspace: Workspace, operation: Mapping[str, Any], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        volume = WorkspaceVolume(workspace.place, progress)
        try:
            return volume.perform(operation)  # type: ignore[arg-type]
        except RefusedError as error:
            raise EngineError(error.text, error.hint) from error
        except OSError as error:
            raise EngineError(f"{error.filename or workspace.place}: {error.strerror}") from error
        finally:
            volume.close()

    def read(self, workspace: Workspace, path: str, name: str) -> Generator[bytes]:
        volume = WorkspaceVolume(workspace.place)
        try:
            yield from volume.pack(path, name)
        finally:
            volume.close()

    def write(self, workspace: Workspace, folder: str, archive: Iterator[bytes]) -> list[str]:
        volume = WorkspaceVolume(workspace.place)
        try:
            # What packing left out is reported by the side that packs.
            result = volume.unpack(folder, chain(archive, [summary(Counts())]))
        finally:
            volume.close()
        problems: list[str] = result["problems"]
        return problems

    def clone(
        self, workspace: Workspace, new: str, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        folder = self.make(new, workspace.scope)
        try:
            return self.tend(workspace, {"do": "copy", "to": str(folder)}, progress)
        except BaseException:
            self._delete(folder.parent)
            raise

    def rename(self, workspace: Workspace, new: str) -> None:
        aside = self._move_aside(workspace, "renamed")
        try:
            aside.rename(self._top / new)
        except OSError as error:
            aside.rename(self._top / workspace.name)
            raise EngineError(f"cannot rename {workspace.name}: {error.strerror}") from error

    def remove(self, workspace: Workspace) -> None:
        self._delete(self._move_aside(workspace, "removed"))

    def _move_aside(self, workspace: Workspace, action: str) -> Path:
        """Take the folder away from new jobs. `EngineError` if a job uses it by then.

        A job is known to use its workspace before it opens the folder.
        """
        folder = self._top / workspace.name
        aside = self._top / f".{workspace.name}.{secrets.token_hex(4)}"
        folder.rename(aside)
        users = self._users_of(workspace.name)
        if users:
            aside.rename(folder)
            raise in_use(workspace.name, tuple(users), action)
        return aside

    def _delete(self, folder: Path) -> None:
        remove_tree(str(folder))
        if folder.exists():
            raise EngineError(
                f"cannot remove all of {folder}",
                f"remove it: sudo rm -r {shlex.quote(str(folder))}",
            )

    def _is_one(self, name: str) -> bool:
        try:
            return check_workspace_name(name) == name and (self._top / name / FILES).is_dir()
        except (ValueError, OSError):
            return False

    def _workspace(self, name: str) -> Workspace:
        folder = self._top / name
        scope, created_at = "", None
        try:
            created_at = (folder / ABOUT).stat().st_mtime
            about = read_json(folder / ABOUT)
            scope = str(about["scope"])
        except (OSError, ValueError, LookupError, TypeError):
            pass
        users = tuple(self._users_of(name))
        place = str(folder / FILES)
        return Workspace("local", name, place, scope, created_at=created_at, in_use_by=users)

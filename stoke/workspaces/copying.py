"""Copy files between this machine and a workspace, as `cp -r` does.

Links in a workspace are not followed, and those that could lead out of a copy on this machine are left
out, because jobs wrote them.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.errors import EngineError, RequestError
from stoke.remote.common.archives import ArchiveError, Counts, pack, parts_of, unpack
from stoke.workspaces.keeper import Copied, Progress, WorkspaceKeeper, copied

if TYPE_CHECKING:
    from stoke.backend.capabilities import Workspace

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
AGAIN = "copy again: a second copy replaces the files of the first"


def copy_in(
    keeper: WorkspaceKeeper, source: Path, workspace: Workspace, path: str, progress: Progress
) -> Copied:
    """Copy a file or folder of this machine to `path` in a workspace.

    An existing folder gets it under its own name; otherwise `path` is its new name.
    """
    # realpath: the copy of "." or of a link gets the name of the folder or file that it leads to.
    whole = Path(os.path.realpath(source))
    if not whole.name:
        raise RequestError("source", "the root folder cannot be copied; name a folder in it")
    counts = _counts(progress)
    try:
        above = os.open(whole.parent, _FOLDER)
        try:
            os.stat(whole.name, dir_fd=above)
            operation = {"kind": "workspace", "do": "target", "path": path, "name": whole.name}
            parts_of(path)
            target = keeper.engine.tend_workspace(workspace, operation, progress)
            archive = pack(above, whole.name, target["name"], counts)
            problems = keeper.engine.write_workspace(workspace, target["folder"], archive)
        finally:
            os.close(above)
    except ArchiveError as error:
        raise EngineError(f"cannot copy into {workspace.name}: {error}", AGAIN) from error
    except OSError as error:
        raise RequestError("source", f"cannot read {source}: {error.strerror}") from error
    keeper.used(workspace)
    return copied({**counts.as_json(), "problems": [*counts.as_json()["problems"], *problems]})


def copy_out(
    keeper: WorkspaceKeeper, workspace: Workspace, path: str, target: Path, progress: Progress
) -> Copied:
    """Copy a file or folder of a workspace to this machine.

    An existing folder gets it under its own name; otherwise `target` is its new name. Of the whole
    workspace, the contents come into the folder `target`, which is made if it is missing.
    """
    counts = _counts(progress)
    try:
        parts = parts_of(path)
        folder, name = _place(parts, target)
        try:
            with closing(keeper.engine.read_workspace(workspace, path, name)) as archive:
                packed = unpack(folder, archive, counts, any_link=False)
        finally:
            os.close(folder)
        if packed["error"] is not None:
            raise ArchiveError(packed["error"])
    except ArchiveError as error:
        raise EngineError(f"cannot copy out of {workspace.name}: {error}", AGAIN) from error
    keeper.used(workspace)
    mine = counts.as_json()
    return copied({**mine, "problems": [*packed["problems"], *mine["problems"]]})


def _place(parts: list[str], target: Path) -> tuple[int, str]:
    """Return the open folder of this machine that gets the copy, and the name of the copy in it."""
    try:
        if not parts:
            target.mkdir(exist_ok=True)
            return os.open(target, _FOLDER), ""
        if target.is_dir():
            return os.open(target, _FOLDER), parts[-1]
        whole = Path(os.path.abspath(target))
        return os.open(whole.parent, _FOLDER), whole.name
    except OSError as error:
        raise RequestError("target", f"cannot write to {target}: {error.strerror}") from error


def _counts(progress: Progress) -> Counts:
    shown = -1

    def tick(counts: Counts) -> None:
        nonlocal shown
        if counts.bytes >> 20 != shown or not counts.files & 255:
            shown = counts.bytes >> 20
            progress(f"copied {counts.files} files, {shown} MiB")

    return Counts(tick)


def split_place(text: str) -> tuple[str, str] | None:
    """Return the workspace and the path in NAME:PATH; None for a path of this machine.

    As in scp, a name before the first colon that has no slash is a workspace.
    """
    name, colon, path = text.partition(":")
    if not colon or "/" in name or not name:
        return None
    return name, path

"""Notice when files that a job reads are saved."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.errors import EngineError, StokeError

if TYPE_CHECKING:
    from stoke.request.spec import Project

Signature = dict[str, tuple[int, int, int] | str | None]
"""For each watched path: inode, size and time of the last change; None for a missing file and for an
empty folder, the target of a link. A project that cannot be listed has the reason, as ""."""
FIRST_LOOK = 1000
"""Milliseconds from the start of a watch until the files are compared once."""
_NEVER_SENT = frozenset({".git", "__pycache__", "node_modules", ".venv"})
_OF_EDITORS = re.compile(r"(?:^|/)(?:\.#[^/]*|4913|flycheck_[^/]*|[^/]*(?:\.sw.|~|___jb_\w+___))\Z")
"""Files that editors make beside one that is open."""


class Saves:
    """Watches files, and those of a project that travel, on threads; editors may replace a file instead
    of writing it.

    `root` is the project's, until `follow` says more of it. `on_save` is called on a thread.
    """

    def __init__(
        self, paths: Iterable[Path], root: str | None, on_save: Callable[[], object]
    ) -> None:
        self._paths = [Path(os.path.realpath(path.parent)) / path.name for path in paths]
        self._on_save = on_save
        self._changed = threading.Event()
        self._seen: Signature = {}
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._watched: tuple[set[str], str | None] = set(), None
        self._project: tuple[Project, str] | None = None
        if root is not None:
            from stoke.request.spec import Project

            self._project = Project(root=root), ""
        self._seen = self._signature()
        self._start()

    def read(self) -> None:
        """Remember the files as they are now, right before they are read."""
        self._changed.clear()
        self._seen = self._signature()

    def follow(self, project: Project | None, code: str) -> None:
        """Watch the files of this project, right before they are read."""
        new = None if project is None else (project, code)
        if new == self._project:
            return
        self._project = new
        # The files of the command line were read already: what `read` remembered of them counts.
        paths = {path: self._seen.get(path) for path in map(str, self._paths)}
        self._seen = self._signature() | paths
        self._start()

    def wait(self) -> None:
        """Wait until a file is not as it was at the last `read`. `EngineError` if nothing can tell."""
        while self._seen == self._signature():
            self._changed.wait()
            self._changed.clear()
            if self._error is not None:
                raise _unwatched(self._error)

    def close(self) -> None:
        self._stop.set()

    def _start(self) -> None:
        """Start to watch the folders of all files, unless they are watched already."""
        # The folders: a replaced file would take the watch of the old one with it.
        folders = {str(path.parent) for path in self._paths}
        root = None
        if self._project is not None:
            project, _ = self._project
            if project.imports_only:
                # Not recursively: the root may be a home folder.
                paths = (f"{project.root}/{path}" for path in self._seen)
                folders |= {os.path.dirname(path) for path in paths if os.path.isfile(path)}
            else:
                root = project.root
                folders = {one for one in folders if not f"{one}/".startswith(f"{root}/")}
        if (folders, root) == self._watched:
            return
        self._watched = folders, root
        self._stop.set()
        self._stop = threading.Event()
        if folders:
            self._start_thread(folders, False, self._stop)
        if root is not None:
            self._start_thread({root}, True, self._stop)

    def _start_thread(self, folders: set[str], recursive: bool, stop: threading.Event) -> None:
        def watch() -> None:
            try:
                self._report(folders, recursive, stop)
            except Exception as error:  # watchfiles raises those of its Rust part.
                self._error = error
                self._changed.set()

        threading.Thread(target=watch, name="saves", daemon=True).start()

    def _report(self, folders: set[str], recursive: bool, stop: threading.Event) -> None:
        from watchfiles import watch

        changes = watch(
            *folders,
            watch_filter=lambda _, path: _may_travel(path, folders),
            recursive=recursive,
            stop_event=stop,
            raise_interrupt=False,
            rust_timeout=FIRST_LOOK,
            yield_on_timeout=True,
        )
        has_looked = False
        for found in changes:
            # Once without a change: files may have been saved before the watch began.
            if (found or not has_looked) and self._seen != self._signature():
                self._changed.set()
                self._on_save()
            has_looked = True

    def _signature(self) -> Signature:
        found: Signature = {str(path): _signature(path) for path in self._paths}
        if self._project is not None:
            found |= _project_signature(*self._project)
        return found


def _may_travel(path: str, folders: set[str]) -> bool:
    """Return whether the project has to be listed because this path in one of the folders changed."""
    folder = max((one for one in folders if path.startswith(one)), key=len, default="")
    return _NEVER_SENT.isdisjoint(path[len(folder) :].split("/"))


def _unwatched(error: Exception) -> EngineError:
    why = f"cannot watch for saves: {error}"
    if isinstance(error, FileNotFoundError):
        return EngineError(why)
    return EngineError(why, "have the files polled: export WATCHFILES_FORCE_POLLING=1")


def _project_signature(project: Project, code: str) -> Signature:
    """Return the signature of what of a project travels, by paths in it."""
    from stoke.project.listing import list_project

    try:
        listing = list_project(project, code)
    except StokeError as error:
        return {"": error.what}
    found: Signature = {
        path: _of_status(status) for path, status in listing.files if not _OF_EDITORS.search(path)
    }
    found |= dict(listing.links)
    return found | {f"{folder}/": None for folder in listing.folders}


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        return _of_status(path.stat())
    except OSError:
        return None


def _of_status(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns

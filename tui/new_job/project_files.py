"""What would travel with the form's code: found on a thread, and shown in a line below the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text
from textual.widgets import Static

from stoke.errors import RequestError, StokeError
from stoke.project.listing import list_project
from stoke.project.manifest import FOLDER, LINK
from stoke.project.manifest_store import recorded_manifest
from stoke.request.spec import Project
from tui import format as fmt
from tui.new_job.file_tree import FileTree, make_tree
from tui.new_job.project import form_hint
from tui.threads import Work, WorkCancelledError, on_thread

MOST_LISTED = 100_000
"""Files up to which a project is listed."""


@dataclass(frozen=True)
class ProjectFiles:
    """The files of a project that would travel, and those that would not."""

    project: Project
    tree: FileTree = field(default_factory=FileTree)
    left_out: int = 0
    notes: tuple[tuple[str, str], ...] = ()
    """What the user has to know about what is left out, each with a hint."""
    error: RequestError | None = None
    """Why they would be refused."""
    is_listed: bool = True
    """False for a project with too many files."""

    @property
    def summary(self) -> str:
        top = self.tree.top
        if not self.is_listed:
            return f"more than {MOST_LISTED:,} files, not listed"
        text = f"{fmt.count(top.files, 'file')}, {fmt.size(top.size)}"
        if digest := self.project.digest:
            text += f", as submitted ({digest[:12]})"
        if self.project.imports_only:
            text += ", the script with what it imports"
        return text + (f"; {self.left_out:,} left out" if self.left_out else "")


class _TooManyError(Exception):
    pass


def find_files(
    project: Project,
    code: str,
    extra_files: Mapping[str, bytes],
    limit: int,
    check: Callable[[], object],
) -> ProjectFiles:
    """Return what of a project would travel now, or what was recorded of it.

    `check` is called in each folder, and ends the search by an exception. Raises `RequestError` as a
    submission would, but a project above the limit is listed with its error.
    """
    if project.digest is not None:
        return _recorded(project)

    def step(files: int) -> None:
        check()
        if files > MOST_LISTED:
            raise _TooManyError

    try:
        listing = list_project(project, code, extra_files, step=step)
    except _TooManyError:
        return ProjectFiles(project, is_listed=False)
    error = None
    try:
        listing.check_size(limit)
    except RequestError as refused:
        error = refused
    tree = make_tree(listing.sizes(), listing.links, listing.folders, listing.left_out)
    check()
    return ProjectFiles(project, tree, len(listing.left_out), tuple(listing.notes()), error)


def _recorded(project: Project) -> ProjectFiles:
    assert project.digest is not None
    manifest = recorded_manifest(project.digest)
    entries = manifest.entries
    tree = make_tree(
        [(file.path, file.size) for file in manifest.files],
        [(entry.path, entry.target) for entry in entries if entry.kind == LINK],
        [entry.path for entry in entries if entry.kind == FOLDER],
    )
    return ProjectFiles(project, tree)


class FilesLine(Static):
    """Shows how many files travel.

    It looks again when the project changes, and gives up an earlier look.
    """

    def __init__(self, limit: Callable[[], int], changed: Callable[[], object]) -> None:
        super().__init__(id="files-line", classes="field-below")
        self._limit = limit
        self._changed = changed
        self._seen: tuple[Any, ...] | None = None
        self._work: Work | None = None
        self.files: ProjectFiles | None = None
        self.error: RequestError | None = None
        self.notes: tuple[str, ...] = ()
        """What the user should know of the project besides."""

    def on_mount(self) -> None:
        self.display = False

    def on_unmount(self) -> None:
        self._cancel()

    def look(self, project: Project | None, code: str, extra_files: Mapping[str, bytes]) -> None:
        """Find out what of the project would travel; nothing if it was found out before."""
        # Other code changes the size of the script only, unless its imports decide what travels.
        code_decides = project is not None and project.imports_only
        wanted = (project, code if code_decides else "", sorted(extra_files.items()))
        if wanted == self._seen:
            return
        self._cancel()
        self._seen = wanted
        if project is None:
            self.files, self.error = None, None
            self._show()
            return
        self._work = work = Work("listing the files", lambda: None)

        def done(files: ProjectFiles) -> None:
            if work is self._work:
                self.files, self.error = files, files.error
                self._show()

        def failed(error: StokeError) -> None:
            if work is not self._work or isinstance(error, WorkCancelledError):
                return
            self.files = None
            if not isinstance(error, RequestError):
                error = RequestError("project", error.what, error.hint)
            self.error = error
            self._show()

        on_thread(
            self,
            lambda: find_files(
                project, code, extra_files, self._limit(), lambda: work.progress("")
            ),
            done,
            failed,
        )

    def forget(self) -> None:
        """Look again at the next chance: files may have changed."""
        self._seen = None

    def _cancel(self) -> None:
        if self._work is not None:
            self._work.cancel()
            self._work = None

    def _show(self) -> None:
        self.show_notes(self.notes)
        self._changed()

    def show_notes(self, notes: tuple[str, ...]) -> None:
        self.notes = notes
        files = self.files
        self.display = files is not None
        if files is None:
            return
        text = Text()
        text.append_text(fmt.plain(f"{files.summary}  ", "$quiet"))
        text.append("f7 lists them", style="$quiet")
        for note, hint in files.notes:
            text.append("\n").append_text(fmt.plain(f"{note}; {form_hint(hint)}", "$warn"))
        for note in notes:
            text.append("\n").append_text(fmt.plain(note, "$quiet"))
        self.update(text)

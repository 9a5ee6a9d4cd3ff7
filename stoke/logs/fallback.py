"""Where a program shows a job's log from: the job's own folder, or a temporary fallback folder.

A log that cannot be saved (disk full, folder read-only) is followed into the fallback folder, which is
removed when the program ends. The tracker and the readers of a job share one `LogLocation`, so readers
follow the log from folder to folder.
"""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from pathlib import Path

from stoke.errors import EngineError
from stoke.files.paths import job_dir

PARTS = ("log", "log.idx", "log.pos", "log.engine")
"""The files of a spool."""


class UnsavedLogError(EngineError):
    """Why a log is shown but not saved. It is reported and never raised, because nothing fails.

    `reason` says why in two or three words.
    """

    def __init__(self, why: EngineError) -> None:
        shown = "this log is shown but not saved; the engine keeps it until it can be saved"
        super().__init__(f"{shown}: {why.what}", why.hint)
        cause = why.__cause__
        self.reason = (cause.strerror if isinstance(cause, OSError) else None) or why.what


@dataclass
class UnsavedLog:
    """A log in a fallback folder. `whole` is set once it has been followed to its end."""

    folder: Path
    why: UnsavedLogError
    whole: bool = False


class LogLocation:
    """The location of one job's log; `current` is the folder to read it from.

    Readers may use it from any thread while the tracker changes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """The job's own folder."""
        self.unsaved: UnsavedLog | None = None
        """The log that is shown but not saved; None if the job's own folder has it."""

    @property
    def current(self) -> Path:
        unsaved = self.unsaved
        return unsaved.folder if unsaved else self.folder

    def fallback_folder(self, why: EngineError) -> UnsavedLog:
        """Move readers to a temporary folder, which begins as a copy of what was saved.

        Returns the same folder at every call until the log is restored. Raises `why` if the temporary
        folder has no space either.
        """
        import shutil
        import tempfile

        if self.unsaved is not None:
            self.unsaved.why = UnsavedLogError(why)
            return self.unsaved
        folder: Path | None = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="stoke-log-"))
            for part in PARTS:
                if (self.folder / part).exists():
                    shutil.copyfile(self.folder / part, folder / part)
        except OSError:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise why from None
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.unsaved = UnsavedLog(folder, UnsavedLogError(why))
        return self.unsaved

    def restore_if_caught_up(self) -> None:
        """Move readers back once the job's own folder has as much of the log as they can see.

        A follower that saves the log again fetches it from the engine, which can take long. Readers
        that moved before that would show an empty log.
        """
        unsaved = self.unsaved
        if unsaved is not None and _log_size(self.folder) >= _log_size(unsaved.folder):
            self.restore_log_folder()

    def restore_log_folder(self) -> None:
        """Move readers back to the job's own folder, and remove the temporary one."""
        unsaved, self.unsaved = self.unsaved, None
        if unsaved is not None:
            import shutil

            shutil.rmtree(unsaved.folder, ignore_errors=True)


class LogLocations:
    """The log locations of one program, by job."""

    def __init__(self) -> None:
        self._known: dict[str, LogLocation] = {}

    def of(self, job_id: str) -> LogLocation:
        # `setdefault` is atomic, so threads get the same object.
        return self._known.setdefault(job_id, LogLocation(job_dir(job_id)))


def _log_size(folder: Path) -> int:
    try:
        return (folder / "log").stat().st_size
    except OSError:
        return 0

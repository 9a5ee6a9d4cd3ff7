"""What housekeeping of every kind of volume needs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

from stoke.remote.common.trees import remove_tree
from stoke.remote.housekeeping.files import give_rights, is_folder, names_in, read_text
from stoke.remote.housekeeping.limits import (
    ENVIRONMENT_KEY,
    MAX_ENVIRONMENTS,
    MAX_NAMES,
    MAX_REPORTED,
    MAX_REQUEST,
    REQUEST_HASH,
)
from stoke.remote.housekeeping.size_index import SizeIndex
from stoke.remote.housekeeping.sizes import ReclaimableBytes, allocated, walk
from stoke.remote.protocol import PythonLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Progress = Callable[[str], None]
HOUSEKEEPING_LOCK = "housekeeping.lock"
TRASH = "trash"
KEPT_BY_CLEAR = ("CACHEDIR.TAG", PythonLayout.IN_USE_LOCK, HOUSEKEEPING_LOCK, TRASH)
PROGRAM_SECONDS = 3600.0
"""uv or Nix is killed if it takes longer."""
PROGRESS_SECONDS = 0.25
MISSING_PATH = "/dev/null/nothing"
"""A path at which nothing can exist."""


class CacheVolume:
    """A cache volume of any kind: its paths, progress reports, the size index, and the trash."""

    FOLDERS: tuple[str, ...] = ()
    """What has to be a folder if it exists, each after the folder that holds it."""

    def __init__(self, top: str, uv: str | None, progress: Progress) -> None:
        self._top = top
        self._uv = uv
        self._progress = progress
        self._reported_at = 0.0
        self._activity = "looking"
        self.index = SizeIndex(self.path("housekeeping.json"))
        self.removal_failure: str | None = None  # why something could not be removed
        self._text = 0  # characters of the names of packages, so far

    def path(self, *names: str) -> str:
        return os.path.join(self._top, *names)

    def own_path(self, *names: str) -> str:
        """Return the path, or `MISSING_PATH` if a link is on the way: it may lead out of the volume."""
        path = self._top
        for name in names:
            path = os.path.join(path, name)
            if os.path.islink(path):
                return MISSING_PATH
        return path

    def repair_folders(self) -> None:
        """Remove what has to be a folder and is none; give folders their rights back."""
        for name in (TRASH, *self.FOLDERS):
            path = self.path(*name.split("/"))
            if is_folder(path):
                give_rights(path)
            elif os.path.lexists(path):
                try:
                    self.move_to_trash(path)
                except OSError as error:
                    self.removal_failure = "%s: %s" % (name, error.strerror)

    def set_activity(self, activity: str) -> None:
        self._activity = activity
        self.tick()

    def tick(self) -> None:
        """Report progress from time to time; every loop calls this."""
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            self._progress(self._activity)

    def run(self, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        """Run a program, reporting progress; return (exit code, stdout, stderr)."""
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        began = time.monotonic()
        while True:
            try:
                out, err = process.communicate(timeout=PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self.tick()
                if time.monotonic() - began > PROGRAM_SECONDS:
                    process.kill()
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def move_to_trash(self, path: str) -> None:
        """Move a file or folder out of the way at once; `empty_trash` deletes it."""
        trash = self.path(TRASH)
        if path != trash and os.path.dirname(path) == trash:
            return
        if not is_folder(trash):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(trash)
            os.mkdir(trash, 0o700)
        give_rights(trash)
        if path == trash:
            return
        # The old name may have the greatest length already, so it cannot be part of the new one.
        aside = os.path.join(trash, "%d-%s" % (time.monotonic_ns(), os.urandom(8).hex()))
        try:
            os.rename(path, aside)
        except PermissionError:
            give_rights(path)  # moving a folder writes its ".." entry
            os.rename(path, aside)

    def requests(self, folder: str, keys: Iterable[str]) -> dict[str, str]:
        """Return request hash to the environment that last answered it, for those in `keys`."""
        known = frozenset(keys)
        found = {}
        for name in names_in(folder):
            self.set_activity("reading requests")
            if not REQUEST_HASH.fullmatch(name):
                continue
            key = read_text(os.path.join(folder, name), MAX_REQUEST) or ""
            if key in known:
                found[name] = key
        return found

    def stale_requests(self, folder: str, environments: str, removed: Iterable[str]) -> list[str]:
        """Return the files of requests whose environment is missing, or among those `removed`."""
        missing = frozenset(removed)
        found = []
        for name in names_in(folder):
            if not REQUEST_HASH.fullmatch(name):
                continue
            key = read_text(os.path.join(folder, name), MAX_REQUEST) or ""
            exists = ENVIRONMENT_KEY.fullmatch(key) and os.path.lexists(
                os.path.join(environments, key)
            )
            if key in missing or not exists:
                found.append(os.path.join(folder, name))
        return found

    def trash_bytes(self) -> int:
        """Return the bytes that emptying the trash frees."""
        reclaimable = ReclaimableBytes(self.tick)
        for name in names_in(self.path(TRASH)):
            reclaimable.add(self.path(TRASH, name))
        return reclaimable.bytes

    def empty_trash(self) -> int:
        """Delete what is in the trash; return the bytes that this freed."""
        freed = 0
        before: list[str] = []
        while True:
            names = names_in(self.path(TRASH))
            if names == before:
                return freed  # the rest cannot be deleted
            before = names
            for number, name in enumerate(names):
                self.set_activity("removed %d of %d" % (number, len(names)))
                freed += remove_tree(self.path(TRASH, name), self.tick)
            if len(names) < MAX_NAMES:
                return freed

    def move_all_to_trash(self, folder: str, is_kept: Callable[[str], bool]) -> None:
        """Move everything in a folder to the trash, except names that `is_kept` accepts."""
        while True:
            names = names_in(folder)
            for name in names:
                self.tick()
                if not is_kept(name):
                    try:
                        self.move_to_trash(os.path.join(folder, name))
                    except OSError as error:
                        failure = "%s: %s" % (name, error.strerror)
                        self.removal_failure = self.removal_failure or failure
            if len(names) < MAX_NAMES or self.removal_failure:
                return

    def clear_result(
        self, freed: int, environments: list[str], packages: list[str]
    ) -> dict[str, Any]:
        failure = self.removal_failure
        trouble = failure and "not everything could be removed: %r" % failure
        return {
            "bytes": freed,
            "left": allocated(walk(self._top, self.tick)),
            "entries": 0,
            "environments": environments[:MAX_ENVIRONMENTS],
            "packages": packages[:MAX_REPORTED],
            "busy": [],
            "trouble": trouble,
        }


def short_reason(text: str, code: int) -> str:
    """Return what a tool that ended with `code` printed about it, at most 600 characters."""
    text = " ".join(text.split())
    if not text:
        return "killed by signal %d" % -code if code < 0 else "exit code %d" % code
    return text if len(text) <= 600 else "... " + text[-600:]

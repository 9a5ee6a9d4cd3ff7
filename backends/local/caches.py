"""The local backend's caches: a folder for each scope and kind, cleaned by a process on this machine.

A job only makes sure that its folder exists, so what cleans one is imported when it is needed.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stoke.backend.api import CACHE_KINDS, Volume
from stoke.errors import EngineError
from stoke.files.paths import NotOursError, is_open_to_others, make_private
from stoke.remote.common.trees import remove_tree

# Marks a folder as ours; a folder without it is never changed.
TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A cache of stoke. It can be cleared at any time: stoke cache clear\n"
)


class LocalCaches:
    """Scopes below one folder: `<scope>/python`. `running_in` returns a scope's running jobs."""

    def __init__(self, top: Path, running_in: Callable[[str], list[str]]) -> None:
        self._top = top
        self._running_in = running_in

    def make(self, scope: str, kind: str) -> Path:
        """Create the folder of a scope's cache if needed, and return it.

        If that fails, the runner meets the same error and does what the configuration says.
        """
        folder = self._top / scope / kind
        try:
            was_open = is_open_to_others(folder)
            make_private(folder)
            if was_open:
                _empty(folder)
            if not _has_tag(folder):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(folder / TAG, flags, 0o600), "w") as tag:
                    tag.write(TAG_TEXT)
        except NotOursError:
            raise
        except (EngineError, OSError):
            pass
        return folder

    def volumes(self) -> list[Volume]:
        try:
            scopes = sorted(os.listdir(self._top))
        except OSError:
            return []
        return [
            Volume("local", scope, kind, str(folder), in_use_by=tuple(self._running_in(scope)))
            for scope in scopes
            for kind in CACHE_KINDS
            if _has_tag(folder := self._top / scope / kind)
        ]

    def remove(self, volume: Volume) -> None:
        """Remove the folder of a cache that has been cleared."""
        folder = Path(volume.name)
        remove_tree(str(folder))
        if folder.exists():
            raise EngineError(
                f"cannot remove all of {folder}",
                f"remove it: sudo rm -r {shlex.quote(str(folder))}",
            )
        with suppress(OSError):  # the scope has another cache
            folder.parent.rmdir()

    def housekeep(
        self,
        volume: Volume,
        operation: Mapping[str, object],
        progress: Callable[[str], None],
        python: str,
        uv: str,
    ) -> dict[str, Any]:
        import subprocess

        from stoke.cache.volumes import lines_of, read_outcome
        from stoke.remote.bundle import housekeeping_source

        folder = Path(volume.name)
        if folder.parent.parent != self._top or not _has_tag(folder):
            raise EngineError(f"{folder} is not a cache of stoke; nothing was changed")
        make_private(folder)
        process = subprocess.Popen(
            # "-": the program comes on stdin.
            [python, "-I", "-S", "-", str(folder), json.dumps(operation), "--uv", uv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # In a session of its own, because ctrl+c arrives through the exception that `progress`
            # raises.
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        with process:
            try:
                with suppress(BrokenPipeError), process.stdin as stdin:
                    stdin.write(housekeeping_source(volume.kind))
                return read_outcome(lines_of(_pieces(process.stdout.fileno())), progress)
            except BaseException:
                process.terminate()
                raise


def _pieces(file: int) -> Iterator[bytes]:
    while piece := os.read(file, 1 << 16):
        yield piece


def _has_tag(folder: Path) -> bool:
    """Whether the folder is a cache of ours, whatever a job did to the tag's content."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    from stoke.remote.housekeeping.files import give_rights

    give_rights(str(folder))  # a job may have taken them
    return os.path.lexists(folder / TAG)


def _empty(folder: Path) -> None:
    """Others could write to it until now, so nothing in it can be trusted."""
    from stoke.remote.housekeeping.volume import CacheVolume

    volume = CacheVolume(str(folder), None, lambda _: None)
    volume.move_all_to_trash(str(folder), lambda name: name in (TAG, "trash"))
    volume.empty_trash()

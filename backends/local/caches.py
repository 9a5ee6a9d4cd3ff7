"""The local backend's caches: a folder a scope and kind, looked after by a process on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stoke import housekeeping
from stoke.backend import Volume
from stoke.caches import read_outcome
from stoke.errors import EngineError
from stoke.paths import make_private

KINDS = ("python", "system")
# What marks a folder as ours; nothing without it is ever touched.
TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A cache of stoke. It can be cleared at any time: stoke cache clear\n"
)


class LocalCaches:
    """Scopes below one folder: `<scope>/python`. `running_in` names a scope's running jobs."""

    def __init__(self, top: Path, running_in: Callable[[str], list[str]]) -> None:
        self._top = top
        self._running_in = running_in

    def make(self, scope: str, kind: str) -> Path:
        """The folder of a scope's cache, made on first use. Where that cannot be, the runner meets
        the same trouble and does what the configuration says."""
        folder = self._top / scope / kind
        tag = folder / TAG
        try:
            if not tag.exists():
                make_private(folder)
                tag.write_text(TAG_TEXT)
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
            for kind in KINDS
            if (folder := self._top / scope / kind).joinpath(TAG).exists()
        ]

    def remove(self, volume: Volume) -> None:
        """Removes the folder of a cache that has been cleared."""
        folder = Path(volume.name)
        try:
            shutil.rmtree(folder)
            folder.parent.rmdir()
        except OSError as error:
            if folder.exists():
                raise EngineError(f"cannot remove {folder}: {error.strerror}") from error

    def housekeep(
        self,
        volume: Volume,
        operation: Mapping[str, object],
        progress: Callable[[str], None],
        python: str,
        uv: str,
    ) -> dict[str, Any]:
        folder = Path(volume.name)
        if folder.parent.parent != self._top or not (folder / TAG).exists():
            raise EngineError(f"{folder} is not a cache of stoke; nothing was touched")
        program = [python, "-I", "-S", housekeeping.__file__]
        process = subprocess.Popen(
            [*program, str(folder), json.dumps(operation), "--uv", uv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A ctrl+c reaches it through what `progress` raises.
            start_new_session=True,
        )
        assert process.stdout is not None
        with process:
            try:
                return read_outcome(process.stdout, progress)
            except BaseException:
                process.terminate()
                raise

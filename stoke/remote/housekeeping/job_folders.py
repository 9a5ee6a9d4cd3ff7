"""Checkpoints and results of jobs on a Python volume: they are no cache, and only age removes them."""

from __future__ import annotations

import os
import time

from stoke.remote.housekeeping.files import is_folder, names_in
from stoke.remote.protocol import PythonLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86400.0
CHECKPOINT_SECONDS = 90 * DAY
"""After so long without a job of its name, a checkpoint is removed."""
RESULTS_SECONDS = 14 * DAY
"""After so long, results that no machine has collected are removed."""
JOB_FOLDERS = (PythonLayout.CHECKPOINTS, PythonLayout.RESULTS)


def old_folders(top: str) -> Iterator[str]:
    """Yield the paths of checkpoints and results that are too old."""
    for name, seconds in zip(JOB_FOLDERS, (CHECKPOINT_SECONDS, RESULTS_SECONDS)):  # noqa: B905
        folder = os.path.join(top, name)
        if is_folder(folder):
            yield from older_than(folder, seconds)


def older_than(folder: str, seconds: float) -> Iterator[str]:
    horizon = time.time() - seconds
    for name in names_in(folder):
        path = os.path.join(folder, name)
        try:
            if _last_change(path) < horizon:
                yield path
        except OSError:
            continue


def _last_change(path: str) -> float:
    """Return the last change of a folder and of what is directly in it."""
    newest = os.lstat(path).st_mtime
    if is_folder(path):
        for name in names_in(path):
            newest = max(newest, os.lstat(os.path.join(path, name)).st_mtime)
    return newest

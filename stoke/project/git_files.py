"""Ask git which files of a repository it tracks or would track."""

from __future__ import annotations

import os
import subprocess
from functools import cached_property

TIMEOUT = 60.0
# `git rev-parse --local-env-vars`: set inside hooks, they would name another repository.
_REPOSITORY = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE",
)  # fmt: skip


class GitFiles:
    """The files in a folder that git does not ignore, and the folders that hold them.

    Names are relative to the folder, which may be a part of a repository. A repository inside it, such
    as a submodule, is one name in `nested`.
    """

    def __init__(self, folder: str, names: list[str]) -> None:
        self._folder = folder
        self.files = {name for name in names if not name.endswith("/")}
        self.nested = {name.rstrip("/") for name in names if name.endswith("/")}
        self.folders: set[str] = set()
        for name in names:
            above = name.rstrip("/").rpartition("/")[0]
            while above and above not in self.folders:
                self.folders.add(above)
                above = above.rpartition("/")[0]

    @cached_property
    def ignored_folders(self) -> set[str]:
        """The outermost ignored folders, also empty ones, each with a slash at its end."""
        words = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
        return set((_git(self._folder, words) or "").split("\0"))


def list_git_files(folder: str) -> GitFiles | None:
    """Return the files of a folder in a repository; None without a repository, or without git.

    None also if git lists nothing: then the folder itself is ignored, or git does not trust it because
    another user owns it.
    """
    if not _is_in_repository(folder):
        return None
    names = _git(folder, ["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    return GitFiles(folder, [name for name in names.split("\0") if name]) if names else None


def _is_in_repository(folder: str) -> bool:
    while True:
        if os.path.lexists(f"{folder}/.git"):
            return True
        if folder == "/":
            return False
        folder = os.path.dirname(folder)


def _git(folder: str, words: list[str]) -> str | None:
    env = {name: value for name, value in os.environ.items() if name not in _REPOSITORY}
    try:
        done = subprocess.run(
            # A repository can name a program in core.fsmonitor, which git would run.
            ["git", "-c", "core.fsmonitor=false", *words],
            cwd=folder,
            env=env | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None

"""Find the folders of this machine: state (history, logs), local caches, configuration.

They are in the XDG folders unless a `STOKE_*` variable names another place. Folders are created when
they are first used. The error for a folder that cannot be created names it and the variable that moves
it.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import NoReturn

from stoke.errors import EngineError


def _xdg(variable: str, fallback: str) -> Path:
    base = os.environ.get(variable, "")
    # The XDG specification says to ignore relative paths.
    if base.startswith("/"):
        return Path(base)
    home = _home()
    if home is None:
        raise EngineError(
            "this user has no home folder",
            "name one: export HOME=/some/folder",
        )
    return home / fallback


def _home() -> Path | None:
    """Return HOME or, if that is unset or empty, the home folder in the system's list of users."""
    named = os.environ.get("HOME")
    if named:
        return Path(named).absolute()
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def is_there(path: Path) -> bool:
    """Return whether the path exists.

    Raises `EngineError` if this user may not look there: `sudo -u` leaves another user's home folder in
    HOME.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise EngineError(
            f"cannot look for {path}: {error.strerror}",
            "if HOME is another user's folder, set your own: export HOME=/some/folder",
        ) from error
    return True


def state_dir() -> Path:
    own = os.environ.get("STOKE_STATE_DIR")
    return Path(own).absolute() if own else _xdg("XDG_STATE_HOME", ".local/state") / "stoke"


def cache_dir() -> Path:
    own = os.environ.get("STOKE_CACHE_DIR")
    return Path(own).absolute() if own else _xdg("XDG_CACHE_HOME", ".cache") / "stoke"


def config_file() -> Path:
    own = os.environ.get("STOKE_CONFIG")
    if own:
        return Path(own).absolute()
    if not os.environ.get("XDG_CONFIG_HOME", "").startswith("/") and _home() is None:
        return Path("/etc/xdg/stoke/config.toml")  # XDG: for all users.
    return _xdg("XDG_CONFIG_HOME", ".config") / "stoke/config.toml"


NOT_SETTINGS = frozenset(
    {
        "STOKE_STATE_DIR", "STOKE_CACHE_DIR", "STOKE_CONFIG", "STOKE_DEBUG",
        "STOKE_IN_BROWSER",  # Set for the screens by `stoke serve`.
        "STOKE_LOCAL_JOB",  # Marks the processes of a local job, which may run stoke themselves.
        # Where a job finds its mounts, its workspace, its results and its checkpoint.
        "STOKE_MOUNT_ROOT", "STOKE_WORKSPACE", "STOKE_RESULTS", "STOKE_CHECKPOINT",
    }
)  # fmt: skip
"""STOKE_* variables that are not settings."""


def is_configured() -> bool:
    """Return whether `stoke.config` has anything to read: a file, or a STOKE_* variable."""
    given = (name for name in os.environ if name.startswith("STOKE_"))
    ours = (name for name in given if not name.startswith("STOKE_TEST_"))
    return any(name not in NOT_SETTINGS for name in ours) or is_there(config_file())


def history_file() -> Path:
    return state_dir() / "history.sqlite"


def job_dir(job_id: str) -> Path:
    """Return the folder of the job's spool and file locks on this machine."""
    return state_dir() / "jobs" / job_id


class NotOursError(EngineError):
    """Another user owns a folder or file of stoke, or could have put it there."""


def make_private(folder: Path) -> Path:
    """Create a folder that only its owner can enter, whatever the umask, and its missing parents.

    Specs and logs hold private text, and caches hold code that jobs run. From the state or cache folder
    down, the permission of other users to write is removed. Raises `NotOursError` if one of these
    folders, or a link to one, belongs to another user.
    """
    top = _top_of(folder)
    try:
        _refuse_planted(top)
        for level in reversed((folder, *folder.parents)):
            if not level.is_dir():
                level.mkdir(mode=0o700, exist_ok=True)
            if not level.is_relative_to(top):
                continue
            check_owner(level)
            mode = level.stat().st_mode
            if mode & stat.S_ISVTX and mode & stat.S_IWOTH:
                raise NotOursError(
                    f"all users can write to {level}",
                    "name a folder in it: "
                    f"export {_variable(folder)}={shlex.quote(str(level / 'stoke'))}",
                )
            if mode & _WRITABLE:
                # Other users may read the folder that the user chose.
                level.chmod(stat.S_IMODE(mode) & ~_WRITABLE if level == top else 0o700)
    except OSError as error:
        raise EngineError(
            f"cannot make {folder}: {error.strerror}",
            f"name a folder you can write to: export {_variable(folder)}=/some/folder",
        ) from error
    return folder


def is_world_writable(folder: str) -> bool:
    """Return whether every user can write to a folder, so that nothing in it can be trusted."""
    return bool(os.stat(folder).st_mode & stat.S_IWOTH)


def is_open_to_others(folder: Path) -> bool:
    """Return whether other users can write to a folder of stoke, or to one of stoke's above it."""
    return any(level.stat().st_mode & _WRITABLE for level in _ours(folder) if level.is_dir())


def check_owner(path: Path) -> None:
    """Raise `NotOursError` if another user than root owns the file or folder, or the link to it."""
    for status in (path.lstat(), path.stat()):
        if status.st_uid not in (os.geteuid(), 0):
            _refuse(path, status.st_uid)


_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def _variable(path: Path) -> str:
    return "STOKE_CACHE_DIR" if path.is_relative_to(cache_dir()) else "STOKE_STATE_DIR"


def _top_of(folder: Path) -> Path:
    for top in (cache_dir(), state_dir()):
        if folder.is_relative_to(top):
            return top
    return folder


def _ours(folder: Path) -> list[Path]:
    """Return the state or cache folder, and every folder from there down to this one."""
    top = _top_of(folder)
    return [level for level in reversed((folder, *folder.parents)) if level.is_relative_to(top)]


def _refuse_planted(top: Path) -> None:
    """Raise `NotOursError` for a folder of another user in one such as /tmp, where all can create."""
    for path in (top, top.resolve()):
        for level in (path, *path.parents):
            if not os.path.lexists(level):
                continue
            above = level.parent.stat().st_mode
            owner = level.lstat().st_uid
            if above & stat.S_ISVTX and above & stat.S_IWOTH and owner not in (os.geteuid(), 0):
                _refuse(level, owner)


def _refuse(path: Path, owner: int) -> NoReturn:
    hint = f"name a folder of your own: export {_variable(path)}=/some/folder"
    if any(path.is_relative_to(top) for top in (cache_dir(), state_dir())):
        hint += f"; or remove it: sudo rm -r {shlex.quote(str(path))}"
    raise NotOursError(f"{path} belongs to user {owner}, who could change what is in it", hint)


def current_folder() -> Path:
    """Return the current folder; the home folder where the current one has been deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path.home()

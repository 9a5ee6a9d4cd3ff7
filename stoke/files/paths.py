"""Where things stand on this machine: state (history, logs), local caches, configuration.

Each follows the XDG folders and gives way to a `STOKE_*` variable. Nothing is made here before it
is used; a folder that cannot be made is an error that names it and the variable that moves it.
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
    # The standard says that a relative path here is to be ignored.
    if base.startswith("/"):
        return Path(base)
    home = _home()
    if home is None:
        raise EngineError(
            "this user has no home folder to keep anything in",
            "name one: export HOME=/some/folder",
        )
    return home / fallback


def _home() -> Path | None:
    """HOME, or what the system's list of users says where HOME is unset or empty."""
    named = os.environ.get("HOME")
    if named:
        return Path(named).absolute()
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def is_there(path: Path) -> bool:
    """Whether something is at `path`. `EngineError` where this user may not look, as in the home folder
    of somebody else, which `sudo -u` leaves in HOME."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise EngineError(
            f"cannot look for {path}: {error.strerror}",
            "if HOME is somebody else's folder, name your own: export HOME=/some/folder",
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
        return Path("/etc/xdg/stoke/config.toml")  # The standard's place for all users.
    return _xdg("XDG_CONFIG_HOME", ".config") / "stoke/config.toml"


NOT_SETTINGS = frozenset(
    {
        "STOKE_STATE_DIR", "STOKE_CACHE_DIR", "STOKE_CONFIG", "STOKE_DEBUG",
        "STOKE_LOCAL_JOB",  # Marks the processes of a local job, which may run stoke themselves.
    }
)  # fmt: skip
"""Variables of ours that the configuration does not hold."""


def is_configured() -> bool:
    """Whether there is anything for `stoke.config` to read: a file, or a STOKE_* variable."""
    given = (name for name in os.environ if name.startswith("STOKE_"))
    ours = (name for name in given if not name.startswith("STOKE_TEST_"))
    return any(name not in NOT_SETTINGS for name in ours) or is_there(config_file())


def history_file() -> Path:
    return state_dir() / "history.sqlite"


def job_dir(job_id: str) -> Path:
    """The job's spool and locks, on this machine."""
    return state_dir() / "jobs" / job_id


class NotOursError(EngineError):
    """A folder or file of stoke's that another user owns, or could have put there."""


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner can enter, and the missing folders above it, whatever the
    umask; specs and logs hold what people wrote, and caches hold code that jobs run.

    Folders of ours that others can write to are closed to them, from the state or cache folder down.
    Raises `NotOursError` if one of them, or a link to one, belongs to another user.
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
                    f"{level} is for everybody to write to",
                    "name a folder in it: "
                    f"export {_variable(folder)}={shlex.quote(str(level / 'stoke'))}",
                )
            if mode & _WRITABLE:
                # The one that the user named may be for others to read.
                level.chmod(stat.S_IMODE(mode) & ~_WRITABLE if level == top else 0o700)
    except OSError as error:
        raise EngineError(
            f"cannot make {folder}: {error.strerror}",
            f"name a folder you can write to: export {_variable(folder)}=/some/folder",
        ) from error
    return folder


def is_open_to_others(folder: Path) -> bool:
    """Whether other users can write to a folder of ours, or to one that it is in."""
    return any(level.stat().st_mode & _WRITABLE for level in _ours(folder) if level.is_dir())


def check_owner(path: Path) -> None:
    """Raise `NotOursError` if another user owns what is at the path, or a link that is there.

    Root is none: it can do anything anyway.
    """
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
    """The state or cache folder, and every folder from there to this one."""
    top = _top_of(folder)
    return [level for level in reversed((folder, *folder.parents)) if level.is_relative_to(top)]


def _refuse_planted(top: Path) -> None:
    """In a folder where everybody may make something, such as /tmp, it has to be ours or root's."""
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

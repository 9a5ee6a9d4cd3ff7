"""Where things stand on this machine: state (history, logs), local caches, configuration.

Each follows the XDG folders and gives way to a `STOKE_*` variable. Nothing is made here before it
is used; a folder that cannot be made is an error that names it and the variable that moves it.
"""

from __future__ import annotations

import os
from pathlib import Path

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


def make_private(folder: Path) -> Path:
    """Makes a folder only its owner can read (specs and logs hold what people wrote)."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        variable = "STOKE_CACHE_DIR" if folder.is_relative_to(cache_dir()) else "STOKE_STATE_DIR"
        raise EngineError(
            f"cannot make {folder}: {error.strerror}",
            f"name a folder you can write to: export {variable}=/some/folder",
        ) from error
    return folder

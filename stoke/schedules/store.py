"""The stored schedules: a folder for each in the state folder, with its request.

Only the user can read them. Beside the request is a pack of the project's files as they were when the
schedule was added, unless each run takes them as they are at that time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stoke.errors import EngineError, RequestError
from stoke.files.atomic import write_atomically
from stoke.files.file_lock import release_lock, take_lock
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import read_bytes
from stoke.remote.common.trees import remove_tree

LONGEST_NAME = 40
MAX_SIZE = 128 * 1024**2
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_REQUEST, _LAST_RUN, _FILES = "schedule.json", "last-run.json", "files.pack"


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Schedule(_Model):
    """A request, when it runs, and what starts it. The name is that of its jobs too."""

    name: str
    cron: str
    timezone: str | None
    """None for that of this machine."""
    starter: Literal["systemd", "cron", "engine"]
    """What begins its runs: a program of this machine, or the engine of its backend."""
    paused: bool
    backend: str
    fresh: bool
    """Whether each run takes the project as it is at that time."""
    script: str | None
    """The file whose code a fresh run without a project takes."""
    upgrade: bool
    program: str | None
    spec: dict[str, Any]
    environment: dict[str, str]
    """The variables that decide about a run, as they were when the schedule was added."""
    added_at: float
    engine_id: str | None = None
    """The id of the schedule at the engine that begins its runs, and the begin of its jobs' ids."""

    @property
    def started_by(self) -> str:
        return self.backend if self.starter == "engine" else self.starter


class LastRun(_Model):
    """How the newest run of a schedule began; `job` is None if it began none."""

    at: float
    job: str | None = None
    skipped: bool = False
    why: str | None = None
    """Why it was skipped or failed."""


def check_name(name: str) -> str:
    """Return the name of a schedule. `ValueError` for a text that cannot be one."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is not the name of a schedule; use up to {LONGEST_NAME} of a-z, 0-9 and -, "
            "not at its ends"
        )
    return name


def name_for(job_name: str) -> str:
    """Return a name for a schedule whose jobs would have this name."""
    return re.sub(r"[^a-z0-9]+", "-", job_name.lower())[:LONGEST_NAME].strip("-") or "job"


def schedule_folder(name: str) -> Path:
    return _top() / name


def files_pack(folder: Path) -> Path:
    return folder / _FILES


def schedule_names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(_top()) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def check_known(name: str) -> None:
    """Raise `RequestError` if there is no schedule of this name."""
    if name not in schedule_names():
        raise RequestError(name[:80], "is no schedule", "list them: stoke schedule list")


def load_schedule(name: str) -> Schedule:
    """Read a schedule. `RequestError` if there is none, `EngineError` if it is damaged."""
    check_known(name)
    try:
        data = read_bytes(schedule_folder(name) / _REQUEST, MAX_SIZE)
        return Schedule.model_validate_json(data)
    except (OSError, ValidationError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise EngineError(
            f"the schedule {name} cannot be read: {why}",
            f"remove it, and add it again: stoke schedule remove {name}",
        ) from None


@contextmanager
def new_folder(name: str) -> Iterator[Path]:
    """Give a folder to fill for a new schedule, which becomes the schedule's at the end of the block.

    Nothing is left after an error. Raises `RequestError` if there is a schedule of the name. The caller
    holds `changing`.
    """
    target = schedule_folder(name)
    if target.exists():
        raise RequestError(
            "name",
            f"there is a schedule {name} already",
            f"choose another name, or remove that one: stoke schedule remove {name}",
        )
    aside = _top() / f".{name}.new"
    remove_tree(str(aside))  # From a killed process.
    try:
        yield make_private(aside)
        aside.rename(target)
    except BaseException as error:
        remove_tree(str(aside))
        if isinstance(error, OSError):
            raise _unwritable(target, error) from error
        raise


def save_schedule(schedule: Schedule, folder: Path | None = None) -> None:
    """Write a schedule, into its folder or a new one's. Raises `EngineError`."""
    folder = folder or schedule_folder(schedule.name)
    try:
        write_atomically(folder / _REQUEST, schedule.model_dump_json())
    except OSError as error:
        raise _unwritable(folder, error) from error


def delete_schedule(name: str) -> None:
    remove_tree(str(schedule_folder(name)))


def load_last_run(name: str) -> LastRun | None:
    try:
        data = read_bytes(schedule_folder(name) / _LAST_RUN, 1024**2)
        return LastRun.model_validate_json(data)
    except (OSError, ValidationError, ValueError):
        return None


def save_last_run(name: str, run: LastRun) -> None:
    """Record how a run began. Raises `EngineError`."""
    path = schedule_folder(name) / _LAST_RUN
    try:
        write_atomically(path, run.model_dump_json())
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def changing() -> Iterator[None]:
    """Let one process at a time add, change and remove schedules."""
    with _locked(make_private(_top()) / ".lock"):
        yield


@contextmanager
def running(name: str) -> Iterator[None]:
    """Let one process at a time begin a run of a schedule."""
    with _locked(schedule_folder(name) / "run.lock"):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        lock = take_lock(path, wait=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    assert lock is not None
    try:
        yield
    finally:
        release_lock(lock)


def _unwritable(path: Path, error: OSError) -> EngineError:
    return EngineError(
        f"cannot write to {path}: {error.strerror}",
        "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
    )


def _top() -> Path:
    return state_dir() / "schedules"

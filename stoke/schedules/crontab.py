"""Schedules in the user's crontab: one marked line each. All other lines stay byte for byte."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stoke.errors import EngineError, RequestError
from stoke.files.file_lock import lock_descriptor, release_lock
from stoke.schedules.command import run_program, run_words, said, state_assignment
from stoke.schedules.cron import CronTimes

Lines = list[bytes]
_MARK = b" # stoke schedule "
_NO_CRONTAB = (b"no crontab for", b"No such file")
"""What the crontab programs of Debian, Red Hat and BusyBox write for a user without one."""
_DAEMONS = frozenset({"cron", "crond", "fcron", "busybox"})


class Crontab:
    """The crontab of this user."""

    name = "cron"

    def install(self, name: str, times: CronTimes, timezone: str | None) -> None:
        if timezone is not None:
            raise RequestError(
                "timezone",
                "cron runs schedules in the timezone of this machine only, and no user instance of "
                "systemd answers here",
                "leave it out, and write --cron in the time of this machine",
            )
        line = _line(name, times)
        self._change(lambda lines: [*_without(lines, name), line])
        if name not in self.installed():
            raise EngineError(
                "another program changed the crontab at the same time, so the line of the schedule is "
                "not in it; try again"
            )

    def uninstall(self, name: str) -> None:
        self._change(lambda lines: _without(lines, name))

    def installed(self) -> set[str]:
        return {name for line in _read() if (name := _schedule_of(line)) is not None}

    def note(self) -> str | None:
        if any(_runs(Path(process)) for process in os.scandir("/proc") if process.name.isdigit()):
            return None
        return "no cron daemon runs on this machine now, so no schedule runs until one is started"

    def _change(self, change: Callable[[Lines], Lines]) -> None:
        with _alone():
            before = _read()
            after = change(before)
            if after != before:
                _write(after)


def _line(name: str, times: CronTimes) -> bytes:
    """Return the line of a schedule: digits, our own command with its paths quoted, and the name."""
    # `env`, because a crontab may name a shell in which an assignment is written otherwise.
    command = shlex.join(["env", state_assignment(), *run_words(name)])
    # cron takes % for the end of the line.
    line = f"{times.line} {command}".replace("%", "\\%")
    return os.fsencode(line) + _MARK + name.encode() + b"\n"


def _schedule_of(line: bytes) -> str | None:
    """Return the name of the schedule whose line this is, in this state folder."""
    text, mark, name = line.rstrip(b"\n").rpartition(_MARK)
    ours = os.fsencode(f" env {shlex.quote(state_assignment())} ".replace("%", "\\%"))
    if not mark or text.lstrip().startswith(b"#") or ours not in text:
        return None
    return name.decode(errors="replace")


def _without(lines: Lines, name: str) -> Lines:
    return [line for line in lines if _schedule_of(line) != name]


def _read() -> Lines:
    """Return the lines of the crontab with their ends; none for a user without one."""
    done = run_program(["crontab", "-l"])
    if done.returncode and not any(text in done.stderr for text in _NO_CRONTAB):
        raise EngineError(f"the crontab cannot be read: {said(done)}")
    data = b"" if done.returncode else done.stdout
    return [line + b"\n" for line in data.removesuffix(b"\n").split(b"\n")] if data else []


def _write(lines: Lines) -> None:
    """Replace the crontab in one step; without lines, there is none afterwards."""
    done = (
        run_program(["crontab", "-"], b"".join(lines)) if lines else run_program(["crontab", "-r"])
    )
    if done.returncode:
        raise EngineError(f"the crontab cannot be changed, so it was not: {said(done)}")


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process of stoke at a time change the crontab, whatever its state folder.

    The lock is on the user's home folder, which is the same for all of them.
    """
    lock = None
    with suppress(OSError, KeyError):  # A user without one changes its crontab alone.
        lock = os.open(pwd.getpwuid(os.getuid()).pw_dir, os.O_RDONLY | os.O_CLOEXEC)
        lock_descriptor(lock, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            release_lock(lock)


def _runs(process: Path) -> bool:
    try:
        return (process / "comm").read_text().strip() in _DAEMONS
    except OSError:
        return False

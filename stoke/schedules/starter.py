"""What starts the runs of schedules on this machine: systemd's user instance, or else cron."""

from __future__ import annotations

import shutil
from typing import Protocol

from stoke.errors import EngineError
from stoke.schedules.cron import CronTimes
from stoke.schedules.crontab import Crontab
from stoke.schedules.systemd import SystemdUser


class Starter(Protocol):
    """Starts `stoke schedule run NAME` at the times of a schedule."""

    name: str

    def install(self, name: str, times: CronTimes, timezone: str | None) -> None:
        """Have the schedule run from now on. Raises `EngineError` and `RequestError`."""

    def uninstall(self, name: str) -> None:
        """Have the schedule run no longer; it need not be installed. Raises `EngineError`."""

    def installed(self) -> set[str]:
        """Return the names of the schedules that run."""

    def note(self) -> str | None:
        """Return why installed schedules may not run."""


def choose_starter() -> Starter:
    """Return systemd's user instance if it answers, else cron. `EngineError` if there is neither."""
    if SystemdUser.answers():
        return SystemdUser()
    if shutil.which("crontab"):
        return Crontab()
    raise EngineError(
        "neither a user instance of systemd nor the program crontab is on this machine, so nothing can "
        "start a schedule",
        "install cron: sudo apt install cron",
    )


def starter_named(name: str) -> Starter:
    """Return the starter that a schedule was added with."""
    return SystemdUser() if name == SystemdUser.name else Crontab()

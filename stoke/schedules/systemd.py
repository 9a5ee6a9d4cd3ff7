"""Schedules as timers of systemd's user instance: a timer and a service each."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path

from stoke.errors import EngineError
from stoke.files.atomic import replacing
from stoke.schedules.command import run_program, run_words, said, state_assignment
from stoke.schedules.cron import CronTimes

_PREFIX = "stoke-schedule-"
_LINGER = Path("/var/lib/systemd/linger")


class SystemdUser:
    """The user instance of systemd."""

    name = "systemd"

    @staticmethod
    def answers() -> bool:
        try:
            return run_program(["systemctl", "--user", "show-environment"]).returncode == 0
        except EngineError:
            return False

    def install(self, name: str, times: CronTimes, timezone: str | None) -> None:
        service, timer = _paths(name)
        if service.exists() and not _is_ours(service):
            raise EngineError(
                f"{service} belongs to a schedule in another state folder",
                "choose another name: --name NAME",
            )
        try:
            service.parent.mkdir(parents=True, exist_ok=True)
            for path, text in ((service, _service(name)), (timer, _timer(name, times, timezone))):
                with replacing(path, 0o644) as file:
                    file.write(os.fsencode(text))
        except OSError as error:
            raise EngineError(f"cannot write {error.filename}: {error.strerror}") from error
        _systemctl("daemon-reload")
        # Without the time of its last run: a timer that was off would make up for what it missed.
        run_program(["systemctl", "--user", "clean", "--what=state", timer.name])
        _systemctl("enable", "--now", timer.name)

    def uninstall(self, name: str) -> None:
        service, timer = _paths(name)
        if not _is_ours(service):
            return
        _systemctl("disable", "--now", timer.name)
        run_program(["systemctl", "--user", "clean", "--what=state", timer.name])
        timer.unlink(missing_ok=True)
        service.unlink(missing_ok=True)
        _systemctl("daemon-reload")

    def installed(self) -> set[str]:
        services = _folder().glob(f"{_PREFIX}*.service")
        names = {one.stem.removeprefix(_PREFIX) for one in services if _is_ours(one)}
        return {name for name in names if _is_enabled(name)}

    def note(self) -> str | None:
        try:
            if (_LINGER / getpass.getuser()).exists():
                return None
        except (OSError, KeyError):
            return None
        return (
            "schedules run only while you are logged in; to have them run always: "
            "loginctl enable-linger"
        )


def _service(name: str) -> str:
    program, *arguments = run_words(name)
    command = " ".join([_quoted(program), *(_quoted(one).replace("$", "$$") for one in arguments)])
    # A job on this machine is a process of its own session, which has to outlive the service.
    return f"""[Unit]
Description=Run the stoke schedule {name}

[Service]
Type=oneshot
Environment={_quoted(state_assignment())}
ExecStart={command}
KillMode=process
"""


def _timer(name: str, times: CronTimes, timezone: str | None) -> str:
    events = "\n".join(f"OnCalendar={one}" for one in times.calendars(timezone))
    return f"""[Unit]
Description=Times of the stoke schedule {name}

[Timer]
{events}
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
"""


def _quoted(word: str) -> str:
    """Return a word of a unit file that systemd takes as it is."""
    escaped = re.sub(r'(["\\])', r"\\\1", word).replace("%", "%%")
    return f'"{escaped}"'


def _folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd/user"


def _paths(name: str) -> tuple[Path, Path]:
    return _folder() / f"{_PREFIX}{name}.service", _folder() / f"{_PREFIX}{name}.timer"


def _is_ours(service: Path) -> bool:
    """Return whether a service is that of a schedule in this state folder."""
    try:
        return os.fsencode(f"Environment={_quoted(state_assignment())}\n") in service.read_bytes()
    except OSError:
        return False


def _is_enabled(name: str) -> bool:
    try:
        done = run_program(["systemctl", "--user", "is-enabled", f"{_PREFIX}{name}.timer"])
    except EngineError:
        return False
    return done.returncode == 0


def _systemctl(*words: str) -> None:
    done = run_program(["systemctl", "--user", *words])
    if done.returncode:
        raise EngineError(f"systemctl --user {' '.join(words)} failed: {said(done)}")

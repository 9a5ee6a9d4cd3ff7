"""The processes of a local job: start, find and signal them without hitting another program's.

The system reuses the id of an ended process. So a signal goes through a file descriptor of the
process, and only if its start time is the known one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.local.supervisor import descendants, identity, place, start_time

MARK = "STOKE_LOCAL_JOB"
"""The environment variable that marks the processes of a job, which all inherit it."""
END_SECONDS = 5.0
# Imports the supervisor, because Python keeps the bytecode of modules and compiles programs each time.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import supervisor; "
    "del sys.path[0]; supervisor.main()"
)


class Process:
    """One process, by the record of `supervisor.identity`."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        pid, start = record.get("pid"), record.get("start")
        self.pid = pid if isinstance(pid, int) else 0
        self._start = start if isinstance(start, int) else None
        self._place = record.get("place")

    @property
    def is_elsewhere(self) -> bool:
        """Whether the process was started on another machine, in another container or before a
        reboot."""
        return self._place is not None and self._place != place()

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process runs here. A record without a start time cannot tell."""
        here = self._start is not None and not self.is_elsewhere
        return here and start_time(self.pid) == self._start

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended. Without a start time only its id can tell."""
        if self._start is None:
            return self.pid > 0 and start_time(self.pid) is None
        return not self.is_elsewhere and start_time(self.pid) != self._start

    def send(self, number: int) -> bool:
        """Signal this process and no other. Return False if it has ended or cannot be identified."""
        try:
            process = os.pidfd_open(self.pid)
        except (OSError, ValueError):
            return False
        try:
            # Compared after opening, because the descriptor stays with this process.
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(process, number)
        except OSError:
            return False
        finally:
            os.close(process)
        return True


def leftovers(mark: str | None, runner: Process | None) -> list[Process]:
    """Return the processes that provably belong to a job: its runner, those with its mark, and all
    of their descendants."""
    found = {pid for pid in _process_ids() if _has_mark(pid, mark)} if mark else set()
    if runner is not None and runner.is_alive:
        found.add(runner.pid)
    for pid in list(found):
        found.update(descendants(pid))
    return [Process(identity(pid)) for pid in sorted(found) if not _is_zombie(pid)]


def end_leftovers(mark: str | None, runner: Process | None) -> list[int]:
    """Kill the processes that `leftovers` finds until there are none. Return the ids of those that
    remain."""
    deadline = time.monotonic() + END_SECONDS
    while (left := leftovers(mark, runner)) and time.monotonic() < deadline:
        for process in left:
            process.send(signal.SIGKILL)
        time.sleep(0.002)
    return [process.pid for process in left]


def _process_ids() -> list[int]:
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    ]


def _has_mark(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False  # Another user's process, or it has ended.


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def start_supervisor(
    python: str,
    folder: Path,
    locks: tuple[int, ...],
    timeout: float,
    program: list[str],
    environment: Mapping[str, str],
    log: int,
) -> int:
    """Start the supervisor of a job as a new interpreter; return its process id. Raises `OSError`."""
    command = [python, "-I", "-S", "-c", _START, os.path.dirname(__file__), str(folder)]
    command += [",".join(map(str, locks)), str(timeout), *program]
    # A lock belongs to the open file, which the child inherits and keeps after it is closed here.
    for lock in locks:
        os.set_inheritable(lock, True)
    try:
        return os.posix_spawn(
            python,
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ],
            setsigmask=[],
        )
    finally:
        for lock in locks:
            os.set_inheritable(lock, False)

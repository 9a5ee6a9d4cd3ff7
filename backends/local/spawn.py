"""Start the supervisors of local jobs: each as an interpreter of its own, or as a fork of a server that
has its modules already (`backends.local.supervisor_server`), for the tasks of sweeps."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from backends.local.processes import MARK
from stoke.errors import EngineError
from stoke.files.debug import Logger

_log = Logger(__name__)

SUPERVISOR_LOG = "supervisor.log"
"""What the supervisor prints: only errors. It exists once the process has been asked for."""
ANSWER_SECONDS = 10.0
# They import a module, because Python keeps the bytecode of modules and compiles programs each time.
_START, _SERVE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    f"import {module}; del sys.path[0]; {module}.main()"
    for module in ("supervisor", "supervisor_server")
)
_SIGNALS = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)


class Forks:
    """One server of supervisors, for jobs with one environment. It ends with this process."""

    def __init__(self, python: str, environment: Mapping[str, str]) -> None:
        """Start the server. Raises `OSError`."""
        self._environment = _without_mark(environment)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(ANSWER_SECONDS)
        try:
            theirs.set_inheritable(True)
            command = [python, "-I", "-S", "-c", _SERVE, os.path.dirname(__file__)]
            self._server = os.posix_spawn(
                python,
                [*command, str(theirs.fileno()), str(os.getpid())],
                # The variables that an interpreter reads when it starts are those of the jobs.
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)
                ],
                setsid=True,
                setsigdef=_SIGNALS,
                setsigmask=[],
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether a supervisor with this environment can be a fork of the server."""
        return _without_mark(environment) == self._environment

    def spawn(
        self, arguments: list[str], environment: Mapping[str, str], log: int, locks: tuple[int, ...]
    ) -> int:
        """Start a supervisor and return its process id.

        Raises `OSError` if the server has ended, does not answer or cannot take the request; it has
        then started none.
        """
        request = json.dumps({"arguments": arguments, "environment": dict(environment)})
        # The fork waits for a byte. If there is no answer, it gets the end of the pipe instead.
        waits, begins = os.pipe()
        try:
            try:
                socket.send_fds(self._channel, [request.encode()], [log, waits, *locks])
            finally:
                os.close(waits)
            answer = self._channel.recv(32)
            if not answer:
                raise OSError("the server has ended")
            os.write(begins, b"\0")
            return int(answer)
        finally:
            os.close(begins)

    def close(self) -> None:
        """End the server; the supervisors continue."""
        self._channel.close()
        try:
            os.waitpid(self._server, 0)
        except ChildProcessError:
            pass


def spawn(
    python: str,
    folder: Path,
    locks: tuple[int, ...],
    timeout: float,
    program: list[str],
    environment: Mapping[str, str],
    forks: Forks | None = None,
) -> int:
    """Start the supervisor, detached, holding the file locks from its first moment. Return its process
    id. It is a fork of the server `forks`, if there is one."""
    log = os.open(folder / SUPERVISOR_LOG, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if forks is not None:
            try:
                return forks.spawn([str(folder), str(timeout), *program], environment, log, locks)
            except OSError as error:
                _log.debug("%s: no fork of the server: %s", folder.name, error)
        return _spawn(python, folder, locks, timeout, program, environment, log)
    except (FileNotFoundError, PermissionError) as error:
        raise EngineError(
            f"cannot start Python for the job, {python}: {error.strerror}",
            "reinstall stoke: the Python that it was installed with is gone or not executable",
        ) from error
    finally:
        os.close(log)


def _spawn(
    python: str,
    folder: Path,
    locks: tuple[int, ...],
    timeout: float,
    program: list[str],
    environment: Mapping[str, str],
    log: int,
) -> int:
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
            setsigdef=_SIGNALS,
            setsigmask=[],
        )
    finally:
        for lock in locks:
            os.set_inheritable(lock, False)


def _without_mark(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != MARK}

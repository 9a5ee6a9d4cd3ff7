"""The client of `backends.local.supervisor_server`: it starts the supervisors of many jobs."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping

from backends.local.processes import MARK

ANSWER_SECONDS = 10.0
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import supervisor_server; "
    "del sys.path[0]; supervisor_server.main()"
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


def _without_mark(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != MARK}

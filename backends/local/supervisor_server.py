"""Start supervisors as forks of one process, on the standard library alone.

    python3 -I -S -c 'import supervisor_server; supervisor_server.main()' CHANNEL PARENT

A supervisor and its runner import 35 ms worth of modules. This process has imported them, so a task of
a sweep starts that much sooner. CHANNEL is the descriptor of a socket. Each request there is JSON with
the supervisor's arguments and environment, and has the descriptors of its log, of a pipe whose first
byte lets it begin, and of its file locks. The answer is the process id. This process ends when the
other end of the socket is closed, and the supervisors continue.

An ended supervisor is reaped here, so PARENT gets a SIGCHLD as if it were its own child.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from backends.local import supervisor
else:
    import supervisor  # The folder of this file is on the path.

MOST_BYTES = 128 * 1024
"""Of a request. The kernel refuses much longer messages."""
MOST_LOCKS = 64
_PROJECT = b"sources['stoke.remote.runner.project']"


def main() -> None:
    channel, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    _import_all()

    def reap(_number: int, _frame: object) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                if os.getppid() == parent:
                    os.kill(parent, signal.SIGCHLD)
        except ChildProcessError:
            pass

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, MOST_LOCKS + 2)
        if not data:
            return
        child = os.fork()
        if child == 0:
            channel.close()
            _supervise(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(child).encode())


def _import_all() -> None:
    import ctypes  # noqa: F401

    supervisor._import_runner(_PROJECT)
    sys.path.append(supervisor._installation())
    import stoke.remote.common.trees  # noqa: F401

    sys.path.pop()


def _supervise(request: dict[str, Any], descriptors: list[int]) -> None:
    """Be the supervisor, in a fork of the server, as a new interpreter would be."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log, waits, *locks = descriptors
        if not os.read(waits, 1):
            return  # The program that asked for it has given up, or has ended.
        os.close(waits)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        os.environ.clear()
        os.environ.update(request["environment"])
        folder, timeout, *program = request["arguments"]
        sys.argv = ["-c", folder, ",".join(map(str, locks)), timeout, *program]
        supervisor.main()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

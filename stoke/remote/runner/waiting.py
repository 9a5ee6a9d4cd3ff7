"""Wait while programs that entered the job run: a shell, or whatever looks at a held job."""

from __future__ import annotations

import os
import select
import signal
import time

from stoke.remote.protocol import EXIT_TIMEOUT, JobFolder
from stoke.remote.runner.errors import PhaseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

    from stoke.remote.runner.job import RemoteJob, Result

FIRST_SECONDS = 60.0
"""How long a shell's job waits for its terminal."""
EXIT_HANGUP = 129  # as for a program that SIGHUP ended


class Waiter:
    """Waits for a file, a signal or a time; as process 1 of a container it also reaps orphans."""

    def __init__(self, job: RemoteJob) -> None:
        self._job = job
        self._woken, waker = os.pipe()
        for descriptor in (self._woken, waker):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # Only a handled signal wakes.
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._woken, select.POLLIN)

    def watch(self, descriptor: int) -> None:
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, until: Optional[float]) -> Optional[int]:
        """Return a descriptor that can be read, or None if the job has to end or the time is over.

        `until` is a time of `time.monotonic`, None for no limit.
        """
        while self._job.termination.reason is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            for descriptor, _ in self._poll.poll(None if left is None else left * 1000):
                if descriptor != self._woken:
                    return descriptor
                os.read(self._woken, 4096)
                _reap()
        return None


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def run_shell(job: RemoteJob, offer: Callable[[], None]) -> Result:
    """Offer the entry, and wait until the program at the terminal has ended.

    That program is started by `stoke.remote.session`, which writes its exit code into a pipe. The pipe
    closes without a code if the session was killed, so that the job ends with it.
    """
    path = os.path.join(job.work, JobFolder.SHELL)
    os.mkfifo(path, 0o600)
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    waiter = Waiter(job)
    waiter.watch(pipe)
    offer()
    told = b""
    until: Optional[float] = time.monotonic() + FIRST_SECONDS
    while waiter.wait(until) == pipe:
        data = os.read(pipe, 64)
        if not data:
            break
        told += data
        until = None
    reason = job.termination.reason
    if reason == "timeout":
        return EXIT_TIMEOUT, {"reason": reason}
    if reason is not None:
        number = signal.SIGINT if reason == "interrupted" else signal.SIGTERM
        return 128 + number, {"reason": reason}
    if not told:
        raise PhaseError("no terminal was connected within %d seconds" % FIRST_SECONDS)
    _, _, code = told.partition(b"\n")
    if not code.strip().isdigit():
        return EXIT_HANGUP, {"reason": "its terminal was closed"}
    # The tracker takes an unexplained code above 128 for a signal that ended the runner.
    why = "the shell ended with exit code %d" % int(code) if int(code) > 128 else None
    return int(code), {"reason": why}


def hold_job(job: RemoteJob, seconds: float) -> None:
    """Wait until a signal ends the job or its time is over; programs can enter it until then."""
    job.termination.watch(None)
    job.termination.reason = None  # The timeout was that of the code.
    Waiter(job).wait(time.monotonic() + seconds)

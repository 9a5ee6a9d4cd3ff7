"""Run uv, Nix and other programs of ours, never the user's code."""

from __future__ import annotations

import os
import re
import subprocess

from stoke.remote.protocol import HintCode
from stoke.remote.runner.errors import PhaseError, StoppedError
from stoke.remote.runner.memory import memory_limit, out_of_memory_kills

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.termination import Termination
    from stoke.remote.runner.uv_progress import UvProgress


class ToolOutput:
    """The beginning and the end of what a tool prints on stderr, in bounded memory.

    Drops uv's debug lines as they come, because they repeat every line of a build. Keeps those that
    tell which packages were not in the cache.
    """

    FIRST = 1 << 20
    LAST = 15 << 20
    DROPPED = re.compile(rb"(?m)^(?:DEBUG|TRACE) (?!Identified uncached distribution: ).*\n")

    def __init__(self) -> None:
        self._line = b""  # the last line, if it has not ended yet
        self._first = bytearray()
        self._last = bytearray()
        self._omitted = 0

    def add(self, data: bytes) -> None:
        data = self._line + data
        end = data.rfind(b"\n") + 1 if len(data) < self.FIRST else len(data)
        self._line = data[end:]
        self._keep(self.DROPPED.sub(b"", data[:end]))

    def _keep(self, data: bytes) -> None:
        left = self.FIRST - len(self._first) if not self._last else 0
        self._first += data[:left]
        self._last += data[left:]
        if len(self._last) > 2 * self.LAST:
            self._cut()

    def _cut(self) -> None:
        excess = len(self._last) - self.LAST
        if excess > 0:
            self._omitted += excess
            del self._last[:excess]

    def text(self) -> str:
        self._keep(self._line)
        self._line = b""
        self._cut()
        if not self._omitted:
            return (self._first + self._last).decode(errors="replace")
        # Indented as uv indents a build's output, so that the note counts as a line of that.
        head = self._first.rpartition(b"\n")[0]
        tail = self._last.partition(b"\n")[2]
        omitted = self._omitted + len(self._first) - len(head) - 1 + len(self._last) - len(tail)
        note = b"\n         [... %d bytes left out ...]\n" % omitted
        return (head + note + tail).decode(errors="replace")


def run_tool(
    termination: Termination,
    argv: list[str],
    env: dict[str, str],
    progress: UvProgress | None = None,
) -> tuple[int, str, str]:
    """Run a program and return (exit code, stderr, stdout). `StoppedError` if the job has to end.

    `progress` reads its stderr and reports.
    """
    import selectors

    process = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.setpgid(0, 0),
    )
    termination.watch(process.pid)
    out, err = bytearray(), ToolOutput()

    def take(data: bytes) -> None:
        err.add(data)
        if progress:
            progress.add(data)

    try:
        with process, selectors.DefaultSelector() as pipes:
            pipes.register(process.stdout, selectors.EVENT_READ, out.extend)  # type: ignore[arg-type]
            pipes.register(process.stderr, selectors.EVENT_READ, take)  # type: ignore[arg-type]
            while pipes.get_map():
                for pipe, _ in pipes.select(1.0 if progress else None):
                    data = os.read(pipe.fd, 65536)
                    if data:
                        pipe.data(data)
                    else:
                        pipes.unregister(pipe.fileobj)
                if progress:
                    progress.report()
    finally:
        termination.watch(None)
    if termination.reason:
        raise StoppedError
    return process.returncode, err.text(), out.decode(errors="replace")


def killed(program: str, number: int, kills_before: int, container: bool) -> PhaseError:
    """Return the error for a tool that a signal ended.

    `kills_before` is `out_of_memory_kills()` from before the tool was started.
    """
    if container and out_of_memory_kills() > kills_before:
        limit = memory_limit()
        return PhaseError(
            "%s was killed: out of memory" % program,
            (HintCode.MACHINE_MEMORY,)
            if limit is None
            else (HintCode.MORE_MEMORY, "%dm" % (limit >> 19)),
        )
    return PhaseError("%s was killed by signal %d" % (program, number))

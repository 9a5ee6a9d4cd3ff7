"""Processor time and memory of the running code: of the job's cgroup (v2, then v1), or its processes.

A figure of the job's processes is smaller than what the kernel charges: it has no page cache, and
counts shared files (libraries) once.
"""

from __future__ import annotations

import os
import time

from stoke.remote.protocol import EventKind
from stoke.remote.runner.clock import elapsed, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.event_writer import EventWriter

    Reading = tuple[float, int]  # processor seconds so far, bytes in use

INTERVAL = 2.0
LONGEST_INTERVAL = 10.0
# Reports are this much rarer than the job is old: each is some 150 bytes of the engine's log, which
# rotates.
INTERVALS_OF_AGE = 300
MOST_SHARE = 0.0005
"""Of a core, that reading and reporting take: a job of many processes reports less often."""
_CGROUP = "/sys/fs/cgroup/"
_V1_MEMORY = (_CGROUP + "memory/memory.usage_in_bytes", _CGROUP + "memory/memory.stat")
_V1_ROOT = _CGROUP + "freezer/cgroup.sane_behavior"
"""Only the root of a hierarchy has it. A container with cgroups of its own has one for the freezer."""


class UsageReporter:
    """Reports the usage of a process group; `group` is the process that leads it."""

    def __init__(self, events: EventWriter, group: int, in_container: bool) -> None:
        self._events = events
        self._group = group
        self._cgroup = in_container and cgroup_usage() is not None
        self._started = elapsed()
        self._last = self._read(), self._started
        self.peak = 0
        """The most memory of all readings, in bytes."""

    def _read(self) -> Reading | None:
        return cgroup_usage() if self._cgroup else tree_usage(self._group)

    def report(self) -> float | None:
        """Report the usage since the last call; return the seconds to wait, None if none is known."""
        spent = time.thread_time()
        reading, at = self._read(), elapsed()
        (before, before_at), self._last = self._last, (reading, at)
        if reading is None or before is None:
            return None
        seconds, memory = reading
        self.peak = max(self.peak, memory)
        if at > before_at:
            # Processor time of a process that its parent has not waited for is lost when it ends.
            cores = max(0.0, seconds - before[0]) / (at - before_at)
            self._events.emit(EventKind.USAGE, time=now(), cores=round(cores, 3), memory=memory)
        age = (at - self._started) / INTERVALS_OF_AGE
        own = (time.thread_time() - spent) / MOST_SHARE
        return max(INTERVAL, min(LONGEST_INTERVAL, age), own)


def cgroup_usage() -> Reading | None:
    """Return the usage of this container; None if its cgroup cannot be seen."""
    try:
        text = _text(_CGROUP + "cpu.stat")
        memory = int(_text(_CGROUP + "memory.current"))
        cache = _field(_text(_CGROUP + "memory.stat"), "inactive_file ")
        return _field(text, "usage_usec ") / 1e6, max(0, memory - cache)
    except (OSError, ValueError):
        pass
    if os.path.exists(_V1_ROOT):
        return None  # Rootless Podman: figures of all that the user runs, or of the machine.
    try:
        seconds = int(_text(_CGROUP + "cpuacct/cpuacct.usage")) / 1e9
        memory = int(_text(_V1_MEMORY[0]))
        # As `docker stats` and the kubelet, without file contents that the kernel would drop first.
        cache = _field(_text(_V1_MEMORY[1]), "total_inactive_file ")
        return seconds, max(0, memory - cache)
    except (OSError, ValueError):
        return None


def tree_usage(root: int) -> Reading | None:
    """Return the usage of a process and its descendants; None if /proc does not have them."""
    ticks = memory = shared = 0
    waiting, found = [root], False
    page, hertz = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    while waiting:
        folder = "/proc/%d/" % waiting.pop()
        try:
            # Of a process and the children that it has waited for. The name may contain anything.
            figures = _text(folder + "stat").rpartition(")")[2].split()[11:15]
            resident, of_files = map(int, _text(folder + "statm").split()[1:3])
            ticks += sum(map(int, figures))
            memory += resident - of_files
            shared = max(shared, of_files)
            found = True
            for thread in os.listdir(folder + "task"):
                waiting += map(int, _text(folder + "task/%s/children" % thread).split())
        except (OSError, ValueError):
            pass  # It has ended, or this kernel does not list children.
    return (ticks / hertz, (memory + shared) * page) if found else None


def _field(text: str, name: str) -> int:
    return int(text[text.index(name) + len(name) :].split(None, 1)[0])


def _text(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()

"""The processor time that a job's runner spends on reading and reporting its usage, per second of job.

The cgroup is this machine's own, which is read as that of a container.
"""

from __future__ import annotations

import subprocess
import sys
import time

from stoke.remote.runner import usage
from stoke.remote.runner.event_writer import EventWriter
from stoke.remote.runner.streams import write_all

REPORTS = 100
LIMIT = 0.001
"""Of a core."""
SLEEPERS = """
import subprocess, sys
for _ in range(int(sys.argv[1])):
    subprocess.Popen([sys.executable, "-ISc", "import time; print(flush=True); time.sleep(600)"])
input()
"""


def main() -> None:
    for count in (1, 10, 100):
        with _processes(count) as leader:
            _measure(f"{count + 1} processes", leader.pid, False)
            leader.kill()
    if usage.cgroup_usage() is None:
        print("live usage: no cgroup of this machine can be read")
    else:
        _measure("a cgroup", 0, True)


def _processes(count: int) -> subprocess.Popen[bytes]:
    leader = subprocess.Popen(
        [sys.executable, "-ISc", SLEEPERS, str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0,
    )  # fmt: skip
    assert leader.stdout is not None
    for _ in range(count):  # Each has started.
        leader.stdout.readline()
    return leader


def _measure(of: str, group: int, in_container: bool) -> None:
    with open("/dev/null", "wb", buffering=0) as log:
        events = EventWriter("0" * 32, [], False, lambda _, data: write_all(log.fileno(), data))
        reporter = usage.UsageReporter(events, group, in_container)
        spent, between = time.thread_time(), 0.0
        for _ in range(REPORTS):
            between += reporter.report() or 0.0
        share = (time.thread_time() - spent) / between if between else 1.0
    verdict = "ok" if share <= LIMIT else "NOT REACHED"
    print(
        f"live usage of {of}: {share * 1000:.3f} ms of processor time per second of job, one report "
        f"in {between / REPORTS:.1f} s (<= {LIMIT * 1000:.0f} ms) {verdict}",
        flush=True,
    )

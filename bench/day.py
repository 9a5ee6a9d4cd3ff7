"""Memory growth of the screens over a day of jobs: 100,000 events."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench.log_window import home, opened, say
from bench.measure import STOKE

EVENTS = 100_000
PER_JOB = 20
# The list is full after this many; growth is measured from here.
WARM = 10_000


def _memory(pid: int) -> float:
    """Return the process's memory in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    from stoke.files.paths import job_dir
    from stoke.history.database import History
    from stoke.history.job import Job, JobState, Phase
    from stoke.logs.spool import STDOUT, SpoolWriter

    with home(None) as (env, _), History() as history, opened([STOKE], env) as terminal:
        terminal.until("No jobs yet")
        grown = 0.0
        before: float | None = None
        for number in range(EVENTS // PER_JOB):
            name = f"job-{number:06}"
            job = Job(name, "job", "local", "default", JobState.QUEUED, time.time())
            history.add(job, None, None)
            spool = SpoolWriter(job_dir(name))
            for event in range(PER_JOB - 1):
                history.set_phase(name, Phase(f"phase {event % 5}", time.time(), 0.1, True))
                spool.add(STDOUT, time.time_ns(), b"a line of output\n")
                spool.flush()
            spool.close()
            history.update(name, state=JobState.SUCCEEDED, finished_at=time.time())
            terminal.rest(0.001)
            if number * PER_JOB >= WARM and number % 100 == 0:
                now = _memory(terminal.pid)
                before = before or now
                grown = max(grown, now - before)
        assert before is not None
        say(f"memory after {EVENTS:,} events ({before:.0f} MB before), grown by", grown, "MB", 10)


if __name__ == "__main__":
    main()

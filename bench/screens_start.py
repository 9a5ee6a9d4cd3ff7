"""From the command to the first paint of the screens, beside a bare Textual app that shows one line."""

from __future__ import annotations

import sys
import time

from bench.log_window import home, opened
from bench.measure import STOKE, pairs, report

JOBS = 10_000
_BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("=FIRST=PAINT=")
Bare().run()
"""


def _first_paint(command: list[str], env: dict[str, str], text: str) -> float:
    with opened(command, env) as terminal:
        return terminal.until(text)


def fill(jobs: int) -> None:
    """Create a history of this many finished jobs, in the home of the environment."""
    from stoke.history.database import History
    from stoke.history.job import Job, JobState

    with History() as history:
        for number in range(jobs):
            name = f"job-{number:06}"
            job = Job(name, "job", "local", "default", JobState.QUEUED, time.time() - number)
            history.add(job, None, None)
            history.update(name, state=JobState.SUCCEEDED, finished_at=time.time())


def main() -> None:
    bare = [sys.executable, "-c", _BARE]
    with home(None) as (env, _):
        for jobs, shows in ((0, "No jobs yet"), (JOBS, "job-000000")):
            fill(jobs)
            ours, theirs, ratio = pairs(
                lambda shows=shows: _first_paint([STOKE], env, shows),  # type: ignore[misc]
                lambda: _first_paint(bare, env, "=FIRST=PAINT="),
                7,
            )
            report(f"first paint with {jobs:,} jobs, a bare Textual app", ours, theirs, ratio, 1.5)


if __name__ == "__main__":
    main()

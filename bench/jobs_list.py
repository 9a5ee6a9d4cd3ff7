"""The screens with a history of 10,000 jobs, on their own terminal: start, keys and memory.

First paint is until the newest job is on the terminal, against a Textual app that shows one line;
both in one run, by turns. A key's time is from the key to the text that only it can bring.
"""

from __future__ import annotations

import random
import statistics
import sys
import time

from bench.log_window import Terminal, home, opened
from bench.measure import STOKE, pairs, report

JOBS = 10_000
KEYS = 15
PACKAGES = ("numpy", "pandas", "requests", "scikit-learn", "torch", "click", "rich", "polars")
_BARE = """
from textual.app import App
from textual.widgets import Static

class Bare(App):
    def compose(self):
        yield Static("bare and ready")

Bare().run()
"""


def fill(count: int) -> None:
    """Create a history like that of some months: mixed states, backends, phases and packages. The
    newest job is `job-0`."""
    from stoke.history.database import History
    from stoke.history.job import Job, JobState, Phase

    chance, now = random.Random(1), time.time()
    states = [JobState.SUCCEEDED] * 7 + [JobState.FAILED] * 2 + [JobState.STOPPED]
    with History() as history, history.transaction():
        for number in range(count):
            begun = now - 60 - number * 600
            job = Job(f"job-{number}", f"name-{number % 40}", "local", "default",
                      JobState.QUEUED, begun)  # fmt: skip
            job.backend = chance.choice(("local", "docker", "argo"))
            job.request_hash = f"request-{number % 200}"
            spec = f'{{"code": "{"print(1);" * 100}", "use_cache": true}}'
            history.add(job, spec, None)
            hit, taken = chance.random() < 0.8, chance.random() * 100
            for phase in (
                Phase("start", begun, 0.4),
                Phase("lock", begun + 0.4, 0.002, True, 41, 41, 0),
                Phase("python", begun + 0.5, 0.001 if hit else 5.2, hit, 41, 41, 0),
                Phase("run", begun + 6, taken),
            ):
                history.set_phase(job.id, phase)
            history.update(job.id, state=chance.choice(states), finished_at=begun + 6 + taken,
                           exit_code=0, log_lines=number, log_bytes=number * 80)  # fmt: skip
        for number in range(200):
            names = chance.sample(PACKAGES, 3)
            history.add_asked(f"request-{number}", "python", names)


def _shown(terminal: Terminal, keys: str, text: str) -> float:
    terminal.rest(0.3)
    terminal.press(keys)
    return terminal.until(text)


def _say(what: str, figure: float, unit: str, limit: float) -> None:
    verdict = "ok" if figure <= limit else "NOT REACHED"
    print(f"jobs list: {what} {figure:.3g} {unit} (<= {limit:g}) {verdict}", flush=True)


def painting(env: dict[str, str]) -> None:
    def first_paint(command: list[str], text: str) -> float:
        with opened(command, env) as terminal:
            return terminal.until(text)

    ours, theirs, ratio = pairs(
        lambda: first_paint([STOKE], r"job-0\b"),
        lambda: first_paint([sys.executable, "-c", _BARE], "bare and ready"),
        9,
    )
    report(f"jobs list: first paint with {JOBS:,} jobs, bare Textual", ours, theirs, ratio, 1.5)


def keys(env: dict[str, str]) -> None:
    with opened([STOKE], env) as terminal:
        terminal.until(r"job-0\b")
        terminal.rest(2)
        ends, steps, sorts, filters = [], [], [], []
        for _ in range(KEYS):
            ends.append(_shown(terminal, "G", rf"job-{JOBS - 1}\b"))
            ends.append(_shown(terminal, "g", r"job-0\b"))
            steps.append(_shown(terminal, "j", r"job-1\b"))
        for _ in range(KEYS):
            sorts.append(_shown(terminal, "O", r"▲|▼"))
        for _ in range(KEYS // 3):
            _shown(terminal, "/", "package:numpy")
            for typed in "job-":
                terminal.press(typed)
                terminal.rest(0.2)
            # Each filter selects other jobs and shows their number.
            filters += [_shown(terminal, typed, "of 10,000") for typed in "987"]
            terminal.press("\x1b")
            terminal.rest(0.5)
        for what, times in (
            ("from one end to the other", ends),
            ("a job further down", steps),
            ("sorting the other way", sorts),
            ("a letter of a filter", filters),
        ):
            _say(f"{what}, median of {len(times)}", statistics.median(times) * 1000, "ms", 50)
        terminal.rest(1)
        _say("memory at most", terminal.memory(), "MB", 100)


def main() -> None:
    with home(None) as (env, _):
        fill(JOBS)
        painting(env)
        keys(env)


if __name__ == "__main__":
    main()

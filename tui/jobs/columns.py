"""The columns of the list of jobs: their cells, and which of them are shown in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from stoke.history.job import SWEEP, Job, JobState, Phase
from stoke.history.listing import Listing
from stoke.text.sparkline import sparkline
from tui import format as fmt

STATES = {
    JobState.QUEUED: ("○ queued", "$wait"),
    JobState.STARTING: ("◔ starting", "$busy"),
    JobState.RUNNING: ("● running", "$busy"),
    JobState.SUCCEEDED: ("✓ succeeded", "$good"),
    JobState.FAILED: ("✗ failed", "$bad"),
    JobState.STOPPED: ("■ stopped", "$warn"),
    JobState.LOST: ("? lost", "$odd"),
}


def state_text(job: Job) -> Text:
    """Return the state in words and colour, with `?` if it is not confirmed."""
    words, style = STATES[job.state]
    return Text(words + state_mark(job), style=style)


def state_mark(job: Job) -> str:
    """Return what follows a state that is not confirmed."""
    return "?" if job.stale or job.provisional else ""


def _phase(job: Job, name: str) -> Phase | None:
    return next((phase for phase in job.phases if phase.name == name), None)


def _hit(job: Job, kind: str) -> Text:
    phase = _phase(job, kind)
    hit = phase.hit if phase else None
    return Text(fmt.hit(hit), style={True: "$good", False: "$warn", None: "$quiet"}[hit])


def _packages(job: Job) -> str:
    phases = [_phase(job, kind) for kind in ("system", "python")]
    counts = [phase.packages for phase in phases if phase and phase.packages is not None]
    return f"{sum(counts):,}" if counts else fmt.UNKNOWN


_ACTIVE = (JobState.RUNNING, JobState.STARTING, JobState.QUEUED)

# What a reason is about, in a word or two, and the texts that tell it.
_CAUSES = (
    ("out of memory", ("out of memory", "oomkilled", "memory limit")),
    ("timeout", ("timeout", "timed out", "time limit")),
    ("no solution", ("no solution",)),
    ("unschedulable", ("unschedulable", "insufficient")),
    ("image", ("cannot pull", "imagepull")),
    ("never started", ("never started",)),
    ("queue paused", ("the queue is paused",)),
    ("slot", ("waits for a slot",)),
    ("gpu", ("gpus wanted",)),
)
# What a job in the queue waits for.
_FOLLOWS = re.compile(r"waits for (\S+) to (?:succeed|end) ")


def activity(job: Job) -> str:
    """Return what the active phase of a job is doing, if that is known."""
    return next((one.activity for one in reversed(job.phases) if one.activity), "")


class Load(Text):
    """Figures, preceded by as much of a curve or a progress bar as there is space for."""

    def __init__(self, before: str, figures: str, keeps_end: bool) -> None:
        super().__init__(f"{before} {figures}", style="$busy")
        self._before, self._figures, self._keeps_end = before, figures, keeps_end

    def fitted(self, width: int) -> str:
        """Return the cell in `width` columns, without one end of what precedes the figures."""
        room = max(0, width - cell_len(self._figures) - 1)
        before = self._before[-room:] if self._keeps_end and room else fmt.fit(self._before, room)
        return f"{before if room else '':<{room}} {self._figures}"


def _why(job: Job) -> Text | str:
    """Return the load of a job that runs, what one does that starts, and why one ended."""
    if job.kind == SWEEP:
        return Text(job.bar, style="$bad" if job.state is JobState.FAILED else "")
    if is_live(job):
        return _load(job)
    reason = job.reason or ""
    lower = reason.lower()
    for cause, texts in _CAUSES:
        if any(text in lower for text in texts):
            reason = cause
            break
    followed = _FOLLOWS.match(reason)
    if followed:
        return f"after {followed[1]}"
    # `lock: there is no package ...`: the phase is in the details.
    reason = reason.partition(": ")[2] or reason
    if not reason and not job.state.finished:
        return job.bar or activity(job)
    if not reason and job.exit_code:
        reason = f"exit {job.exit_code}"
    if job.sweep is not None:
        reason = f"{reason} {job.bar}".strip()
    return Text(reason, style="$bad") if job.state == JobState.FAILED else reason


def _load(job: Job) -> Load:
    """Return processor load and memory, with the curve of the load or the job's own progress bar."""
    cores = [one.cores for one in job.recent]
    figures = f"{fmt.load(cores[-1]):>4} {fmt.short_size(job.recent[-1].memory):>5}"
    if job.bar:
        return Load(job.bar, figures, keeps_end=False)
    return Load(sparkline(cores, len(cores), max(1, *cores)), figures, keeps_end=True)


def is_live(job: Job) -> bool:
    """Return whether the code of a job runs and its usage is known."""
    return job.state is JobState.RUNNING and bool(job.recent)


def _seconds(job: Job, now: float) -> str:
    seconds = job.seconds
    if seconds is None and not job.stale:
        seconds = max(0.0, now - job.submitted_at)
    return fmt.duration(seconds)


@dataclass(frozen=True)
class Column:
    """`stoke.history.listing` sorts by `name`; `cell` gets the job and the time, in epoch seconds.

    A column with a `stretch` uses the space that the others leave, up to `stretch` cells, and up to
    `early` cells before all others. Columns with a `rank` are left out where they do not fit, the
    highest first.
    """

    name: str
    label: str
    width: int
    cell: Callable[[Job, float], Text | str]
    right: bool = False
    stretch: int = 0
    early: int = 0
    rank: int = 0


COLUMNS = {
    column.name: column
    for column in (
        Column("state", "state", 12, lambda job, _: state_text(job)),
        Column("job", "job", 19, lambda job, _: job.id, stretch=47),
        Column("name", "name", 16, lambda job, _: job.name),
        Column("backend", "on", 6, lambda job, _: job.backend, rank=3),
        Column("scope", "scope", 10, lambda job, _: job.scope),
        Column(
            "age", "age", 4, lambda job, now: fmt.age(now - job.submitted_at), right=True, rank=4
        ),
        Column("time", "time", 6, _seconds, right=True),
        Column("environment", "env", 6, lambda job, _: fmt.duration(job.environment_seconds), True),
        Column("python", "py", 4, lambda job, _: _hit(job, "python"), rank=5),
        Column("system", "sys", 4, lambda job, _: _hit(job, "system")),
        Column("packages", "pkgs", 5, lambda job, _: _packages(job), right=True),
        Column("received", "recvd", 8, lambda job, _: fmt.size(job.received_bytes), right=True),
        Column("exit", "exit", 4, lambda job, _: _number(job.exit_code), right=True),
        Column("cpu", "cpu", 6, lambda job, _: fmt.duration(job.cpu_seconds), right=True),
        Column("memory", "mem", 8, lambda job, _: fmt.size(job.peak_memory), right=True),
        Column("lines", "lines", 7, lambda job, _: f"{job.log_lines:,}", right=True),
        Column("image", "image", 20, lambda job, _: job.image or ""),
        Column("reason", "why / load", 13, lambda job, _: _why(job), stretch=60, early=18, rank=1),
    )
}
SHOWN = ("state", "job", "reason", "backend", "age", "time", "python")
"""The columns shown by default."""


def _number(value: int | None) -> str:
    return fmt.UNKNOWN if value is None else f"{value:,}"


def known(names: object) -> tuple[str, ...]:
    """Return the names of columns in a stored value, each once; the defaults if there is none."""
    stored = names if isinstance(names, list) else []
    valid = [name for name in stored if isinstance(name, str) and name in COLUMNS]
    return tuple(dict.fromkeys(valid)) or SHOWN


def fitting(columns: Sequence[Column], available: int) -> list[Column]:
    """Return the columns that fit into `available` cells."""
    ranked = sorted((column for column in columns if column.rank), key=lambda column: column.rank)
    fitted = [column for column in columns if not column.rank]
    for column in ranked:
        if _total([*fitted, column]) <= available:
            fitted.append(column)
    return [column for column in columns if column in fitted] or list(columns)


def _total(columns: Sequence[Column]) -> int:
    """Return the cells of the columns, with one between them and one at either edge."""
    return sum(column.width for column in columns) + len(columns) + 1


def widths(columns: Sequence[Column], available: int) -> list[int]:
    """Return the width of each column."""
    result = [column.width for column in columns]
    left = available - _total(columns)
    for limits in ([column.early for column in columns], [column.stretch for column in columns]):
        for at, limit in enumerate(limits):
            more = max(0, min(left, limit - result[at]))
            result[at] += more
            left -= more
    return result


def counts_by_state(listing: Listing, is_short: bool = False) -> list[str]:
    """Return the counts of jobs that may need attention, for the title; with symbols if it is short."""

    def count(number: str, state: JobState) -> str:
        return f"{STATES[state][0][0]} {number}" if is_short else f"{number} {state}"

    more = "+" if listing.has_more_lately else ""
    parts = [
        count(f"{listing.unfinished[one]:,}", one) for one in _ACTIVE if one in listing.unfinished
    ]
    failed = listing.failed_lately
    return [*parts, f"{count(f'{failed:,}{more}', JobState.FAILED)} today"] if failed else parts

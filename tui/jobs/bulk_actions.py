"""What is done to several jobs at once, and the question that comes before it.

The question names what goes; each job is done by itself, so that one that cannot be costs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from stoke.backend import pool
from stoke.errors import StokeError
from stoke.history.database import History
from stoke.history.job import Job
from stoke.jobs import control
from tui import format as fmt

NAMED = 8
"""So many jobs a question names; of more it says how many."""


@dataclass
class Outcome:
    well: list[str] = field(default_factory=list)
    """The ids of those it was done to."""
    said: list[str] = field(default_factory=list)
    """What there is to know besides, each thing once."""
    wrong: list[StokeError] = field(default_factory=list)


@dataclass(frozen=True)
class Deed:
    """`jobs` are those it can be done to; `title`, `body` and `verb` make the question; `do` returns
    what there is to know besides."""

    jobs: Sequence[Job]
    title: str
    body: Text
    verb: str
    done: str
    do: Callable[[Job], str | None]

    def outcome(self) -> Outcome:
        """Does it."""
        outcome = Outcome()
        for job in self.jobs:
            try:
                said = self.do(job)
            except StokeError as error:
                outcome.wrong.append(error)
                continue
            outcome.well.append(job.id)
            if said is not None and said not in outcome.said:
                outcome.said.append(said)
        return outcome


def stopping(jobs: Sequence[Job], backends: pool.Backends, history: History, grace: float) -> Deed:
    open_ones = [job for job in jobs if not job.state.finished]
    body = _named(open_ones)
    whose = "Its" if len(open_ones) == 1 else "Their"
    body.append(
        f"\n\n{whose} code is asked to end; after {fmt.duration(grace)} it is killed. "
        "The log and the caches stay."
    )
    _left(body, len(jobs) - len(open_ones), "over already")

    def do(job: Job) -> str | None:
        return control.stop(job, backends.get(job.backend), history, grace)

    return Deed(open_ones, _title("Stop", open_ones), body, "Stop", "stopping", do)


def removing(jobs: Sequence[Job], backends: pool.Backends, history: History) -> Deed:
    over = [job for job in jobs if job.state.finished]
    body = _named(over)
    lines = fmt.count(sum(job.log_lines for job in over), "line")
    size = fmt.size(sum(job.log_bytes for job in over))
    whose, log = ("Its", "log") if len(over) == 1 else ("Their", "logs")
    body.append(f"\n\n{whose} {log} ({lines}, {size}), phases and request go. The caches stay.")
    _left(body, len(jobs) - len(over), "not over")

    def do(job: Job) -> None:
        control.remove(job, control.backend_of(job, backends), history)

    return Deed(over, _title("Remove", over), body, "Remove", "removed", do)


def _title(verb: str, jobs: Sequence[Job]) -> str:
    return f"{verb} this job?" if len(jobs) == 1 else f"{verb} {len(jobs):,} jobs?"


def _named(jobs: Sequence[Job]) -> Text:
    more = len(jobs) - NAMED
    text = Text("\n").join(fmt.plain(job.id, "bold") for job in jobs[:NAMED])
    return text.append(f"\nand {more:,} more") if more > 0 else text


def _left(body: Text, count: int, why: str) -> None:
    if count:
        are = "is" if count == 1 else "are"
        body.append(f"\n{fmt.count(count, 'marked job')} {are} {why} and left alone.")

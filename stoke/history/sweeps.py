"""Sweeps: one request that runs as many tasks, each with other values.

A sweep is a row of `jobs` whose kind is "sweep". Its tasks are rows of values; task N becomes a job,
`SWEEP-N`, when a slot is free for it. Tasks become jobs in their order, so `begun` counts them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stoke.errors import EngineError
from stoke.history.job import SWEEP, JobState
from stoke.history.queue import JobQueue
from stoke.request.sweep_values import Table

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.job import Job

STRIP_MARKS = {
    JobState.FAILED: "x",
    JobState.LOST: "x",
    JobState.RUNNING: "▸",
    JobState.STARTING: "▸",
    JobState.QUEUED: "·",
    JobState.STOPPED: "-",
    JobState.SUCCEEDED: "■",
}
"""A mark for each state of a task, those that need attention most first."""
_BY_RANK = list(STRIP_MARKS)
ATTENTION = {state: rank for rank, state in enumerate(STRIP_MARKS)}
_RANKS = " ".join(f"WHEN '{state.value}' THEN {rank}" for state, rank in ATTENTION.items())
BY_ATTENTION = f"CASE jobs.state {_RANKS} ELSE {ATTENTION[JobState.LOST]} END"
"""SQL for the rank of a job's state."""
LONGEST_KEY = 1000
"""Characters of a task's values that become a part of its checkpoint's name."""


@dataclass(frozen=True)
class Sweep:
    """What a history has of a sweep besides its row in `jobs`."""

    id: str
    names: tuple[str, ...]
    tasks: int
    begun: int
    """How many tasks have become jobs: those with the numbers 1 to `begun`."""
    max_parallel: int | None
    max_fails: int | None
    """With more failed tasks than this, the sweep ends."""
    closed: str | None
    """Why no more of its tasks start."""

    @property
    def has_waiting(self) -> bool:
        return self.closed is None and self.begun < self.tasks


@dataclass(frozen=True)
class Task:
    """One task of a sweep. `job` is None before it becomes a job, and if that was removed."""

    number: int
    values: tuple[str, ...]
    job: Job | None
    state: JobState


@dataclass(frozen=True)
class TaskCounts:
    """How many tasks are in each state. A task that can no longer start counts as stopped."""

    states: Mapping[JobState, int] = field(default_factory=dict)

    def of(self, *states: JobState) -> int:
        return sum(self.states.get(state, 0) for state in states)

    @property
    def finished(self) -> int:
        return sum(count for state, count in self.states.items() if state.finished)

    @property
    def failed(self) -> int:
        return self.of(JobState.FAILED, JobState.LOST)


@dataclass(frozen=True)
class NewTask:
    """A task that has just become a job."""

    job_id: str
    number: int


class Sweeps:
    """The sweeps of one history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add(
        self,
        sweep_id: str,
        table: Table,
        max_parallel: int | None = None,
        max_fails: int | None = None,
    ) -> None:
        """Make a job the sweep of these tasks. The caller's transaction has added the job."""
        self._history.query("UPDATE jobs SET job_kind = ? WHERE id = ?", (SWEEP, sweep_id))
        self._history.query(
            "INSERT INTO sweeps (id, value_names, tasks, max_parallel, max_fails) "
            "VALUES (?, ?, ?, ?, ?)",
            (sweep_id, json.dumps(table.names), len(table.rows), max_parallel, max_fails),
        )
        self._history.query_many(
            "INSERT INTO sweep_tasks VALUES (?, ?, ?)",
            ((sweep_id, number, json.dumps(values)) for number, values in enumerate(table.rows, 1)),
        )

    def get(self, sweep_id: str) -> Sweep | None:
        rows = self._history.query("SELECT * FROM sweeps WHERE id = ?", (sweep_id,))
        if not rows:
            return None
        row = rows[0]
        return Sweep(
            row["id"], tuple(_texts(row["value_names"])), row["tasks"], row["begun"],
            row["max_parallel"], row["max_fails"], row["closed"],
        )  # fmt: skip

    def of(self, job: Job) -> Sweep:
        """Return the sweep that a job of this kind is. `EngineError` if its record is damaged."""
        sweep = self.get(job.id)
        if sweep is None:
            raise EngineError(f"the record of the sweep {job.id} is damaged")
        return sweep

    def values(self, sweep_id: str, number: int) -> tuple[str, ...]:
        rows = self._history.query(
            "SELECT task_values FROM sweep_tasks WHERE sweep_id = ? AND number = ?",
            (sweep_id, number),
        )
        return tuple(_texts(rows[0]["task_values"])) if rows else ()

    def values_text(self, sweep_id: str, number: int) -> str:
        """Return the values of a task with their names: `lr=0.1 seed=3`."""
        sweep = self.get(sweep_id)
        names = () if sweep is None else sweep.names
        pairs = zip(names, self.values(sweep_id, number), strict=False)
        return " ".join(f"{name}={value}" for name, value in pairs)

    def begin_next(self, sweep_id: str) -> NewTask | None:
        """Make the next task a job that waits in the queue; None if there is none, or none may start.

        Its place in the queue is that of the sweep.
        """
        with self._history.transaction():
            sweep = self.get(sweep_id)
            if sweep is None or not sweep.has_waiting:
                return None
            task = self._begin(sweep, sweep.begun + 1, JobState.QUEUED)
            JobQueue(self._history).add_beside(task.job_id, sweep_id)
        return task

    def begin_started(self, sweep_id: str, number: int) -> list[NewTask]:
        """Make the tasks up to this number jobs, because their engine has started them; return the new
        ones."""
        with self._history.transaction():
            sweep = self.get(sweep_id)
            if sweep is None:
                return []
            numbers = range(sweep.begun + 1, min(number, sweep.tasks) + 1)
            return [self._begin(sweep, one, JobState.STARTING) for one in numbers]

    def _begin(self, sweep: Sweep, number: int, state: JobState) -> NewTask:
        """Make a task a job. The caller has a transaction."""
        history = self._history
        job = history.get(sweep.id)
        of_sweep = None if job is None else job.checkpoint
        checkpoint = task_checkpoint(of_sweep, self.values(sweep.id, number))
        nonce = task_nonce(history.nonce(sweep.id) or "", number)
        history.query("UPDATE sweeps SET begun = ? WHERE id = ?", (number, sweep.id))
        task = NewTask(task_id(sweep.id, number), number)
        history.query(
            "INSERT INTO jobs (id, name, backend, scope, state, submitted_at, image, "
            "request_hash, python_hash, system_hash, nonce, use_cache, checkpoint, sweep, task) "
            "SELECT ?2, name, backend, scope, ?7, ?3, image, request_hash, python_hash, "
            "system_hash, ?4, use_cache, ?6, ?1, ?5 FROM jobs WHERE id = ?1",
            (sweep.id, task.job_id, time.time(), nonce, number, checkpoint, state.value),
        )
        return task

    def close(self, sweep_id: str, why: str) -> None:
        """Start no more of its tasks."""
        self._history.query(
            "UPDATE sweeps SET closed = ? WHERE id = ? AND closed IS NULL", (why, sweep_id)
        )

    def unfinished_jobs(self, sweep_id: str) -> list[Job]:
        """Return the jobs of its tasks that have no final end."""
        rows = self._history.query(
            "SELECT id FROM jobs WHERE sweep = ? "
            "AND (state IN ('queued', 'starting', 'running') OR provisional) ORDER BY task",
            (sweep_id,),
        )
        return [job for job in (self._history.get(row["id"]) for row in rows) if job is not None]

    def has_unfinished(self, sweep_id: str) -> bool:
        return bool(
            self._history.query(
                "SELECT 1 FROM jobs WHERE sweep = ? "
                "AND (state IN ('queued', 'starting', 'running') OR provisional) LIMIT 1",
                (sweep_id,),
            )
        )

    def uncollected(self, sweep_id: str) -> Job | None:
        """Return the first of its tasks whose results may still be at the engine."""
        rows = self._history.query(
            "SELECT id FROM jobs WHERE sweep = ? AND results_at IS NULL AND results_problem IS NULL "
            "ORDER BY task LIMIT 1",
            (sweep_id,),
        )
        return self._history.get(rows[0]["id"]) if rows else None

    def counts(self, sweep: Sweep) -> TaskCounts:
        rows = self._history.query(
            "SELECT state, count(*) AS number FROM jobs WHERE sweep = ? GROUP BY state", (sweep.id,)
        )
        found: dict[JobState, int] = {}
        known = {state.value: state for state in JobState}
        for row in rows:
            state = known.get(row["state"], JobState.LOST)
            found[state] = found.get(state, 0) + int(row["number"])
        removed = max(0, sweep.begun - sum(found.values()))
        waiting = JobState.QUEUED if sweep.closed is None else JobState.STOPPED
        for state, number in ((waiting, sweep.tasks - sweep.begun), (JobState.LOST, removed)):
            if number:
                found[state] = found.get(state, 0) + number
        return TaskCounts(found)

    def states(self, sweep: Sweep) -> list[JobState]:
        """Return the state of each task, in their order."""
        return self.strip(sweep, sweep.tasks)

    def strip(self, sweep: Sweep, width: int) -> list[JobState]:
        """Return the states of at most `width` cells. A cell for several tasks has the state that needs
        attention most: failed, then running, waiting, stopped, succeeded."""
        cells = min(width, sweep.tasks)
        rows = self._history.query(
            f"SELECT (task - 1) * ?1 / ?2 AS cell, min({BY_ATTENTION}) AS rank FROM jobs "  # noqa: S608
            "WHERE sweep = ?3 GROUP BY cell",
            (cells, sweep.tasks, sweep.id),
        )
        ranks = {int(row["cell"]): int(row["rank"]) for row in rows if row["cell"] is not None}
        waiting = JobState.QUEUED if sweep.closed is None else JobState.STOPPED
        begun = sweep.begun * cells // sweep.tasks  # The cells before have no task that waits.
        found = []
        for cell in range(cells):
            states = [_BY_RANK[ranks[cell]]] if cell in ranks else []
            if cell >= begun:
                states.append(waiting)
            found.append(min(states, key=ATTENTION.__getitem__, default=JobState.LOST))
        return found

    def bar(self, sweep_id: str, width: int) -> str:
        """Return how many tasks have ended, and a strip as marks: `45/200 ■■■x▸···`."""
        sweep = self.get(sweep_id)
        if sweep is None:
            return ""
        marks = "".join(STRIP_MARKS[state] for state in self.strip(sweep, width))
        return f"{self.counts(sweep).finished:,}/{sweep.tasks:,} {marks}"

    def first_start(self, sweep_id: str) -> float | None:
        """Return when the first of its tasks became a job (epoch seconds)."""
        first = self._history.get(task_id(sweep_id, 1))
        return None if first is None else first.submitted_at

    def tasks(self, sweep: Sweep, numbers: Iterable[int] | None = None) -> Iterator[Task]:
        """Yield the tasks in their order; only these numbers, if any are given."""
        wanted = None if numbers is None else json.dumps(sorted(numbers))
        rows = self._history.query(
            "SELECT number, task_values FROM sweep_tasks WHERE sweep_id = ?1 AND "
            "(?2 IS NULL OR number IN (SELECT value FROM json_each(?2))) ORDER BY number",
            (sweep.id, wanted),
        )
        jobs = {
            job.id: job
            for job in self._history.those(task_id(sweep.id, row["number"]) for row in rows)
        }
        waiting = JobState.QUEUED if sweep.closed is None else JobState.STOPPED
        for row in rows:
            job = jobs.get(task_id(sweep.id, row["number"]))
            if job is not None:
                state = job.state
            else:
                state = JobState.LOST if row["number"] <= sweep.begun else waiting
            yield Task(row["number"], tuple(_texts(row["task_values"])), job, state)


def task_id(sweep_id: str, number: int) -> str:
    """Return the id of a task's job."""
    return f"{sweep_id}-{number}"


def task_nonce(nonce: str, number: int) -> str:
    """Return the nonce of a task, given that of its sweep: an engine that starts the tasks needs it
    before they are jobs."""
    return hashlib.sha256(f"{nonce} {number}".encode()).hexdigest()[:16]


def task_checkpoint(checkpoint: str | None, values: Sequence[str]) -> str | None:
    """Return the name of a task's checkpoint, given that of its sweep."""
    return None if checkpoint is None else f"{checkpoint} {_checkpoint_key(values)}"


def _checkpoint_key(values: Sequence[str]) -> str:
    """Return the part of a checkpoint's name that tells tasks with other values apart. It is a hash if
    they are long, because the history takes no longer names."""
    key = json.dumps(values)
    return key if len(key) <= LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()


def _texts(stored: Any) -> list[str]:
    try:
        return [str(one) for one in json.loads(stored)]
    except (TypeError, ValueError):
        return []

"""List the jobs of a history: filtered, sorted and grouped.

SQLite does the work. A listing holds one row number per job, so ten thousand jobs cost almost nothing;
a job itself is read when it is shown.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stoke.history.database import History
from stoke.history.job import SWEEP, Job, JobState
from stoke.history.rows import name_of, named
from stoke.history.sweeps import BY_ATTENTION, Sweeps

PAGE = 64
"""The number of jobs that are read at once."""
_MOST_PAGES = 32
DAY_SECONDS = 86_400
BAR_CELLS = 12
"""Cells of the strip of a sweep's tasks."""
MOST_LATELY = 1000
"""The most jobs whose states are counted: each is read from its row."""

# Jobs that may need attention come first.
STATES = (
    JobState.RUNNING,
    JobState.STARTING,
    JobState.QUEUED,
    JobState.FAILED,
    JobState.LOST,
    JobState.STOPPED,
    JobState.SUCCEEDED,
)
_RANKS = " ".join(f"WHEN {state.value!r} THEN {rank}" for rank, state in enumerate(STATES))
# An unknown state is shown as lost.
_BY_STATE = f"CASE state {_RANKS} ELSE {STATES.index(JobState.LOST)} END"


def _phases(what: str, *names: str) -> str:
    marks = ", ".join(f"'{name}'" for name in names)
    return f"(SELECT {what} FROM phases WHERE job_id = jobs.id AND name IN ({marks}))"  # noqa: S608


def _usage(column: str) -> str:
    """Return the newest figure of a job that runs."""
    return f"(SELECT {column} FROM usage WHERE job_id = jobs.id AND state = 'running')"  # noqa: S608


class Order(NamedTuple):
    """An SQL expression to sort by, and whether its default order is descending."""

    sql: str
    descending: bool = False


# Sums of integers that do not fit end in an error, and a damaged row may have any.
ORDERS = {
    "state": Order(_BY_STATE),
    "job": Order("id COLLATE NOCASE"),
    "name": Order("name COLLATE NOCASE"),
    "backend": Order("backend"),
    "scope": Order("scope"),
    "age": Order("submitted_at", True),
    "time": Order("coalesce(finished_at, ?1) - submitted_at", True),
    "environment": Order(_phases("sum(1.0 * seconds)", "lock", "system", "python"), True),
    "python": Order(_phases("hit", "python")),
    "system": Order(_phases("hit", "system")),
    "packages": Order(_phases("sum(1.0 * packages)", "system", "python"), True),
    "received": Order(_phases("sum(1.0 * bytes)", "lock", "system", "python"), True),
    "load": Order(_usage("cores"), True),
    "ram": Order(_usage("memory"), True),
    "exit": Order("exit_code", True),
    "cpu": Order("cpu_seconds", True),
    "memory": Order("peak_memory", True),
    "lines": Order("log_lines", True),
    "image": Order("image"),
    "reason": Order("reason COLLATE NOCASE"),
}
"""By the name of the column that shows the value. Unknown values come last in both directions."""
_BACKEND = "iif(typeof(backend) = 'text', backend, '?')"
GROUPS = {"state": _BY_STATE, "backend": _BACKEND}
_KNOWN = ", ".join(f"'{state.value}'" for state in STATES)
_GROUP_NAMES = {
    "state": f"iif(state IN ({_KNOWN}), state, '{JobState.LOST.value}')",
    "backend": _BACKEND,
}

# LIKE ignores case. Five LIKEs take half the time of one search in the five texts joined and lowered.
_LIKE = "LIKE {0} ESCAPE '!'"
_ASKED = f"request_hash IN (SELECT request_hash FROM asked_packages WHERE name {_LIKE})"  # noqa: S608
_FIELDS = {
    name: f"{name} {_LIKE}"
    for name in ("id", "name", "state", "backend", "scope", "image", "reason")
} | {"package": _ASKED}
_ANYWHERE = " OR ".join(
    _FIELDS[name] for name in ("id", "name", "state", "backend", "scope", "package")
)
FILTER_HINT = "a name, state, backend, scope or package; package:numpy, reason:memory, !word"


@dataclass(frozen=True)
class ListingQuery:
    """What to list, and in what order.

    Each of the `words` must occur in a job's id, name, state, backend, scope or in a package that it
    named; `field:word` looks in one field, and `!word` must not occur.
    """

    words: str = ""
    order: str = "age"
    reverse: bool = False
    group: str | None = None
    scopes: tuple[str, ...] = ()
    """Only jobs of these scopes; empty for all."""
    state: str | None = None
    """Only jobs in this state, as they were recorded last."""
    unfolded: frozenset[str] = frozenset()
    """Sweeps whose tasks are listed below them, failed ones first."""


class Group(NamedTuple):
    """A group of a listing: its first position and its number of jobs."""

    name: str
    first: int
    jobs: int


class Listing:
    """The jobs that matched the query when it was read last. Positions count from 0.

    `read` raises `EngineError`; the result of the read before that stays.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._numbers = array("q")
        self._pages: dict[int, dict[int, Job]] = {}
        self._bars: dict[str, str] = {}
        self.tasks = 0
        """How many of the listed jobs are tasks below their sweeps."""
        self.groups: tuple[Group, ...] = ()
        self.total = 0
        """The number of jobs in the history."""
        self.unfinished: dict[JobState, int] = {}
        """The numbers of jobs in the history that are queued, starting or running."""
        self.failed_lately = 0
        """The number of jobs that were submitted in the last day and failed, among `MOST_LATELY`."""
        self.has_more_lately = False
        """Whether there are more jobs of the last day than were looked at."""

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, query: ListingQuery, now: float) -> None:
        """Read the matching jobs. `now` (epoch seconds) is for the duration of unfinished jobs."""
        where, values = _condition(query.words)
        for column, wanted in (("scope", query.scopes), ("state", (query.state,))):
            if any(wanted):
                values.append(json.dumps(wanted))
                listed = f"(SELECT value FROM json_each(?{len(values) + 1}))"  # noqa: S608
                where += f" AND {column} IN {listed}"
        named = query.group if query.group in GROUPS else None
        order = ORDERS[query.order]
        direction = "DESC" if order.descending != query.reverse else "ASC"
        terms = [GROUPS[named]] if named else []
        if query.order == "age":
            # The order of the index, so that SQLite sorts nothing.
            terms += [f"submitted_at {direction}", f"rowid {direction}"]
        else:
            terms += [f"{order.sql} {direction} NULLS LAST", "submitted_at DESC", "rowid DESC"]
        name = _GROUP_NAMES[named] if named else "NULL"
        rows = self._history.query(
            f"SELECT rowid, {name} FROM jobs WHERE ?1 NOTNULL AND sweep IS NULL AND {where} "  # noqa: S608
            f"ORDER BY {', '.join(terms)}",
            (now, *values),
        )
        self.total = len(rows)
        with_tasks = self._with_tasks(rows, query.unfolded)
        self.tasks = len(with_tasks) - len(rows)
        if values:
            self.total = self._history.query("SELECT count(*) FROM jobs WHERE sweep IS NULL")[0][0]
        self._numbers = array("q", (row[0] for row in with_tasks))
        self.groups = _groups([row[1] for row in with_tasks]) if named else ()
        self._pages.clear()
        self._count(now)

    def _with_tasks(self, listed: Sequence[Any], unfolded: frozenset[str]) -> Sequence[Any]:
        """Return the listed (row number, group), with those of the tasks behind their sweeps."""
        if not unfolded:
            return listed
        below: dict[int, list[int]] = {}
        for sweep, task in self._history.query(
            "SELECT sweeps.rowid, jobs.rowid FROM jobs AS sweeps "  # noqa: S608
            "JOIN jobs ON jobs.sweep = sweeps.id "
            f"WHERE sweeps.id IN (SELECT value FROM json_each(?)) ORDER BY {BY_ATTENTION}, jobs.task",
            (json.dumps(sorted(unfolded)),),
        ):
            below.setdefault(sweep, []).append(task)
        found: list[tuple[int, str]] = []
        for number, group in listed:
            found.append((number, group))
            found += [(task, group) for task in below.get(number, ())]
        return found

    def _count(self, now: float) -> None:
        """Count by state, as far as an index has it: the whole history would be read otherwise."""
        states = "'queued', 'starting', 'running'"
        rows = self._history.query(
            f"SELECT state, count(*) FROM jobs WHERE state IN ({states}) "  # noqa: S608
            "AND sweep IS NULL GROUP BY state"
        )
        self.unfinished = {JobState(state): count for state, count in rows}
        jobs, failed = self._history.query(
            "SELECT count(*), sum(state = 'failed') FROM (SELECT state FROM jobs "
            "WHERE submitted_at > ? AND sweep IS NULL ORDER BY submitted_at DESC LIMIT ?)",
            (now - DAY_SECONDS, MOST_LATELY),
        )[0]
        self.failed_lately, self.has_more_lately = failed or 0, jobs == MOST_LATELY

    def job(self, place: int) -> Job | None:
        """Return the job at a position; None if it was removed since the last read."""
        page = place // PAGE
        if page not in self._pages:
            numbers = self._numbers[page * PAGE : (page + 1) * PAGE]
            loaded = self._history.numbered(numbers.tolist())
            for job in loaded.values():
                if job.kind == SWEEP:
                    job.bar = self._bar(job)
                elif job.sweep is not None and job.task is not None:
                    job.bar = Sweeps(self._history).values_text(job.sweep, job.task)
            while len(self._pages) >= _MOST_PAGES:
                del self._pages[next(iter(self._pages))]
            self._pages[page] = loaded
        return self._pages[page].get(self._numbers[place])

    def _bar(self, job: Job) -> str:
        """Return the strip of a sweep's tasks. That of one that has ended does not change."""
        if job.id not in self._bars:
            bar = Sweeps(self._history).bar(job.id, BAR_CELLS)
            if not job.state.finished:
                return bar
            self._bars[job.id] = bar
        return self._bars[job.id]

    def ids(self) -> list[str]:
        """Return the ids of all listed jobs, in their order."""
        rows = self._history.query(
            "SELECT jobs.id, jobs.rowid FROM json_each(?) CROSS JOIN jobs ON jobs.rowid = value "
            "ORDER BY key",
            (str(self._numbers.tolist()),),
        )
        return [name_of(row["id"], row["rowid"]) for row in rows]

    def place(self, job_id: str) -> int | None:
        """Return the position of a job; None if it is not listed."""
        where, value = named(job_id)
        rows = self._history.query(f"SELECT rowid FROM jobs WHERE {where}", (value,))  # noqa: S608
        try:
            return self._numbers.index(rows[0][0]) if rows else None
        except ValueError:
            return None

    def group_of(self, place: int) -> int:
        """Return the number of the group at a position."""
        return bisect_right(self.groups, place, key=lambda group: group.first) - 1


def _condition(words: str) -> tuple[str, list[str]]:
    """Return the WHERE clause of the filter and its values, which are numbered from ?2 on."""
    clauses: list[str] = []
    values: list[str] = []
    for word in words.lower().split():
        text, negated = (word[1:], True) if word.startswith("!") else (word, False)
        field, colon, rest = text.partition(":")
        sql = _ANYWHERE
        if colon and field in _FIELDS:
            sql, text = _FIELDS[field], rest
        if text:
            values.append(_pattern(text))
            found = sql.format(f"?{len(values) + 1}")
            clauses.append(f"{'NOT ' if negated else ''}coalesce(({found}), 0)")
    return " AND ".join(clauses) or "1", values


def _pattern(text: str) -> str:
    """Return the LIKE pattern for `text`. SQLite refuses patterns of more than 50,000 bytes."""
    literal = re.sub("([!%_])", r"!\1", text[:4000])
    return f"%{literal}%"


def _groups(names: Sequence[str]) -> tuple[Group, ...]:
    found: list[Group] = []
    for place, name in enumerate(names):
        if not found or found[-1].name != name:
            found.append(Group(name, place, 0))
        found[-1] = found[-1]._replace(jobs=place + 1 - found[-1].first)
    return tuple(found)

"""The history: every job of this user, in SQLite, shared by any number of processes.

The database is in WAL mode, so readers in other processes never wait for a writer. Threads that share
one `History` do wait; a reader that must not wait opens its own. The state of a finished job never
changes back.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stoke.errors import UnknownJobError
from stoke.history.database_file import DatabaseFile
from stoke.history.job import Job, Phase
from stoke.history.rows import (
    JOB_COLUMNS,
    JOB_KINDS,
    NUMBER,
    PHASE_COLUMNS,
    TIME,
    counts_text,
    is_sound,
    is_spec,
    job_of,
    named,
    phase_of,
    position_of,
    texts,
)


@dataclass(frozen=True)
class CacheSize:
    """A measurement of a cache volume at `measured_at` (epoch seconds): bytes, and environments."""

    backend: str
    node: str | None
    scope: str
    kind: str
    measured_at: float
    bytes: int
    entries: int


@dataclass(frozen=True)
class Note:
    """A message of the runner or the engine about a job: a "note", or an "error" with its hint."""

    kind: str
    text: str
    hint: str | None = None


MOST_NOTES = 100
MOST_PACKAGES = 2000
"""The most notes and packages stored of one job, because a hostile job could report any number."""

# Inside the class, `list` is a method.
Jobs = list[Job]
Specs = list[str]
CacheSizes = list[CacheSize]
Names = list[str]
Notes = list[Note]
Packages = dict[str, dict[str, bool]]
_UPDATABLE = frozenset(JOB_KINDS) - {"id"}
# More than a job can have attempts.
_MOST_MATCHES = 200
# No id ends like this otherwise (`new_job_id`).
_FURTHER_ATTEMPT = re.compile(r"(?<=-[a-z2-7]{6})-r\d{1,3}\Z")
_UNFINISHED = "(state IN ('queued', 'starting', 'running') OR provisional)"


class History(DatabaseFile):
    """The open history. Safe to use from several threads."""

    def add(self, job: Job, spec: str | None, nonce: str | None) -> None:
        """Add a job; a job that is already there does not change.

        `spec` is the request's JSON, with references instead of the values of secrets.
        """
        self.query(
            "INSERT OR IGNORE INTO jobs (id, name, backend, scope, state, submitted_at, image, "
            "request_hash, python_hash, system_hash, predicted_python, predicted_system, "
            "predicted_seconds, predicted_counts, spec, nonce, checkpoint, schedule, job_kind, "
            "use_cache) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, "
            "CASE WHEN json_valid(?15) AND json_extract(?15, '$.shell') THEN 'shell' END, "
            "CASE WHEN json_valid(?15) THEN coalesce(json_extract(?15, '$.use_cache'), 1) ELSE 1 END)",
            (
                job.id, job.name, job.backend, job.scope, job.state, job.submitted_at, job.image,
                job.request_hash, job.python_hash, job.system_hash, job.predicted.python,
                job.predicted.system, job.predicted.seconds, counts_text(job.predicted), spec,
                nonce, job.checkpoint, job.schedule,
            ),
        )  # fmt: skip

    def add_asked(self, request_hash: str, kind: str, names: Iterable[str]) -> None:
        """Record the packages that requests with this hash name; `kind` is "python" or "system"."""
        self.query_many(
            "INSERT OR IGNORE INTO asked_packages VALUES (?, ?, ?)",
            [(request_hash, kind, name) for name in names],
        )

    def asked(self, request_hash: str, kind: str) -> Names:
        rows = self.query(
            "SELECT name FROM asked_packages WHERE request_hash = ? AND kind = ?",
            (request_hash, kind),
        )
        return texts(rows, "name")

    def known_packages(self, kind: str) -> Names:
        """Return the names of packages that requests named, most frequent first."""
        rows = self.query(
            "SELECT name FROM asked_packages WHERE kind = ? GROUP BY name "
            "ORDER BY COUNT(*) DESC, name LIMIT 5000",
            (kind,),
        )
        return texts(rows, "name")

    def update(self, job_id: str, **columns: Any) -> None:
        """Set columns of a job that is not finished, or whose end is provisional."""
        unknown = columns.keys() - _UPDATABLE
        if unknown:
            raise ValueError(f"no such columns: {unknown}")
        names = ", ".join(f"{name} = ?" for name in columns)
        self.query(
            f"UPDATE jobs SET {names} WHERE id = ? AND {_UNFINISHED}",  # noqa: S608
            (*columns.values(), job_id),
        )

    def set_results(
        self,
        job_id: str,
        *,
        files: int = 0,
        size: int = 0,
        at: float | None = None,
        problem: str | None = None,
    ) -> None:
        """Record that a job's results were collected `at` that time, or why they were not."""
        self.query(
            "UPDATE jobs SET results_files = ?, results_bytes = ?, results_at = ?, "
            "results_problem = ? WHERE id = ?",
            (files, size, at, problem, job_id),
        )

    def set_phase(self, job_id: str, phase: Phase) -> None:
        self.query(
            "INSERT OR REPLACE INTO phases (job_id, name, started_at, seconds, hit, packages, cached, "
            "bytes, key, made_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job_id, phase.name, phase.started_at, phase.seconds, phase.hit, phase.packages,
                phase.cached, phase.bytes, phase.key, phase.made_at,
            ),
        )  # fmt: skip

    def set_activity(self, job_id: str, phase: str, text: str) -> None:
        """Set what an active phase is doing."""
        self.query(
            "UPDATE phases SET activity = ? WHERE job_id = ? AND name = ? AND seconds IS NULL",
            (text, job_id, phase),
        )

    def add_note(self, job_id: str, note: Note) -> None:
        """Add a note to a job, unless it already has the same one."""
        self.query(
            "INSERT OR IGNORE INTO notes SELECT ?1, count(*), ?2, ?3, ?4 FROM notes "
            "WHERE job_id = ?1 HAVING count(*) < ?5",
            (job_id, note.kind, note.text, note.hint, MOST_NOTES),
        )

    def notes(self, job_id: str) -> Notes:
        """Return the notes of a job in their order."""
        rows = self.query("SELECT * FROM notes WHERE job_id = ? ORDER BY number", (job_id,))
        return [
            Note(kind, text, hint if isinstance(hint, str) else None)
            for kind, text, hint in ((row["kind"], row["text"], row["hint"]) for row in rows)
            if isinstance(kind, str) and isinstance(text, str)
        ]

    def add_packages(self, job_id: str, kind: str, packages: Iterable[str], cached: bool) -> None:
        """Record packages that a job found in the cache (`cached`), or had to download or build."""
        self.query_many(
            "INSERT OR IGNORE INTO job_packages SELECT ?1, ?2, ?3, ?4 "
            "WHERE (SELECT count(*) FROM job_packages WHERE job_id = ?1 AND kind = ?2) < ?5",
            [(job_id, kind, package, cached, MOST_PACKAGES) for package in packages],
        )

    def packages(self, job_id: str) -> Packages:
        """Return {kind: {package: whether it was cached}} of a job that built an environment."""
        found: Packages = {}
        for row in self.query(
            "SELECT * FROM job_packages WHERE job_id = ? ORDER BY kind, package", (job_id,)
        ):
            if isinstance(row["kind"], str) and isinstance(row["package"], str):
                found.setdefault(row["kind"], {})[row["package"]] = bool(row["cached"])
        return found

    def get(self, job_id: str) -> Job | None:
        where, value = named(job_id)
        rows = self.query(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where}", (value,))  # noqa: S608
        return self._jobs(rows)[0] if rows else None

    def find(self, prefix: str) -> Job:
        """Return the only job whose id is `prefix` or begins with it, or raise `UnknownJobError`.

        Of the attempts of one job (`stoke.history.attempts`), return the newest.
        """
        unknown = UnknownJobError(f"no job is called {prefix!r}", "list all jobs: stoke jobs --all")
        if not prefix.isascii():
            # Python keeps bytes that are not UTF-8 as lone surrogates, which SQLite refuses.
            raise unknown
        exact = self.get(prefix)
        if exact:
            return exact
        rows = self.query(
            "SELECT id FROM jobs WHERE sweep IS NULL AND substr(id, 1, ?) = ? "
            "ORDER BY submitted_at DESC LIMIT ?",
            (len(prefix), prefix, _MOST_MATCHES),
        )
        if not rows or not prefix:
            raise unknown
        if len({_FURTHER_ATTEMPT.sub("", str(row["id"])) for row in rows}) > 1:
            names = ", ".join(row["id"] for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
            raise UnknownJobError(
                f"{prefix!r} is the begin of more than one job's name: {names}",
                "write more of the name",
            )
        found = self.get(rows[0]["id"])
        assert found is not None
        return found

    def list(self, limit: int | None = None, unfinished: bool = False, tasks: bool = False) -> Jobs:
        """Return jobs with their phases, newest first; with `tasks` also those that are tasks of
        sweeps."""
        where = " AND ".join(
            [_UNFINISHED if unfinished else "1", "1" if tasks else "sweep IS NULL"]
        )
        rows = self.query(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where} ORDER BY submitted_at DESC LIMIT ?",  # noqa: S608
            (-1 if limit is None else limit,),
        )
        return self._jobs(rows)

    def numbered(self, numbers: Sequence[int]) -> dict[int, Job]:
        """Return {row number: job} for the row numbers that exist, with their phases."""
        rows = self.query(
            f"SELECT {JOB_COLUMNS} FROM jobs "  # noqa: S608
            "WHERE rowid IN (SELECT value FROM json_each(?))",
            (json.dumps(numbers),),
        )
        return {row["rowid"]: job for row, job in zip(rows, self._jobs(rows), strict=True)}

    def those(self, ids: Iterable[str]) -> Jobs:
        """Return the jobs with these ids that exist, newest first."""
        rows = self.query(
            f"SELECT {JOB_COLUMNS} FROM jobs "  # noqa: S608
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY submitted_at DESC",
            (json.dumps(tuple(ids)),),
        )
        return self._jobs(rows)

    def run_before(self, job: Job) -> Job | None:
        """Return the job of the same name that was submitted last before this one."""
        rows = self.query(
            "SELECT id FROM jobs WHERE name = ? AND submitted_at < ? AND sweep IS NULL "
            "ORDER BY submitted_at DESC LIMIT 1",
            (job.name, job.submitted_at),
        )
        return self.get(rows[0]["id"]) if rows else None

    def started(self, backend: str) -> Jobs:
        """Return the jobs of a backend that have left the queue, or were never in it, and have no final
        end."""
        sql = (
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE {_UNFINISHED} AND backend = ? "  # noqa: S608
            "AND id NOT IN (SELECT job_id FROM queue)"
        )
        return self._jobs(self.query(sql, (backend,)))

    def unfinished_of_schedule(self, name: str) -> Jobs:
        """Return the jobs of a schedule that have no final end."""
        sql = f"SELECT {JOB_COLUMNS} FROM jobs WHERE schedule = ? AND {_UNFINISHED}"  # noqa: S608
        return self._jobs(self.query(sql, (name,)))

    def in_scope(self, backend: str, scope: str) -> Jobs:
        """All jobs of one scope, with their phases."""
        rows = self.query(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE backend = ? AND scope = ?",  # noqa: S608
            (backend, scope),
        )
        return self._jobs(rows)

    def spec(self, job_id: str) -> str | None:
        """Return the job's request as JSON text. Damaged text is returned as it is."""
        where, value = named(job_id)
        rows = self.query(f"SELECT spec, sweep, task FROM jobs WHERE {where}", (value,))  # noqa: S608
        text = rows[0]["spec"] if rows else None
        if rows and text is None and rows[0]["sweep"] is not None:
            return self._task_spec(rows[0]["sweep"], rows[0]["task"])
        return text if isinstance(text, str) else None

    def _task_spec(self, sweep: str, number: int) -> str | None:
        """Return the request of a task: that of its sweep with the values of the task."""
        from stoke.request.sweep_values import task_request

        rows = self.query(
            "SELECT jobs.spec, value_names, task_values FROM sweep_tasks "
            "JOIN sweeps ON sweeps.id = sweep_id JOIN jobs ON jobs.id = sweep_id "
            "WHERE sweep_id = ? AND number = ?",
            (sweep, number),
        )
        try:
            spec, names, values = (json.loads(one) for one in rows[0])
            return json.dumps(task_request(spec, names, values, number))
        except (LookupError, ValueError, TypeError, AttributeError):
            return None  # A record is missing or damaged.

    def nonce(self, job_id: str) -> str | None:
        rows = self.query("SELECT nonce FROM jobs WHERE id = ?", (job_id,))
        nonce = rows[0]["nonce"] if rows else None
        return nonce if isinstance(nonce, str) else None

    def environment_runs(self, request_hash: str, backend: str, scope: str) -> Jobs:
        """Return finished jobs with this request in the same scope, newest first."""
        rows = self.query(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE request_hash = ? AND backend = ? AND scope = ? "  # noqa: S608
            "AND state IN ('succeeded', 'failed', 'stopped') AND job_kind IS NOT 'sweep' "
            "ORDER BY submitted_at DESC LIMIT 20",
            (request_hash, backend, scope),
        )
        return self._jobs(rows)

    def most_used(self, backend: str, scope: str) -> Specs:
        """Return one spec as JSON for each environment that jobs of a scope asked for, most used
        first."""
        rows = self.query(
            "SELECT spec, MAX(submitted_at) AS latest FROM jobs WHERE backend = ? AND scope = ? "
            "AND spec IS NOT NULL GROUP BY request_hash ORDER BY COUNT(*) DESC, latest DESC",
            (backend, scope),
        )
        return [row["spec"] for row in rows if is_spec(row["spec"])]

    def last_image(self, backend: str, scope: str) -> str | None:
        """Return the image that a job of this scope named last."""
        rows = self.query(
            "SELECT image FROM jobs WHERE backend = ? AND scope = ? AND image IS NOT NULL "
            "ORDER BY submitted_at DESC LIMIT 1",
            (backend, scope),
        )
        image = rows[0]["image"] if rows else None
        return image if isinstance(image, str) else None

    def add_cache_size(self, size: CacheSize) -> None:
        self.query(
            "INSERT OR REPLACE INTO cache_sizes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                size.backend, size.node or "", size.scope, size.kind, size.measured_at, size.bytes,
                size.entries,
            ),
        )  # fmt: skip

    def cache_sizes(self, since: float | None = None) -> CacheSizes:
        """Return the last measurement of every volume, or with `since` (epoch seconds) all
        measurements since then, oldest first."""
        rows = self.query(
            "SELECT *, MAX(measured_at) FROM cache_sizes GROUP BY backend, node, scope, kind"
            if since is None
            else "SELECT * FROM cache_sizes WHERE measured_at >= ? ORDER BY measured_at",
            () if since is None else (since,),
        )
        return [
            CacheSize(
                row["backend"], row["node"] or None, row["scope"], row["kind"], row["measured_at"],
                row["bytes"], row["entries"],
            )
            for row in rows
            if all(isinstance(row[name], str) for name in ("backend", "node", "scope", "kind"))
            and is_sound(row["measured_at"], TIME)
            and all(is_sound(row[name], NUMBER) for name in ("bytes", "entries"))
        ]  # fmt: skip

    def remove(self, job_id: str) -> None:
        where, value = named(job_id)
        self.query(f"DELETE FROM jobs WHERE {where}", (value,))  # noqa: S608

    def _jobs(self, rows: Iterable[sqlite3.Row]) -> Jobs:
        jobs = [job_of(row) for row in rows]
        by_id = {job.id: job for job in jobs}
        ids = list(by_id)
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ", ".join("?" * len(some))
            sql = f"SELECT {PHASE_COLUMNS} FROM phases WHERE job_id IN ({marks})"  # noqa: S608
            for row in self.query(sql, some):
                job = by_id[row["job_id"]]
                phase, wrong = phase_of(row)
                if phase is not None:
                    job.phases.append(phase)
                if wrong:
                    job.damage = "; ".join(filter(None, (job.damage, wrong)))
        for job in jobs:
            job.phases.sort(key=position_of)
        return jobs

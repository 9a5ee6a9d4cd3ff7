"""The history: every job this user submitted, in SQLite, for any number of programs at once.

WAL, so a reader never waits for a writer; within one program it does, unless it reads by a `History`
of its own. `user_version` is the schema's version; `MIGRATIONS`
holds the steps, applied in order on opening. A finished job's state never changes back.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoke.errors import EngineError, UnknownJobError
from stoke.job import PHASES, Counts, Job, JobState, Phase, Prediction
from stoke.paths import history_file, make_private

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        backend TEXT NOT NULL,
        scope TEXT NOT NULL,
        state TEXT NOT NULL,
        provisional INTEGER NOT NULL DEFAULT 0,
        stop_requested INTEGER NOT NULL DEFAULT 0,
        exit_code INTEGER,
        reason TEXT,
        submitted_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        cpu_seconds REAL,
        peak_memory INTEGER,
        image TEXT,
        request_hash TEXT,
        predicted_python TEXT,
        predicted_system TEXT,
        predicted_seconds REAL,
        log_lines INTEGER NOT NULL DEFAULT 0,
        log_bytes INTEGER NOT NULL DEFAULT 0,
        log_gaps INTEGER NOT NULL DEFAULT 0,
        spec TEXT,
        nonce TEXT
    );
    CREATE INDEX jobs_by_time ON jobs (submitted_at);
    CREATE INDEX jobs_by_request ON jobs (request_hash, backend, scope, submitted_at);
    CREATE INDEX jobs_unfinished ON jobs (state)
        WHERE state IN ('queued', 'starting', 'running') OR provisional;
    CREATE TABLE phases (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        started_at REAL NOT NULL,
        seconds REAL,
        hit INTEGER,
        packages INTEGER,
        cached INTEGER,
        bytes INTEGER,
        PRIMARY KEY (job_id, name)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE cache_sizes (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        measured_at REAL NOT NULL,
        bytes INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        PRIMARY KEY (backend, node, scope, kind, measured_at)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE jobs ADD COLUMN python_hash TEXT;
    ALTER TABLE jobs ADD COLUMN system_hash TEXT;
    ALTER TABLE jobs ADD COLUMN predicted_counts TEXT;
    ALTER TABLE jobs ADD COLUMN use_cache INTEGER NOT NULL DEFAULT 1;
    UPDATE jobs SET use_cache = 0 WHERE json_valid(spec) AND json_extract(spec, '$.use_cache') = 0;
    ALTER TABLE phases ADD COLUMN key TEXT;
    ALTER TABLE phases ADD COLUMN made_at REAL;
    CREATE TABLE asked_packages (
        request_hash TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (request_hash, kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE notes (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        mend TEXT,
        PRIMARY KEY (job_id, number),
        UNIQUE (job_id, kind, text)
    ) WITHOUT ROWID;
    CREATE TABLE job_packages (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        package TEXT NOT NULL,
        cached INTEGER NOT NULL,
        PRIMARY KEY (job_id, kind, package)
    ) WITHOUT ROWID;
    CREATE TABLE held_environments (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        present INTEGER NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (backend, scope, kind, key, node)
    ) WITHOUT ROWID;
    CREATE TABLE held_packages (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        name TEXT NOT NULL,
        package TEXT NOT NULL,
        PRIMARY KEY (backend, scope, kind, key, node, name, package)
    ) WITHOUT ROWID;
    CREATE INDEX held_by_name ON held_packages (backend, scope, kind, name, package);
    CREATE TABLE held_requests (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        request TEXT NOT NULL,
        key TEXT NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (backend, scope, kind, request, node)
    ) WITHOUT ROWID;
    """,
)


@dataclass(frozen=True)
class CacheSize:
    """What a cache volume held when it was measured (epoch seconds): bytes, environments."""

    backend: str
    node: str | None
    scope: str
    kind: str
    measured_at: float
    bytes: int
    entries: int


@dataclass(frozen=True)
class Note:
    """What the runner said beside its phases: a "note", or an "error" with what mends it."""

    kind: str
    text: str
    mend: str | None = None


READING_SECONDS = 0.1
"""Only a writer that locks readers out, which WAL has no need of, can make a reader wait."""
MOST_NOTES = 100
MOST_PACKAGES = 2000
"""So much is kept of one job; a hostile one could say more."""

# Inside the class, `list` is the method.
Jobs = list[Job]
Specs = list[str]
CacheSizes = list[CacheSize]
Names = list[str]
Notes = list[Note]
Packages = dict[str, dict[str, bool]]

_JOB_COLUMNS = (
    "id, name, backend, scope, state, provisional, stop_requested, exit_code, reason, submitted_at, "
    "started_at, finished_at, cpu_seconds, peak_memory, image, request_hash, python_hash, "
    "system_hash, predicted_python, predicted_system, predicted_seconds, predicted_counts, "
    "log_lines, log_bytes, log_gaps"
)
_UPDATABLE = frozenset(_JOB_COLUMNS.split(", ")) - {"id"}
_UNFINISHED = "(state IN ('queued', 'starting', 'running') OR provisional)"


class History:
    """The open history. Safe to use from several threads.

    With `read_only` it must be there already, and nothing waits: what holds it up is an error.
    """

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path = path or history_file()
        self._lock = threading.RLock()
        if read_only:
            self._open_for_reading()
            return
        make_private(self.path.parent)
        try:
            self._db = sqlite3.connect(
                self.path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._write_ahead()
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _open_for_reading(self) -> None:
        from urllib.parse import quote

        try:
            self._db = sqlite3.connect(
                f"file:{quote(str(self.path))}?mode=ro",
                uri=True,
                timeout=READING_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        self._db.row_factory = sqlite3.Row

    def _write_ahead(self) -> None:
        """Several programs may make a new file WAL at once; SQLite then does not wait by itself."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise EngineError(
                f"{self.path} was written by a newer stoke (schema {version}, this one knows "
                f"{len(MIGRATIONS)})",
                "upgrade stoke, or keep another history: export STOKE_STATE_DIR=/some/folder",
            )
        if version == len(MIGRATIONS):
            return
        # Under the write lock, and looked at again there: two programs may open a new file at once.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for number in range(self._version(), len(MIGRATIONS)):
                for statement in MIGRATIONS[number].split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _trouble(self, error: sqlite3.Error) -> EngineError:
        from shlex import quote

        if "malformed" in str(error) or "not a database" in str(error):
            path, aside = quote(str(self.path)), quote(f"{self.path}.damaged")
            return EngineError(
                f"the history {self.path} is damaged ({error})",
                f"put it aside and begin a new one: mv {path} {aside}",
            )
        if "locked" in str(error):
            return EngineError(
                f"another program holds the history {self.path} ({error})",
                f"wait for it, or see which one: fuser {quote(str(self.path))}",
            )
        return EngineError(
            f"cannot use the history {self.path}: {error}",
            "make the folder writable, or name another: export STOKE_STATE_DIR=/some/folder",
        )

    def query(self, sql: str, values: Iterable[Any] = ()) -> Sequence[sqlite3.Row]:
        """One statement and its rows; for here and for the modules whose tables stand here."""
        with self._lock:
            try:
                return self._db.execute(sql, tuple(values)).fetchall()
            except sqlite3.Error as error:
                raise self._trouble(error) from error

    def query_many(self, sql: str, rows: Iterable[Iterable[Any]]) -> None:
        """One statement for each of many rows of values."""
        with self._lock:
            try:
                self._db.executemany(sql, [tuple(row) for row in rows])
            except sqlite3.Error as error:
                raise self._trouble(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written in it is there as a whole or not at all."""
        with self._lock:
            self.query("BEGIN IMMEDIATE")
            try:
                yield
                self.query("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self.query("ROLLBACK")
                raise

    def add(self, job: Job, spec: str | None, nonce: str | None) -> None:
        """Adds a job. `spec` is its JSON with references for secrets, never their values. A job that
        is there already stays as it is."""
        self.query(
            "INSERT OR IGNORE INTO jobs (id, name, backend, scope, state, submitted_at, image, "
            "request_hash, python_hash, system_hash, predicted_python, predicted_system, "
            "predicted_seconds, predicted_counts, spec, nonce, use_cache) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, "
            "CASE WHEN json_valid(?15) THEN coalesce(json_extract(?15, '$.use_cache'), 1) ELSE 1 END)",
            (
                job.id, job.name, job.backend, job.scope, job.state, job.submitted_at, job.image,
                job.request_hash, job.python_hash, job.system_hash, job.predicted.python,
                job.predicted.system, job.predicted.seconds, _counts_text(job.predicted), spec,
                nonce,
            ),
        )  # fmt: skip

    def add_asked(self, request_hash: str, kind: str, names: Iterable[str]) -> None:
        """Which packages requests with that hash name: "python" or "system" ones."""
        self.query_many(
            "INSERT OR IGNORE INTO asked_packages VALUES (?, ?, ?)",
            [(request_hash, kind, name) for name in names],
        )

    def asked(self, request_hash: str, kind: str) -> Names:
        rows = self.query(
            "SELECT name FROM asked_packages WHERE request_hash = ? AND kind = ?",
            (request_hash, kind),
        )
        return [row["name"] for row in rows]

    def known_packages(self, kind: str) -> Names:
        """The names of packages that requests asked for, the ones asked for most first."""
        rows = self.query(
            "SELECT name FROM asked_packages WHERE kind = ? GROUP BY name "
            "ORDER BY COUNT(*) DESC, name LIMIT 5000",
            (kind,),
        )
        return [row["name"] for row in rows]

    def update(self, job_id: str, **columns: Any) -> None:
        """Sets columns of a job that is not finished, or whose end is still provisional."""
        unknown = columns.keys() - _UPDATABLE
        if unknown:
            raise ValueError(f"no such columns: {unknown}")
        names = ", ".join(f"{name} = ?" for name in columns)
        self.query(
            f"UPDATE jobs SET {names} WHERE id = ? AND {_UNFINISHED}",  # noqa: S608
            (*columns.values(), job_id),
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

    def add_note(self, job_id: str, note: Note) -> None:
        """Keeps what the runner said, once, however often it is heard."""
        self.query(
            "INSERT OR IGNORE INTO notes SELECT ?1, count(*), ?2, ?3, ?4 FROM notes "
            "WHERE job_id = ?1 HAVING count(*) < ?5",
            (job_id, note.kind, note.text, note.mend, MOST_NOTES),
        )

    def notes(self, job_id: str) -> Notes:
        """What the runner said of a job, in its order."""
        rows = self.query("SELECT * FROM notes WHERE job_id = ? ORDER BY number", (job_id,))
        return [Note(row["kind"], row["text"], row["mend"]) for row in rows]

    def add_packages(self, job_id: str, kind: str, packages: Iterable[str], cached: bool) -> None:
        """Packages that a job found in the cache (`cached`), or had to download or build."""
        self.query_many(
            "INSERT OR IGNORE INTO job_packages SELECT ?1, ?2, ?3, ?4 "
            "WHERE (SELECT count(*) FROM job_packages WHERE job_id = ?1 AND kind = ?2) < ?5",
            [(job_id, kind, package, cached, MOST_PACKAGES) for package in packages],
        )

    def packages(self, job_id: str) -> Packages:
        """{kind: {package: whether it was cached}} of a job that built an environment."""
        found: Packages = {}
        for row in self.query(
            "SELECT * FROM job_packages WHERE job_id = ? ORDER BY kind, package", (job_id,)
        ):
            found.setdefault(row["kind"], {})[row["package"]] = bool(row["cached"])
        return found

    def get(self, job_id: str) -> Job | None:
        rows = self.query(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ?", (job_id,))  # noqa: S608
        return self._jobs(rows)[0] if rows else None

    def find(self, prefix: str) -> Job:
        """The one job whose id is `prefix` or begins with it; `UnknownJobError` otherwise."""
        exact = self.get(prefix)
        if exact:
            return exact
        rows = self.query(
            "SELECT id FROM jobs WHERE substr(id, 1, ?) = ? ORDER BY submitted_at DESC LIMIT 6",
            (len(prefix), prefix),
        )
        if not rows or not prefix:
            raise UnknownJobError(
                f"no job is called {prefix!r}", "list the jobs there are: stoke jobs --all"
            )
        if len(rows) > 1:
            names = ", ".join(row["id"] for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
            raise UnknownJobError(
                f"{prefix!r} begins the names of more than one job: {names}",
                "write more of the name",
            )
        found = self.get(rows[0]["id"])
        assert found is not None
        return found

    def list(self, limit: int | None = None, unfinished: bool = False) -> Jobs:
        """Jobs with their phases, the newest first."""
        where = f"WHERE {_UNFINISHED}" if unfinished else ""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs {where} ORDER BY submitted_at DESC LIMIT ?",  # noqa: S608
            (-1 if limit is None else limit,),
        )
        return self._jobs(rows)

    def numbered(self, numbers: Sequence[int]) -> dict[int, Job]:
        """{rowid: job} of those that are there, with their phases."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS}, rowid FROM jobs "  # noqa: S608
            "WHERE rowid IN (SELECT value FROM json_each(?))",
            (json.dumps(numbers),),
        )
        return {row["rowid"]: job for row, job in zip(rows, self._jobs(rows), strict=True)}

    def those(self, ids: Iterable[str]) -> Jobs:
        """The jobs of these ids that are there, the newest first."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs "  # noqa: S608
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY submitted_at DESC",
            (json.dumps(tuple(ids)),),
        )
        return self._jobs(rows)

    def in_scope(self, backend: str, scope: str) -> Jobs:
        """All jobs of one scope, with their phases."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs WHERE backend = ? AND scope = ?",  # noqa: S608
            (backend, scope),
        )
        return self._jobs(rows)

    def spec(self, job_id: str) -> str | None:
        rows = self.query("SELECT spec FROM jobs WHERE id = ?", (job_id,))
        return rows[0]["spec"] if rows else None

    def nonce(self, job_id: str) -> str | None:
        rows = self.query("SELECT nonce FROM jobs WHERE id = ?", (job_id,))
        return rows[0]["nonce"] if rows else None

    def environment_runs(self, request_hash: str, backend: str, scope: str) -> Jobs:
        """Finished jobs that wanted the same environment in the same place, the newest first."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs WHERE request_hash = ? AND backend = ? AND scope = ? "  # noqa: S608
            "AND state IN ('succeeded', 'failed', 'stopped') ORDER BY submitted_at DESC LIMIT 20",
            (request_hash, backend, scope),
        )
        return self._jobs(rows)

    def most_used(self, backend: str, scope: str) -> Specs:
        """For each environment that was asked for in one place, a spec that asks for it, as JSON:
        the most used first."""
        rows = self.query(
            "SELECT spec, MAX(submitted_at) AS latest FROM jobs WHERE backend = ? AND scope = ? "
            "AND spec IS NOT NULL GROUP BY request_hash ORDER BY COUNT(*) DESC, latest DESC",
            (backend, scope),
        )
        return [row["spec"] for row in rows]

    def last_image(self, backend: str, scope: str) -> str | None:
        """The image that somebody named last for a job in that place."""
        rows = self.query(
            "SELECT image FROM jobs WHERE backend = ? AND scope = ? AND image IS NOT NULL "
            "ORDER BY submitted_at DESC LIMIT 1",
            (backend, scope),
        )
        return rows[0]["image"] if rows else None

    def add_cache_size(self, size: CacheSize) -> None:
        self.query(
            "INSERT OR REPLACE INTO cache_sizes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                size.backend, size.node or "", size.scope, size.kind, size.measured_at, size.bytes,
                size.entries,
            ),
        )  # fmt: skip

    def cache_sizes(self, since: float | None = None) -> CacheSizes:
        """The last measurement of every volume; with `since` (epoch seconds) all from then on, the
        oldest first."""
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
        ]  # fmt: skip

    def remove(self, job_id: str) -> None:
        self.query("DELETE FROM jobs WHERE id = ?", (job_id,))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _jobs(self, rows: Iterable[sqlite3.Row]) -> Jobs:
        jobs = [_job(row) for row in rows]
        by_id = {job.id: job for job in jobs}
        ids = list(by_id)
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ", ".join("?" * len(some))
            for row in self.query(f"SELECT * FROM phases WHERE job_id IN ({marks})", some):  # noqa: S608
                by_id[row["job_id"]].phases.append(_phase(row))
        for job in jobs:
            job.phases.sort(key=_place)
        return jobs


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        name=row["name"],
        backend=row["backend"],
        scope=row["scope"],
        state=JobState(row["state"]),
        submitted_at=row["submitted_at"],
        provisional=bool(row["provisional"]),
        exit_code=row["exit_code"],
        reason=row["reason"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        cpu_seconds=row["cpu_seconds"],
        peak_memory=row["peak_memory"],
        image=row["image"],
        request_hash=row["request_hash"],
        python_hash=row["python_hash"],
        system_hash=row["system_hash"],
        predicted=Prediction(
            row["predicted_python"],
            row["predicted_system"],
            row["predicted_seconds"],
            _counts(row["predicted_counts"]),
        ),
        log_lines=row["log_lines"],
        log_bytes=row["log_bytes"],
        log_gaps=row["log_gaps"],
        stop_requested=bool(row["stop_requested"]),
    )


def _place(phase: Phase) -> int:
    """A phase that another version's runner knows comes last."""
    return PHASES.index(phase.name) if phase.name in PHASES else len(PHASES)


def _phase(row: sqlite3.Row) -> Phase:
    return Phase(
        name=row["name"],
        started_at=row["started_at"],
        seconds=row["seconds"],
        hit=None if row["hit"] is None else bool(row["hit"]),
        packages=row["packages"],
        cached=row["cached"],
        bytes=row["bytes"],
        key=row["key"],
        made_at=row["made_at"],
    )


def _counts_text(prediction: Prediction) -> str | None:
    counts = {
        kind: [one.cached, one.packages, one.named] for kind, one in prediction.counts.items()
    }
    return json.dumps(counts) if counts else None


def _counts(text: str | None) -> dict[str, Counts]:
    return {kind: Counts(*row) for kind, row in json.loads(text).items()} if text else {}

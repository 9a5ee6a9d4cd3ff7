"""The history: every job of this user, in SQLite, shared by any number of processes.

The database is in WAL mode, so readers in other processes never wait for a writer. Threads that share
one `History` do wait; a reader that must not wait opens its own. The state of a finished job never
changes back.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoke.errors import EngineError, UnknownJobError
from stoke.files.paths import check_owner, history_file, make_private
from stoke.history.job import PHASES, Counts, Job, JobState, Phase, Prediction
from stoke.history.schema import MIGRATIONS


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


READING_SECONDS = 0.1
"""How long a reader waits for a writer that locks readers out, which no writer in WAL mode does."""
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

# What `_checked` accepts in a column: a type, and whether the value is required.
_TEXT, _NUMBER, _FLAG, _TIME, _SECONDS = "text", "a number", "a flag", "a time", "seconds"
_KINDS = {
    **dict.fromkeys(("id", "name", "backend", "scope", "state"), (_TEXT, True)),
    **dict.fromkeys(
        (
            "reason", "image", "request_hash", "python_hash", "system_hash", "predicted_python",
            "predicted_system", "predicted_counts",
        ),
        (_TEXT, False),
    ),
    **dict.fromkeys(("log_lines", "log_bytes", "log_gaps"), (_NUMBER, True)),
    **dict.fromkeys(("exit_code", "peak_memory"), (_NUMBER, False)),
    **dict.fromkeys(("provisional", "stop_requested"), (_FLAG, True)),
    "submitted_at": (_TIME, True),
    **dict.fromkeys(("started_at", "finished_at"), (_TIME, False)),
    **dict.fromkeys(("cpu_seconds", "predicted_seconds"), (_SECONDS, False)),
}  # fmt: skip
_PHASE_KINDS = {
    "name": (_TEXT, True), "started_at": (_TIME, True), "seconds": (_SECONDS, False),
    "hit": (_FLAG, False), "packages": (_NUMBER, False), "cached": (_NUMBER, False),
    "bytes": (_NUMBER, False), "key": (_TEXT, False), "made_at": (_TIME, False),
}  # fmt: skip
_REPLACEMENTS: dict[str, object] = {_TEXT: "?", _NUMBER: 0, _FLAG: 0, _TIME: 0.0}
LONGEST_TEXT = 64 * 1024
"""Longer text in one column counts as damage and is cut."""
LATEST = 250_000_000_000.0
"""Later times (after the year 9892) count as damage, because `datetime` cannot hold them."""
_NO_NAME = re.compile(r"damaged-row-(\d{1,18})")
_ID = re.compile(r"[A-Za-z0-9][^/\0\n\r]{0,252}")
# In the order in which `_checked` takes a row's values; row number and job id come last.
_JOB_COLUMNS = ", ".join([*_KINDS, "rowid"])
_PHASE_COLUMNS = ", ".join([*_PHASE_KINDS, "job_id"])
_UPDATABLE = frozenset(_KINDS) - {"id"}
_UNFINISHED = "(state IN ('queued', 'starting', 'running') OR provisional)"


class History:
    """The open history. Safe to use from several threads.

    With `read_only` the file must exist, and a lock of another process is an error at once.
    """

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path = path or history_file()
        self._lock = threading.RLock()
        if read_only:
            self._open_for_reading()
            return
        make_private(self.path.parent)
        self._make_file()
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

    def _make_file(self) -> None:
        """Create the file with access for its owner only; SQLite gives its other files the same mode.

        The file is not opened here: closing it would release the locks of every other connection of
        this process (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        """
        try:
            try:
                os.mknod(self.path, 0o600)
            except FileExistsError:
                pass
            check_owner(self.path)
        except OSError:
            pass  # SQLite fails for the same reason and reports it.

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
        """Switch to WAL mode. SQLite does not wait if another process switches at the same time."""
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
        if version < 0:
            raise self._damaged(f"its schema has the number {version}")
        if version > len(MIGRATIONS):
            raise EngineError(
                f"{self.path} was written by a newer stoke (schema {version}, this one knows "
                f"{len(MIGRATIONS)})",
                "upgrade stoke, or keep another history: export STOKE_STATE_DIR=/some/folder",
            )
        if version == len(MIGRATIONS):
            return
        # Read the version again under the write lock: two processes may open a new file at once.
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

    def _damaged(self, why: object) -> EngineError:
        from shlex import quote

        path, aside = quote(str(self.path)), quote(f"{self.path}.damaged")
        return EngineError(
            f"the history {self.path} is damaged ({why})",
            f"put it aside and begin a new one: mv {path} {aside}",
        )

    def _trouble(self, error: sqlite3.Error) -> EngineError:
        from shlex import quote

        from stoke.remote.common.files import is_full

        # A missing table means that the file has the newest schema's number but not its tables.
        broken = ("malformed", "not a database", "no such table", "no such column", "corrupt")
        if any(words in str(error) for words in broken):
            return self._damaged(error)
        # SQLite reports an I/O error if the disk is too full for the files beside the history.
        failed_write = "disk I/O error" in str(error)
        if "disk is full" in str(error) or (failed_write and is_full(str(self.path.parent))):
            return EngineError(
                f"cannot write to the history {self.path}: {error}",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            )
        if failed_write:
            return EngineError(
                f"cannot use the history {self.path}: {error}",
                "see whether its disk is broken or over a quota (dmesg, quota), or name another "
                "folder: export STOKE_STATE_DIR=/some/folder",
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
        """Run one statement and return its rows. Only modules of this package call it."""
        with self._lock:
            values = tuple(values)
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                if "decode to UTF-8" not in str(error):
                    raise self._trouble(error) from error
            try:
                # The text is damaged. A lenient text factory costs a call for each value.
                self._db.text_factory = _lenient_text
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._trouble(error) from error
            finally:
                self._db.text_factory = str

    def query_many(self, sql: str, rows: Iterable[Iterable[Any]]) -> None:
        """Run one statement for each of many rows of values."""
        with self._lock:
            try:
                self._db.executemany(sql, [tuple(row) for row in rows])
            except sqlite3.Error as error:
                raise self._trouble(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside the `with` block, or nothing of it."""
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
        """Add a job; a job that is already there does not change.

        `spec` is the request's JSON, with references instead of the values of secrets.
        """
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
        return _texts(rows, "name")

    def known_packages(self, kind: str) -> Names:
        """Return the names of packages that requests named, most frequent first."""
        rows = self.query(
            "SELECT name FROM asked_packages WHERE kind = ? GROUP BY name "
            "ORDER BY COUNT(*) DESC, name LIMIT 5000",
            (kind,),
        )
        return _texts(rows, "name")

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
        rows = self.query(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE {where}", (value,))  # noqa: S608
        return self._jobs(rows)[0] if rows else None

    def find(self, prefix: str) -> Job:
        """Return the only job whose id is `prefix` or begins with it, or raise `UnknownJobError`."""
        exact = self.get(prefix)
        if exact:
            return exact
        rows = self.query(
            "SELECT id FROM jobs WHERE substr(id, 1, ?) = ? ORDER BY submitted_at DESC LIMIT 6",
            (len(prefix), prefix),
        )
        if not rows or not prefix:
            raise UnknownJobError(f"no job is called {prefix!r}", "list all jobs: stoke jobs --all")
        if len(rows) > 1:
            names = ", ".join(row["id"] for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
            raise UnknownJobError(
                f"{prefix!r} is the begin of more than one job's name: {names}",
                "write more of the name",
            )
        found = self.get(rows[0]["id"])
        assert found is not None
        return found

    def list(self, limit: int | None = None, unfinished: bool = False) -> Jobs:
        """Return jobs with their phases, newest first."""
        where = f"WHERE {_UNFINISHED}" if unfinished else ""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs {where} ORDER BY submitted_at DESC LIMIT ?",  # noqa: S608
            (-1 if limit is None else limit,),
        )
        return self._jobs(rows)

    def numbered(self, numbers: Sequence[int]) -> dict[int, Job]:
        """Return {row number: job} for the row numbers that exist, with their phases."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs "  # noqa: S608
            "WHERE rowid IN (SELECT value FROM json_each(?))",
            (json.dumps(numbers),),
        )
        return {row["rowid"]: job for row, job in zip(rows, self._jobs(rows), strict=True)}

    def those(self, ids: Iterable[str]) -> Jobs:
        """Return the jobs with these ids that exist, newest first."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs "  # noqa: S608
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY submitted_at DESC",
            (json.dumps(tuple(ids)),),
        )
        return self._jobs(rows)

    def run_before(self, job: Job) -> Job | None:
        """Return the job of the same name that was submitted last before this one."""
        rows = self.query(
            "SELECT id FROM jobs WHERE name = ? AND submitted_at < ? "
            "ORDER BY submitted_at DESC LIMIT 1",
            (job.name, job.submitted_at),
        )
        return self.get(rows[0]["id"]) if rows else None

    def in_scope(self, backend: str, scope: str) -> Jobs:
        """All jobs of one scope, with their phases."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs WHERE backend = ? AND scope = ?",  # noqa: S608
            (backend, scope),
        )
        return self._jobs(rows)

    def spec(self, job_id: str) -> str | None:
        """Return the job's request as JSON text. Damaged text is returned as it is."""
        where, value = named(job_id)
        rows = self.query(f"SELECT spec FROM jobs WHERE {where}", (value,))  # noqa: S608
        text = rows[0]["spec"] if rows else None
        return text if isinstance(text, str) else None

    def nonce(self, job_id: str) -> str | None:
        rows = self.query("SELECT nonce FROM jobs WHERE id = ?", (job_id,))
        nonce = rows[0]["nonce"] if rows else None
        return nonce if isinstance(nonce, str) else None

    def environment_runs(self, request_hash: str, backend: str, scope: str) -> Jobs:
        """Return finished jobs with this request in the same scope, newest first."""
        rows = self.query(
            f"SELECT {_JOB_COLUMNS} FROM jobs WHERE request_hash = ? AND backend = ? AND scope = ? "  # noqa: S608
            "AND state IN ('succeeded', 'failed', 'stopped') ORDER BY submitted_at DESC LIMIT 20",
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
        return [row["spec"] for row in rows if _is_spec(row["spec"])]

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
            and _is_sound(row["measured_at"], _TIME)
            and all(_is_sound(row[name], _NUMBER) for name in ("bytes", "entries"))
        ]  # fmt: skip

    def remove(self, job_id: str) -> None:
        where, value = named(job_id)
        self.query(f"DELETE FROM jobs WHERE {where}", (value,))  # noqa: S608

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
            sql = f"SELECT {_PHASE_COLUMNS} FROM phases WHERE job_id IN ({marks})"  # noqa: S608
            for row in self.query(sql, some):
                job = by_id[row["job_id"]]
                phase, wrong = _phase(row)
                if phase is not None:
                    job.phases.append(phase)
                if wrong:
                    job.damage = "; ".join(filter(None, (job.damage, wrong)))
        for job in jobs:
            job.phases.sort(key=_position)
        return jobs


def named(job_id: str) -> tuple[str, object]:
    """Return the SQL condition that finds a job, and its value.

    A row with a damaged id is found by its row number (see `name_of`).
    """
    unnamed = _NO_NAME.fullmatch(job_id)
    return ("rowid = ?", int(unnamed[1])) if unnamed else ("id = ?", job_id)


def name_of(job_id: object, rowid: int) -> str:
    """Return a job's id, or a substitute for a damaged one. Ids become names of folders."""
    sound = isinstance(job_id, str) and _ID.fullmatch(job_id)
    return str(job_id) if sound else f"damaged-row-{rowid}"


def _job(row: sqlite3.Row) -> Job:
    values, wrong = _checked(row, _KINDS)
    state, counts = _STATES.get(values["state"]), _counts(values["predicted_counts"])
    if state is None:
        if "state" not in wrong:
            wrong["state"] = f"state {values['state'][:40]!r} is unknown"
        state = JobState.LOST
        values["provisional"] = 0
    if counts is None:
        wrong["predicted_counts"] = "predicted_counts is no JSON of counts"
    name = name_of(row["id"], row["rowid"])
    if name != row["id"]:
        wrong["id"] = f"id {str(row['id'])[:40]!r} names no job"
        values["id"] = name
    damage = "; ".join(wrong.values()) or None
    if "state" in wrong:
        values["reason"] = f"its record is damaged: {damage}"
    return Job(
        id=values["id"],
        name=values["name"],
        backend=values["backend"],
        scope=values["scope"],
        state=state,
        submitted_at=values["submitted_at"],
        provisional=bool(values["provisional"]),
        exit_code=values["exit_code"],
        reason=values["reason"],
        started_at=values["started_at"],
        finished_at=values["finished_at"],
        cpu_seconds=values["cpu_seconds"],
        peak_memory=values["peak_memory"],
        image=values["image"],
        request_hash=values["request_hash"],
        python_hash=values["python_hash"],
        system_hash=values["system_hash"],
        predicted=Prediction(
            values["predicted_python"],
            values["predicted_system"],
            values["predicted_seconds"],
            counts or {},
        ),
        log_lines=values["log_lines"],
        log_bytes=values["log_bytes"],
        log_gaps=values["log_gaps"],
        stop_requested=bool(values["stop_requested"]),
        damage=damage,
    )


_STATES: dict[object, JobState] = {state.value: state for state in JobState}


def _checked(
    row: sqlite3.Row, kinds: Mapping[str, tuple[str, bool]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a row's values and its damage by column. A damaged value reads as unknown."""
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for (name, (kind, required)), value in zip(kinds.items(), row, strict=False):
        if (value is None and not required) or _is_sound(value, kind):
            values[name] = value
            continue
        wrong[name] = f"{name} is {'missing' if value is None else f'not {kind}'}"
        values[name] = _REPLACEMENTS[kind] if required else None
        if isinstance(value, str):
            wrong[name] += f" ({value[:40]!r})"
            if kind is _TEXT:
                wrong[name] = f"{name} is {len(value):,} characters long"
                values[name] = value[:200]
    return values, wrong


def _is_sound(value: object, kind: str) -> bool:
    if kind is _TEXT:
        return isinstance(value, str) and len(value) <= LONGEST_TEXT
    if kind is _NUMBER or kind is _FLAG:
        return isinstance(value, int)
    # Infinity and NaN are outside these bounds.
    return isinstance(value, int | float) and (0 if kind is _TIME else -LATEST) <= value <= LATEST


def _is_spec(text: object) -> bool:
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _texts(rows: Iterable[sqlite3.Row], column: str) -> list[str]:
    return [row[column] for row in rows if isinstance(row[column], str)]


def _lenient_text(data: bytes) -> str:
    return data.decode(errors="replace")


def _position(phase: Phase) -> int:
    """Return a phase's position; a phase of another version of the runner comes last."""
    return PHASES.index(phase.name) if phase.name in PHASES else len(PHASES)


def _phase(row: sqlite3.Row) -> tuple[Phase | None, str]:
    """Return a phase and the damage of its record; None for one without a name or a start."""
    values, wrong = _checked(row, _PHASE_KINDS)
    told = f"a phase is damaged ({', '.join(wrong.values())})" if wrong else ""
    if "name" in wrong or "started_at" in wrong:
        return None, told
    if values["hit"] is not None:
        values["hit"] = bool(values["hit"])
    return Phase(**values), told


def _counts_text(prediction: Prediction) -> str | None:
    counts = {
        kind: [one.cached, one.packages, one.named] for kind, one in prediction.counts.items()
    }
    return json.dumps(counts) if counts else None


def _counts(text: str | None) -> dict[str, Counts] | None:
    """Parse the text of `_counts_text`; None for any other text."""
    if not text:
        return {}
    try:
        counts = {kind: Counts(*row) for kind, row in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    sound = all(
        isinstance(one.cached, int) and isinstance(one.packages, int) for one in counts.values()
    )
    return counts if sound else None
